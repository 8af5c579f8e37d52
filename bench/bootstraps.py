"""Puppet agents' bootstraps without the agents: the four calls each makes, on the connections each makes them on."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bench.load import refuse_unless_loopback

_PREFIX = "/puppet-ca/v1/"
_TIMEOUT_S = 20.0
_ANSWER_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True)
class Place:
    """Where a Puppet CA answers.

    Attributes:
        name: the name its certificate carries.
        ca: its bundle; None: whoever answers is believed, as an agent does at its first call.
    """

    host: str
    port: int
    name: str
    ca: Path | None = None

    def __post_init__(self) -> None:
        refuse_unless_loopback(self.host)

    def context(self) -> ssl.SSLContext:
        """Return what to connect with; made once, because reading a bundle costs more than the call."""
        return _context(self.ca)


@cache
def _context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    return context


@dataclass(frozen=True)
class Answer:
    """A status and a body; 0 and the reason when there was no answer."""

    status: int
    body: bytes


Recorded = Callable[[str, str], AbstractContextManager[Callable[[Answer], None]]]
"""Takes down a call, ``submit`` or ``fetch``, of a name: the block makes it and passes on its answer."""


def _unrecorded(_operation: str, _name: str) -> AbstractContextManager[Callable[[Answer], None]]:
    return nullcontext(lambda _answer: None)


@dataclass
class Made:
    """What became of bootstraps.

    Attributes:
        certificates: PEM by name, of those whose certificate arrived.
        failed: why, by name, of the others.
        seconds: how long each one that succeeded took.
    """

    certificates: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


class Requests:
    """Certificate requests under one key: making keys is the agents' work, not the CA's."""

    def __init__(self, prefix: str, bits: int = 2048) -> None:
        self._key = rsa.generate_private_key(65537, bits)
        self._prefix = prefix
        self._numbers = itertools.count()

    def take(self, count: int) -> list[tuple[str, bytes]]:
        """Return names that were never used before with their requests."""
        return list(itertools.islice(self._made(), count))

    def _made(self) -> Iterator[tuple[str, bytes]]:
        for number in self._numbers:
            name = f"{self._prefix}{number:06d}.example.net"
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
            yield name, made.public_bytes(Encoding.PEM)


class Connection:
    """One kept TLS connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name

    @classmethod
    async def opened(cls, place: Place, context: ssl.SSLContext) -> Connection:
        streams = await asyncio.open_connection(
            place.host, place.port, ssl=context, server_hostname=place.name, limit=_ANSWER_LIMIT_BYTES
        )
        return cls(*streams, place.name)

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send one call and return its answer."""
        head = (
            f"{method} {_PREFIX}{path} HTTP/1.1\r\nhost: {self._name}\r\naccept: text/plain\r\n"
            f"content-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(answer.split(" ", 2)[1])
        if "transfer-encoding: chunked" in answer:
            return Answer(status, await self._chunked())
        length = int(next((v for k, v in _headers(answer) if k == "content-length"), "0"))
        return Answer(status, await self._reader.readexactly(length))

    async def _chunked(self) -> bytes:
        out = b""
        while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
            out += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return out

    def close(self) -> None:
        self._writer.close()


def _headers(answer: str) -> Iterator[tuple[str, str]]:
    for line in answer.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


async def signs(place: Place, requests: Sequence[tuple[str, bytes]], clients: int) -> list[float]:
    """PUT every request on so many kept connections; return each call's seconds.

    Raises:
        AssertionError: one was not answered 200.
    """
    waiting = iter(requests)
    seconds: list[float] = []

    async def client() -> None:
        connection = await Connection.opened(place, place.context())
        try:
            for name, pem in waiting:
                begun = time.perf_counter()
                answer = await connection.ask("PUT", f"certificate_request/{name}", pem)
                seconds.append(time.perf_counter() - begun)
                assert answer.status == 200, f"{name}: {answer.status} {answer.body[:200]!r}"
        finally:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return seconds


async def bootstrapped(
    place: Place,
    requests: Sequence[tuple[str, bytes]],
    clients: int,
    *,
    made: Made | None = None,
    tries: int = 1,
    recorded: Recorded = _unrecorded,
) -> Made:
    """Bootstrap every name; a failure is written down, and tried again like an agent would when there are more tries."""
    out = made if made is not None else Made()
    waiting = iter(requests)

    async def client() -> None:
        for name, pem in waiting:
            for _ in range(tries):
                begun = time.perf_counter()
                try:
                    async with asyncio.timeout(_TIMEOUT_S):
                        out.certificates[name] = await _bootstrap(place, name, pem, recorded)
                except (OSError, EOFError, TimeoutError, AssertionError, asyncio.LimitOverrunError) as e:
                    out.failed[name] = f"{type(e).__name__} {e}"
                else:
                    out.failed.pop(name, None)
                    out.seconds.append(time.perf_counter() - begun)
                    break

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return out


async def _bootstrap(place: Place, name: str, pem: bytes, recorded: Recorded) -> bytes:
    """Make an agent's calls: the bundle believing anybody, the list, then request and certificate on one connection."""
    first = Place(place.host, place.port, place.name)
    await _once(first, first.context(), "certificate/ca")
    context = place.context()
    await _once(place, context, "certificate_revocation_list/ca")
    connection = await Connection.opened(place, context)
    try:
        with recorded("submit", name) as heard:
            put = await connection.ask("PUT", f"certificate_request/{name}", pem)
            heard(put)
        # 400 means to an agent that the name is known already: it goes on to fetch.
        assert put.status in (200, 400), f"PUT was answered {put.status} {put.body[:200]!r}"
        with recorded("fetch", name) as heard:
            got = await connection.ask("GET", f"certificate/{name}")
            heard(got)
        assert got.status == 200, f"GET was answered {got.status}"
        return got.body
    finally:
        connection.close()


async def _once(place: Place, context: ssl.SSLContext, path: str) -> None:
    connection = await Connection.opened(place, context)
    try:
        answer = await connection.ask("GET", path)
        assert answer.status == 200, f"GET {path} was answered {answer.status}"
    finally:
        connection.close()
