"""A stand-in for a machine that has booted Foreman's discovery image: TLS with a certificate of its own making.

It is no image: it answers as the image's Smart Proxy was seen to (docs/facts/smart-proxy-protocol.md §18.3), and boots
nothing.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from muster.cli.demo.bind import free_port
from tests.servers.client import Place
from tests.servers.listener import Listener

FACTS = {"discovery_bootif": "52:54:00:aa:00:01", "os": {"family": "RedHat"}, "ipaddress": "127.0.0.91"}


@dataclass(frozen=True)
class Asked:
    """One call as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Machine:
    """One. Use :func:`running`.

    Attributes:
        certificate: what it shows, and, since it signed it itself, its CA.
        answers: status and body that stand for the usual ones, by path.
        headers: what it says beside.
        delay_s: how long each call takes.
        asked: what it was asked, in order.
    """

    place: Place
    certificate: Path
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    def answer(self, one: Asked) -> tuple[int, bytes]:
        if one.path in self.answers:
            return self.answers[one.path]
        if one.method == "PUT" and "content-length" not in one.headers:
            return 411, b"Length Required"
        if (one.method, one.path) == ("GET", "/inventory/facter"):
            return 200, json.dumps(FACTS).encode()
        if (one.method, one.path) == ("GET", "/facts"):
            return 403, b"No client SSL certificate supplied"
        if one.method == "PUT" and (one.path.startswith("/power/") or one.path.endswith("/chassis/power/cycle")):
            return 200, b'{"result":true}'
        return 404, b"Requested url was not found"


@contextlib.contextmanager
def running(directory: Path, address: str, *, names: bool = False) -> Iterator[Machine]:
    """Yield one that answers. ``names``: its certificate has its address as a name, too, which no image's has."""
    directory.mkdir(exist_ok=True)
    machine = Machine(Place(address, free_port(address)), _signed_by_itself(directory, address, names=names))

    class Talk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def setup(self) -> None:
            # In the call's own thread: one client must not hold up the others.
            self.request.do_handshake()
            super().setup()

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            one = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            machine.asked.append(one)
            time.sleep(machine.delay_s)
            status, said = machine.answer(one)
            self.send_response_only(status)
            for name, value in {"Content-Type": "application/json", **machine.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_PUT = do  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(machine.certificate)
    with Listener(machine.place, Talk, context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="discovered")
        thread.start()
        try:
            yield machine
        finally:
            server.shutdown()
            thread.join()


def _signed_by_itself(directory: Path, address: str, *, names: bool) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), False)
    file = directory / "machine.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return file
