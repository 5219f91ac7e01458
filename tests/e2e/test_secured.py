"""A broker that wants TLS and a SCRAM login; and secrets that are to be found nowhere, however hard one looks."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import KafkaBroker, apache_can_run
from processes import Background, changed, learner, version_numbers, write_config
from secured_broker import USER, SecuredKafka
from shops import CONFIG, PARTITIONS, SEED, shop

from stream_learner.simulate import limited, produce_kafka

EVENTS = 8_000
CLIENTS = ("kafka-python", "confluent")
PLANTED = {
    "KAFKA_PASSWORD": "planted-password-of-the-broker",
    "DASHBOARD_TOKEN": "planted-token-of-the-dashboard",
    "PSEUDONYM_KEY": "planted-key-of-the-pseudonyms-0123456789",
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.kafka,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not apache_can_run(), reason="needs Java 17 and mvn"),
]


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredKafka]:
    server = SecuredKafka(PLANTED["KAFKA_PASSWORD"])
    yield server
    server.remove()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def secured_config(server: SecuredKafka, topic: str, client: str, **options: Any) -> dict[str, Any]:
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256", "sasl_plain_username": USER}
    login |= {"sasl_plain_password": "${KAFKA_PASSWORD}", "ssl_cafile": str(server.authority), **options}
    kafka = {"bootstrap_servers": server.secured_bootstrap, "client": client, "options": login, "retry_timeout": "20s"}
    return changed(
        CONFIG,
        topics={topic: CONFIG["topics"]["events"]},
        source={"kind": "kafka", "kafka": kafka},
        dead_letters={"kind": "kafka", "topic": f"{topic}-dead", "max_rate": 1.0},
        announce={"topic": f"{topic}-versions"},
        privacy={"pseudonymise": True, "key": "${PSEUDONYM_KEY}"},
        observing={"port": 0, "log_level": "debug", "log_format": "json", "token": "${DASHBOARD_TOKEN}"},
    )


def filled(server: SecuredKafka) -> tuple[KafkaBroker, str]:
    """A topic with a shop and a few records that are none, and the topics the worker writes to."""
    broker = KafkaBroker(server)  # type: ignore[arg-type]
    topic = broker.topic(PARTITIONS)
    for name in (f"{topic}-dead", f"{topic}-versions"):
        broker.create(name)
    broker.produce(topic, [(0, b"no JSON", None)] * 3)
    produce_kafka(broker.bootstrap, topic, limited(shop().chunks(), EVENTS), partitions=PARTITIONS, seed=SEED)
    return broker, topic


def found_in(content: bytes) -> list[str]:
    return [name for name, secret in PLANTED.items() if secret.encode() in content]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_worker_learns_through_tls_and_scram_and_gives_no_secret_away(
    secured: SecuredKafka, tmp_path: Path, client: str
) -> None:
    broker, topic = filled(secured)
    config = write_config(tmp_path / "config.yaml", secured_config(secured, topic, client))
    state = tmp_path / "state"
    with Background(tmp_path, "run", "-c", config, "--state", state) as worker:
        address = re.search(r"http://[\d.]+:\d+", worker.wait_for_log("metrics and health at"))
        assert address is not None
        worker.wait_for("a version", lambda: version_numbers(state))
        announced = broker.consume(f"{topic}-versions", 1, timeout_s=120)
        dead = broker.consume(f"{topic}-dead", 3, timeout_s=120)
        paths = ("/metrics", "/healthz", "/readyz", "/dashboard", "/dashboard/now", "/dashboard/versions")
        told = b"".join(urllib.request.urlopen(f"{address[0]}{path}").read() for path in paths)
        assert worker.end(signal.SIGTERM) == 0
        told += worker.stdout.read_bytes() + worker.stderr.read_bytes()
    assert len(announced) == 1 and len(dead) == 3
    for command in (["config", "show", config], ["config", "check", config], ["checkpoints", "list", "--state", state]):
        done = learner(*command)
        told += done.stdout.encode() + done.stderr.encode()
    assert b"slide closed" in told
    assert found_in(told) == []
    files = [path for path in state.rglob("*") if path.is_file()]
    assert any("snapshots" in path.parts for path in files) and any(path.name == "card.md" for path in files)
    assert {path: names for path in files if (names := found_in(path.read_bytes()))} == {}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sasl_plain_password": "guessed"}, r"source\.kafka\.options|uthentication"),
        ({"ssl_cafile": "OTHER"}, r"(?i)certificate"),
    ],
)
def test_a_wrong_password_or_authority_is_told_and_keeps_the_secrets(
    secured: SecuredKafka, tmp_path: Path, options: dict[str, str], expected: str, client: str
) -> None:
    if options.get("ssl_cafile") == "OTHER":
        options = {"ssl_cafile": str(secured.other_authority)}
    config = write_config(tmp_path / "config.yaml", secured_config(secured, "events", client, **options))
    with Background(tmp_path, "run", "-c", config, "--state", tmp_path / "state") as worker:
        assert worker.end_code() in (2, 6)
    assert re.search(expected, worker.log()), worker.log()[-2000:]
    assert found_in(worker.log().encode()) == []
