"""The driver: lives begin, end and are signalled through it alone, and its own end is no life's business."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .driver import Driver, DriverEndedError, Order


def order(folder: Path) -> Order:
    paths = {name: str(folder / name) for name in ("config", "state", "report", "ledger", "fsyncs", "output")}
    return Order(**paths)


def test_a_life_without_a_config_ends_with_its_exit_code(tmp_path: Path) -> None:
    with Driver(tmp_path / "driver") as driver:
        life = driver.begin(order(tmp_path))
        assert life.wait(60) == 2
        life.send(signal.SIGKILL)  # too late, and goes nowhere
        assert driver.begin(order(tmp_path)).wait(60) == 2


def test_a_driver_that_has_ended_says_so_and_signals_nobody(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "driver")
    driver.close()
    life = driver.begin(order(tmp_path))
    life.send(signal.SIGKILL)
    with pytest.raises(DriverEndedError, match=str(tmp_path / "driver")):
        life.wait(5)
