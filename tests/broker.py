"""Real Kafka for the tests: started on free ports, data in a temporary folder, gone when the run ends.

Which broker, in this order: the one named by KAFKA_BOOTSTRAP_SERVERS; Apache Kafka from Maven Central, where there are
Java 17 and mvn; the noida-db wheel, which speaks enough of the protocol for machines without Java. With
REQUIRE_APACHE_KAFKA=1 nothing but Apache Kafka will do.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.resources
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kafka
from kafka.errors import KafkaError

KAFKA_VERSION = "4.1.0"
_CACHE = Path(__file__).parent.parent / "build" / f"kafka-{KAFKA_VERSION}"
_READY_S = 60.0
_CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
SASL_USER, SASL_PASSWORD = "worker", "worker-secret"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>broker</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""

_PROPERTIES = """process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL://127.0.0.1:{sasl},PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},PROXIED://127.0.0.1:{proxied}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.ms=-1
log.dirs={logs}
"""


class ApacheKafka:
    """One broker and controller in one JVM (KRaft). `stop` and `start` keep port and data.

    Where a test puts a proxy on `proxied_bootstrap`, whose far side is `behind_proxy`, clients that bootstrap there are
    told no other address.
    """

    name = f"Apache Kafka {KAFKA_VERSION}"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        port, controller, sasl, proxied, behind = _free_ports(5)
        self.bootstrap, self.sasl_bootstrap = f"127.0.0.1:{port}", f"127.0.0.1:{sasl}"
        self.proxied_bootstrap, self.behind_proxy = f"127.0.0.1:{proxied}", f"127.0.0.1:{behind}"
        self._java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{_jars()}/*"]
        self._settings = self._folder / "server.properties"
        self._settings.write_text(
            _PROPERTIES.format(
                port=port,
                controller=controller,
                sasl=sasl,
                proxied=proxied,
                behind=behind,
                logs=self._folder / "log",
                user=SASL_USER,
                password=SASL_PASSWORD,
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        tool = [*self._java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(self._settings)]
        subprocess.run(tool, check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        self._process = _spawn([*self._java, "kafka.Kafka", str(self._settings)], self._folder / "broker.out")
        _wait_until_ready(self.bootstrap, self._process, self._folder / "broker.out")

    def stop(self) -> None:
        _end(self._process)
        self._process = None

    def kill(self) -> None:
        """By SIGKILL: it leaves without a word, and recovers its log at the next start."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """The broker hangs: connections stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def throttle(self, client_id: str, bytes_per_s: int) -> None:
        """The broker makes clients of this name wait, so that they read no faster."""
        where = ["--bootstrap-server", self.bootstrap, "--entity-type", "clients", "--entity-name", client_id]
        quota = ["--alter", "--add-config", f"consumer_byte_rate={bytes_per_s}"]
        command = [*self._java, "kafka.admin.ConfigCommand", *where, *quota]
        subprocess.run(command, check=True, capture_output=True)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class NoidaDb:
    """The Kafka-compatible server of the noida-db wheel (dev only). No SASL listener."""

    name = "noida-db (Kafka-compatible, not Apache Kafka)"
    sasl_bootstrap = None

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="noida-"))
        (port,) = _free_ports(1)
        self.bootstrap = f"127.0.0.1:{port}"
        program = Path(str(importlib.resources.files("noida_db"))) / "noida-db"
        program.chmod(0o755)  # the wheel's own starter does the same, and stays between us and the server
        self._command = [str(program), "start", "--only", "kafka", "--kafka-port", str(port)]
        self._command += ["--host", "127.0.0.1", "--data-dir", str(self._folder / "data")]
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        self.start()

    def start(self) -> None:
        self._process = _spawn(self._command, self._folder / "broker.out")
        _wait_until_ready(self.bootstrap, self._process, self._folder / "broker.out")

    def stop(self) -> None:
        _end(self._process)
        self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class GivenBroker:
    """A broker somebody else runs."""

    name = "the broker in KAFKA_BOOTSTRAP_SERVERS"
    sasl_bootstrap = None

    def __init__(self) -> None:
        self.bootstrap = os.environ["KAFKA_BOOTSTRAP_SERVERS"]

    def remove(self) -> None:
        """It is not ours to stop."""


