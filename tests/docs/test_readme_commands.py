"""Every line of the README's shell blocks is run, in reading order, on a stream with an outage in it.

Lines that are `make` targets are only asked whether there is such a target, and benchmarks for their help: what they do
has tests of its own, or takes long. The
README's placeholders stand for what the stream made: STATE and DIR its state folder, VERSION, A and B its versions,
SLIDE the slides in quarantine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from readme import ROOT, blocks, commands, text

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from broker import KafkaBroker
from processes import PROGRAM, changed, version_numbers, write_config
from shops import CONFIG, PARTITIONS, write_shop
from test_next_item import TASK
from test_outages import OFTEN, lost

EVENTS = 14_000
FINISH_S = 900
_DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data")).resolve()  # lines run in other folders


def targets() -> list[str]:
    return [line for line in commands() if line.startswith("make ")]


def ours() -> list[str]:
    return [line for line in commands() if line.startswith("stream-learner ")]


def benchmarks() -> list[str]:
    return [line for line in commands() if line.startswith("python -m benchmarks.")]


def test_every_line_is_of_a_kind_that_is_tested() -> None:
    assert len(ours()) > 15 and len(targets()) >= 4
    assert sorted(commands()) == sorted(ours() + targets() + benchmarks())


@pytest.mark.parametrize("line", sorted({*benchmarks(), *re.findall(r"`(python -m benchmarks\.[^`]*)`", text())}))
def test_the_benchmark_knows_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    asked = subprocess.run(
        [sys.executable, *words[:2], "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    assert [word for word in words if word.startswith("--") and word not in asked.stdout] == []


@pytest.mark.parametrize("line", [*targets(), *sorted(set(re.findall(r"`(make [a-z-]+)", text())))])
def test_the_makefile_has_the_target(line: str) -> None:
    words = shlex.split(re.sub(r"[\[\]]", "", line))
    done = subprocess.run([words[0], "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class World:
    """A folder in which the README's lines are run one after the other."""

    def __init__(self, folder: Path, kafka: KafkaBroker) -> None:
        self.folder, self.state = folder, folder / "state"
        topic = kafka.topic(PARTITIONS)
        for partition, path in enumerate(sorted(write_shop(folder / "shop", EVENTS).iterdir())):
            events = [(line, json.loads(line)) for line in path.read_bytes().splitlines()]
            kafka.produce(topic, [(partition, line, event["timestamp"]) for line, event in events if not lost(event)])
        config = changed(OFTEN, topics={topic: CONFIG["topics"]["events"]}, source__kind="kafka", name="conversion")
        config = changed(config, source__kafka__bootstrap_servers=kafka.bootstrap, state=str(self.state))
        config = changed(config, tasks=["conversion", "next_item"], next_item=TASK)
        write_config(folder / "my.yaml", config)

    def run(self, line: str) -> None:
        """A line as a user types it, the placeholders filled in; its exit code must be 0."""
        words = [str(PROGRAM), *shlex.split(self.filled(line))[1:]]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=FINISH_S, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"

    def filled(self, line: str) -> str:
        line = re.sub(r"\[(--json)\]", r"\1", line)
        if line.startswith("stream-learner run"):
            line += " --until-end"  # instead of waiting for a signal
        line = line.replace("STATE", "state").replace("DIR", "state")
        if "VERSION" in line or " A B" in line:
            one, two, *_ = map(str, version_numbers(self.state, "conversion"))
            line = line.replace("VERSION", one).replace(" A B", f" {one} {two}")
        return self.slides(line) if "SLIDE" in line else line

    def slides(self, line: str) -> str:
        done = subprocess.run(
            [PROGRAM, "slides", "list", "--state", self.state, "--json"], capture_output=True, text=True, check=True
        )
        numbers = [str(slide["number"]) for slide in json.loads(done.stdout)["slides"]]
        assert numbers, "the outage was not found"
        return line.replace("SLIDE..", " ".join(numbers)).replace("SLIDE", numbers[0])


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(3600)
def test_every_command_runs_as_it_stands(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, kafka)
    for line in ours():
        if "benchmarks/configs/tmall.yaml" in line:
            tmall(world, line)
        else:
            world.run(line)
    run_python(world)


def tmall(world: World, line: str) -> None:
    """The data set is not everybody's; without it the config alone is looked at."""
    config = "benchmarks/configs/tmall.yaml"
    if (_DATA / "alibaba_tmall_2014" / "events.parquet").exists():
        world.run(line.replace(config, str(ROOT / config)).replace("../shared/data", str(_DATA)).replace("/tmp/", ""))
    else:
        world.run(f"stream-learner config check {ROOT / config}")


def run_python(world: World) -> None:
    """The block that asks a version for a probability."""
    code = next(block for block in blocks("python") if "saved_model.load" in block)
    version = version_numbers(world.state, "conversion")[0]
    code = re.sub(r"(state/checkpoints/conversion/)\d+", rf"\g<1>{version}", code)
    code = code.replace('["probability"]', '["probability"].numpy()').replace("ask(\n", "told = ask(\n")
    code += "assert 0 < told[0] < 1, told\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=world.folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_first_config_is_right(tmp_path: Path) -> None:
    config = next(block for block in blocks("yaml") if block.startswith("name: conversion"))
    (tmp_path / "my.yaml").write_text(config)
    done = subprocess.run(
        [PROGRAM, "config", "check", tmp_path / "my.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
