"""Apache Kafka as a cautious platform team runs it: TLS by a certificate authority of its own, and SCRAM logins."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from broker import _CLUSTER_ID, _end, _free_ports, _jars, _spawn, _wait_until_ready
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER = "worker"

_PROPERTIES = """process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SECURED://127.0.0.1:{secured}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURED://127.0.0.1:{secured}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.secured.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.ms=-1
log.dirs={logs}
"""


class SecuredKafka:
    """One broker. `bootstrap` is open, for the tests' own hands; `secured_bootstrap` wants TLS and a SCRAM login."""

    name = "Apache Kafka with TLS and SCRAM"

    def __init__(self, password: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        atexit.register(self.remove)
        port, controller, secured = _free_ports(3)
        self.bootstrap, self.secured_bootstrap = f"127.0.0.1:{port}", f"127.0.0.1:{secured}"
        self.authority = self._folder / "authority.pem"
        self.other_authority = self._folder / "other.pem"
        certified(self.other_authority, self._folder / "other-keystore.pem")
        certified(self.authority, keystore := self._folder / "keystore.pem")
        settings = self._folder / "server.properties"
        ports = {"port": port, "controller": controller, "secured": secured}
        settings.write_text(_PROPERTIES.format(**ports, keystore=keystore, logs=self._folder / "log"))
        java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{_jars()}/*"]
        tool = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(settings)]
        login = ["--add-scram", f"SCRAM-SHA-256=[name={USER},password={password}]"]
        subprocess.run([*tool, *login], check=True, capture_output=True)
        self._process = _spawn([*java, "kafka.Kafka", str(settings)], self._folder / "broker.out")
        _wait_until_ready(self.bootstrap, self._process, self._folder / "broker.out")

    def remove(self) -> None:
        _end(getattr(self, "_process", None))
        shutil.rmtree(self._folder, ignore_errors=True)


def certified(authority: Path, keystore: Path) -> None:
    """Writes a new authority's certificate, and a key for 127.0.0.1 with the certificate it gave out."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {authority.stem}")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    root = (
        _begun(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    given = _begun(name, root_name, key).add_extension(names, critical=False).sign(root_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    authority.write_bytes(root.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    keystore.write_bytes(secret + given.public_bytes(pem) + root.public_bytes(pem))


def _begun(name: x509.Name, by: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """A certificate of today."""
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(by).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=2))
