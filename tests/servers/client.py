"""A client that sends exactly the bytes it is given, and reads replies without interpreting them."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

# Long enough for any deadline of a member under test, short enough that a missing one fails the test.
PATIENCE_S = 20.0


class Place(NamedTuple):
    """Where a server listens."""

    address: str
    port: int


@dataclass(frozen=True)
class Answer:
    """A reply as it came; header names are lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "surrogateescape")


class Connection:
    """One TCP or TLS connection, closed by its ``with``."""

    def __init__(
        self,
        place: Place,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        source: str | None = None,
        first: bytes = b"",
        timeout_s: float = PATIENCE_S,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Connect; ``first`` is sent in the clear before TLS, as a balancer sends its PROXY header."""
        self.socket: socket.socket = socket.create_connection(place, timeout_s, (source, 0) if source else None)
        try:
            if first:
                self.socket.sendall(first)
            if tls is not None:
                self.socket = tls.wrap_socket(
                    self.socket, server_hostname=server_name or place.address, session=session
                )
        except BaseException:
            self.socket.close()
            raise
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def answer(self, method: str = "GET") -> Answer:
        """Read one reply.

        Raises:
            ConnectionError: the server closed before or within it.
        """
        line = self._reader.readline()
        if not line:
            raise ConnectionResetError("closed without an answer")
        _, status, reason = [*line.decode("latin-1").rstrip("\r\n").split(" ", 2), ""][:3]
        headers = {k.lower(): v for k, v in http.client.parse_headers(self._reader).items()}
        if method == "HEAD" or status in ("204", "304"):
            body = b""
        elif "content-length" in headers:
            body = self._reader.read(int(headers["content-length"]))
        else:
            assert "transfer-encoding" not in headers, "a reply came in chunks"
            body = self._reader.read()
        return Answer(int(status), reason, headers, body)

    def remainder(self) -> bytes:
        """Read until the server closes; a reset counts as the end.

        Raises:
            TimeoutError: it did not close.
        """
        got = b""
        try:
            while chunk := self._reader.read1(65536):
                got += chunk
        except (ConnectionError, ssl.SSLError):
            pass
        return got


def request(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """Return a request's bytes, path untouched; ``Host`` is added, ``Content-Length`` with a body."""
    given = {"Host": "proxy.example.com", **(headers or {})}
    if body:
        given["Content-Length"] = str(len(body))
    head = "".join(f"{k}: {v}\r\n" for k, v in given.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def ask(
    place: Place,
    method: str,
    path: str,
    *,
    tls: ssl.SSLContext | None = None,
    source: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    first: bytes = b"",
) -> Answer:
    """Make one call on a connection of its own."""
    with Connection(place, tls=tls, source=source, first=first) as connection:
        connection.send(request(method, path, {"Connection": "close", **(headers or {})}, body))
        return connection.answer(method)


def tls_client(ca: Path, pem: Path | None = None) -> ssl.SSLContext:
    """Return a careful client's context; ``pem`` holds certificate and key."""
    context = ssl.create_default_context(cafile=str(ca))
    if pem is not None:
        context.load_cert_chain(pem)
    return context


@dataclass
class Probe:
    """What an innocent client saw while others misbehaved."""

    good: int = 0
    bad: list[str] = field(default_factory=list)


@contextmanager
def innocent(place: Place, tls: ssl.SSLContext | None, source: str) -> Iterator[Probe]:
    """Call ``/version`` on new connections for the length of the block; fail when one call did.

    Raises:
        AssertionError: a call failed, or none was made.
    """
    probe, stop = Probe(), threading.Event()

    def run() -> None:
        while not stop.wait(0.05) or not probe.good:
            try:
                answer = ask(place, "GET", "/version", tls=tls, source=source)
            except OSError as e:
                probe.bad.append(repr(e))
                return
            if answer.status != 200:
                probe.bad.append(f"{answer.status} {answer.text}")
                return
            probe.good += 1

    thread = threading.Thread(target=run, name="innocent client")
    thread.start()
    try:
        yield probe
    finally:
        stop.set()
        thread.join()
    assert not probe.bad, f"an innocent client was harmed after {probe.good} calls: {probe.bad}"
