"""The compose file and the config it gives the worker, as far as no container engine is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stream_learner import config as configs

DEPLOY = Path(__file__).parents[2] / "deploy"


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def test_the_workers_config_is_right(monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    config = configs.load(str(DEPLOY / "compose" / "worker.yaml"))
    services = compose()["services"]
    assert f"/models/checkpoints/{config.name}" in " ".join(services["serving"]["command"])
    assert services["worker"]["volumes"][0] == f"state:{config.state}"
    assert config.topics.keys() == {services["shop"]["command"][4]}


def test_learner_and_standby_are_one_and_the_same_but_for_the_port():
    worker, standby = (dict(compose()["services"][name]) for name in ("worker", "standby"))
    assert worker.pop("ports") != standby.pop("ports")
    assert worker == standby


def test_no_port_is_open_to_others():
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_every_file_that_is_mounted_is_there_and_every_volume_declared():
    content = compose()
    for service in content["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in content["volumes"]
    assert (DEPLOY / content["x-worker"]["build"]["context"] / "deploy" / "Dockerfile").is_file()


def test_what_the_dockerfile_copies_is_there_and_not_ignored():
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in copied:
        assert (DEPLOY.parent / path).exists() and path.partition("/")[0] in kept
