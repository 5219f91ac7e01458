"""What all tests share: the one broker of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from broker import ApacheKafka, KafkaBroker, NoidaDb, apache_can_run, open_broker

_BROKER = pytest.StashKey[str]()
_APACHE_ONLY = "tried on Apache Kafka only: needs Java 17 and mvn"


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[KafkaBroker]:
    """A running broker, shared by the whole run: make topics of your own, never stop it."""
    server = open_broker()
    _note_broker(pytestconfig, server.name)
    yield KafkaBroker(server)
    server.remove()


@pytest.fixture
def own_kafka() -> Iterator[KafkaBroker]:
    """A broker of one test's own, to be stopped, frozen and started again; Apache Kafka only."""
    if not apache_can_run():
        pytest.skip(_APACHE_ONLY)
    server = ApacheKafka()
    yield KafkaBroker(server)
    server.remove()


@pytest.fixture
def apache_kafka(kafka: KafkaBroker) -> KafkaBroker:
    """The shared broker, for what its stand-ins do otherwise: topics made anew, records deleted, nothing created."""
    if isinstance(kafka.server, NoidaDb):
        pytest.skip(_APACHE_ONLY)
    return kafka


def _note_broker(config: pytest.Config, name: str) -> None:
    """For the last lines of the run, also where this is one of several processes (pytest-xdist)."""
    config.stash[_BROKER] = name
    if hasattr(config, "workeroutput"):
        config.workeroutput["broker"] = name


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    name = getattr(node, "workeroutput", {}).get("broker")
    if name is not None:
        node.config.stash[_BROKER] = name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    name = config.stash.get(_BROKER, None)
    if name is not None and name != ApacheKafka.name:
        terminalreporter.write_line(f"Kafka tests ran on {name}; REQUIRE_APACHE_KAFKA=1 asks for the real one.")
