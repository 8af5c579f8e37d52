"""What a Foreman answers to hosts that ask through a Smart Proxy: scripts that register them, and templates.

A stand-in, made after the one of the recordings (tests/wire/recorded/smart-proxy): parameters say what it answers. It asks
for a certificate as Foreman does, and like a Foreman in containers it answers 403 to names that are not its own.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers.certificates import NOW
from tests.servers.listener import Listener

# The one name that every host resolves.
NAME = "localhost"


@dataclass(frozen=True)
class Asked:
    """One call as it arrived.

    Attributes:
        path: with its query.
        headers: names in lower case; what came twice stands with a comma.
        client: the common name in the certificate that was shown; None: none was.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: str | None

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.path).query, keep_blank_values=True)


@dataclass
class ForemanForHosts:
    """Tests change it while it runs; :meth:`start` and :meth:`stop` it at will.

    Attributes:
        may_answer: while it is cleared, calls wait.
        delay_s: how long each call takes.
        cut: of how many bytes of a body the connection breaks off.
        script: what it answers to who registers; None: as recorded.
        discovered: status and body of what it answers to a discovered machine's facts.
        templates: by path, what it answers to hosts that are installed; to others what shows who asked.
        headers: what it says beside.
        hangs_up: whether it closes connections that could be kept, without having said so.
        is_unframed: whether only the connection's end says where a body ends.
        answers: by how a path begins, what answers below it: status, body and kind.
        asked: what it was asked, in order.
    """

    directory: Path
    port: int = 0
    may_answer: threading.Event = field(default_factory=threading.Event)
    delay_s: float = 0.0
    cut: int | None = None
    script: bytes | None = None
    discovered: tuple[int, bytes] = (201, b'{"id":7}')
    templates: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    is_unframed: bool = False
    answers: dict[str, Callable[[Asked], tuple[int, bytes, str]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    _server: Listener | None = None
    _connections: set[ssl.SSLSocket] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.may_answer.set()
        authority = ClusterCA.create(self.directory / "ca", "foreman's", now=NOW)
        self.ca_file = authority.directory / "ca.pem"
        bundle = write(authority.issue(BundleRequest("member", NAME), now=NOW), self.directory)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(bundle.certificate, bundle.key)
        self._context.verify_mode = ssl.CERT_OPTIONAL

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    def believe(self, ca_file: Path) -> None:
        """Take certificates of this CA, which Smart Proxies show."""
        self._context.load_verify_locations(ca_file)

    def counted(self) -> Counter[str]:
        """Return how often each path was asked for, without queries."""
        return Counter(f"{one.method} {one.path.partition('?')[0]}" for one in list(self.asked))

    def start(self) -> None:
        """Answer, on the same port as before."""
        foreman = self

        class Talk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self) -> None:
                # In the call's own thread: one client must not hold up the others.
                self.request.do_handshake()
                foreman._connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                foreman._connections.discard(self.request)
                super().finish()

            def do(self) -> None:
                body = self._body()
                shown: Any = self.connection
                subject = (shown.getpeercert() or {}).get("subject", ())
                client = next((v for part in subject for k, v in part if k == "commonName"), None)
                sent: dict[str, str] = {}
                for name, value in self.headers.items():
                    sent[name.lower()] = f"{sent[name.lower()]}, {value}" if name.lower() in sent else value
                foreman.asked.append(Asked(self.command, self.path, sent, body, client))
                foreman.may_answer.wait(60)
                time.sleep(foreman.delay_s)
                self._answer(sent, body, client)

            do_GET = do_HEAD = do_POST = do_PUT = do  # noqa: N815 - http.server's names

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline().strip(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _answer(self, sent: Mapping[str, str], body: bytes, client: str | None) -> None:
                parts = urlsplit(self.path)
                given = dict(parse_qsl(parts.query, keep_blank_values=True))
                status = int(given.get("want", 200))
                if sent.get("host") != f"{NAME}:{foreman.port}":
                    return self._say(403, b"Blocked host")
                for start, answer in foreman.answers.items():
                    if parts.path.startswith(start):
                        return self._say(*answer(Asked(self.command, self.path, sent, body, client)))
                if parts.path == "/register":
                    if status == 200:
                        script = f"#!/bin/sh\n# registration script {self.command}\n".encode()
                        return self._say(200, foreman.script if foreman.script is not None else script)
                    if given.get("as") == "html":
                        return self._say(status, b"<html>oops</html>", "text/html; charset=utf-8")
                    if given.get("as") == "none":
                        return self._say(status, b"no content type", None)
                    return self._say(status, f'echo "ERROR: failed with {status}"\nexit 1\n'.encode())
                if parts.path.startswith(("/unattended/", "/userdata/")):
                    if status in (301, 302):
                        return self._say(status, b"moved", location="/elsewhere")
                    if (rendered := foreman.templates.get(parts.path)) is not None:
                        return self._say(status, rendered)
                    text = f"# template {self.command} {unquote(parts.path)}\nbody=".encode() + body + b"\n"
                    return self._say(status, text)
                if (self.command, parts.path) == ("POST", "/api/v2/discovered_hosts/facts"):
                    return self._say(*foreman.discovered, "application/json; charset=utf-8")
                return self._say(401 if parts.path == "/api/v2/status" else 404, b"nope")

            def _say(
                self, status: int, body: bytes, kind: str | None = "text/plain; charset=utf-8", location: str = ""
            ) -> None:
                self.send_response_only(status)
                if kind is not None:
                    self.send_header("Content-Type", kind)
                if location:
                    self.send_header("Location", location)
                for name, value in foreman.headers.items():
                    self.send_header(name, value)
                has_body = status not in (204, 304)
                if has_body and not foreman.is_unframed:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if has_body:
                    self.wfile.write(body[: foreman.cut])
                if foreman.cut is not None or foreman.hangs_up or foreman.is_unframed:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = Listener(("127.0.0.1", self.port), Talk, self._context)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), name="foreman for hosts", daemon=True).start()
        self._server = server

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        for connection in list(self._connections):
            # Who is connected is served no more, as when a process has ended.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[ForemanForHosts]:
    """Yield one that answers, with a certificate of a CA of its own; it believes nobody yet."""
    directory.mkdir(exist_ok=True)
    foreman = ForemanForHosts(directory)
    foreman.start()
    try:
        yield foreman
    finally:
        foreman.may_answer.set()
        foreman.stop()