def open_broker() -> ApacheKafka | NoidaDb | GivenBroker:
    """The broker for this run (see the module docstring). Raises `RuntimeError` where there is none to be had."""
    required = os.environ.get("REQUIRE_APACHE_KAFKA") == "1"
    if "KAFKA_BOOTSTRAP_SERVERS" in os.environ and not required:
        return GivenBroker()
    if apache_can_run():
        return ApacheKafka()
    if required:
        raise RuntimeError("REQUIRE_APACHE_KAFKA=1, and there is no Java 17 with mvn")
    if importlib.util.find_spec("noida_db") is None:
        raise RuntimeError("no broker: install Java 17 with mvn, or noida-db, or set KAFKA_BOOTSTRAP_SERVERS")
    return NoidaDb()


def apache_can_run() -> bool:
    return shutil.which("java") is not None and (_CACHE.exists() or shutil.which("mvn") is not None)


class KafkaBroker:
    """What tests use: topics with names of their own, records in, clients out."""

    def __init__(self, server: ApacheKafka | NoidaDb | GivenBroker) -> None:
        self.server = server
        self.bootstrap = server.bootstrap
        self._numbers = itertools.count()
        self._run = f"{os.getpid()}-{time.time_ns() % 10**9}"

    @contextlib.contextmanager
    def admin(self) -> Iterator[Any]:
        client = kafka.KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            yield client
        finally:
            client.close()

    def topic(self, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        """A new topic that keeps its records however old their timestamps are."""
        name = f"t-{self._run}-{next(self._numbers)}"
        self.create(name, partitions, config)
        return name

    def create(self, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> None:
        options = {
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": {"retention.ms": "-1"} | (config or {}),
        }
        with self.admin() as admin:
            admin.create_topics({name: options}, wait_for_metadata=True)

    def grow(self, name: str, partitions: int) -> None:
        """Raises the number of partitions, where there are fewer."""
        with self.admin() as admin:
            present = len(admin.describe_topics([name])[0]["partitions"])
            if present < partitions:
                admin.create_partitions({name: partitions})

    def producer(self, **options: Any) -> Any:
        return kafka.KafkaProducer(bootstrap_servers=self.bootstrap, **options)

    def produce(self, topic: str, records: Iterable[tuple[int, bytes | None, int | None]]) -> None:
        """Sends (partition, value, timestamp in ms or None) in this order and waits for every acknowledgement."""
        producer = self.producer(linger_ms=5)
        try:
            sent = [producer.send(topic, value=v, partition=p, timestamp_ms=t, key=b"k") for p, v, t in records]
            for future in sent:
                future.get(timeout=30)
        finally:
            producer.close(timeout=5)

    def consume(self, topic: str, count: int, timeout_s: float = 20.0) -> list[Any]:
        """The first `count` records of partition 0."""
        consumer = kafka.KafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        try:
            consumer.assign([kafka.TopicPartition(topic, 0)])
            found: list[Any] = []
            deadline = time.monotonic() + timeout_s
            while len(found) < count and time.monotonic() < deadline:
                found += [record for records in consumer.poll(timeout_ms=200).values() for record in records]
            return found
        finally:
            consumer.close()


def _jars() -> Path:
    """Folder of Apache Kafka's jars, fetched by Maven once and kept; the rename makes it whole or absent."""
    if not _CACHE.exists():
        _CACHE.parent.mkdir(exist_ok=True)
        fetched = Path(tempfile.mkdtemp(prefix="kafka-jars-", dir=_CACHE.parent))
        (fetched / "pom.xml").write_text(_POM)
        command = ["mvn", "-q", "-B", "-f", str(fetched / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run([*command, f"-DoutputDirectory={fetched / 'lib'}"], check=True)
        with contextlib.suppress(OSError):  # another run was quicker
            fetched.rename(_CACHE)
        shutil.rmtree(fetched, ignore_errors=True)
    return _CACHE / "lib"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not even a killed test run leaves a broker behind


def _spawn(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    with out.open("ab") as sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _wait_until_ready(bootstrap: str, process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the broker ended with {process.returncode}: {out.read_text()[-2000:]}")
        host, port = bootstrap.split(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            admin = kafka.KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=2000)
            admin.close()
            return
        except (OSError, KafkaError):
            time.sleep(0.1)
    raise RuntimeError(f"the broker is not ready after {_READY_S:.0f} s: {out.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)  # a frozen one could not hear the rest
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
