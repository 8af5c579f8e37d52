"""Load on a loopback cluster: paced by a fixed schedule, every operation on record.

The schedule never waits for replies, and latency counts from the time an operation was *due*: a stall shows as one, instead
of as fewer operations. Bounded in number and time, and it refuses targets that are not loopback.

Run ``python -m bench.load --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import itertools
import json
import math
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

TIMEOUT_S = 5.0
MAX_OPERATIONS = 500_000
MAX_DURATION_S = 3600.0
MAX_WORKERS = 1024
_BODY_LIMIT_BYTES = 1 << 20
_SHUTDOWN_S = 1.0
_WARMED_AT_ONCE = 16
_REPEATABLE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Target:
    """Where the load goes and what is asked.

    Attributes:
        ca: CA file the server's certificate must come from; None: plain HTTP.
        certificate: what the client shows; None: nothing.
        form: fields of an ``application/x-www-form-urlencoded`` body.
        accepted: statuses beside 2xx that are good answers to this question.
    """

    host: str
    port: int
    server_name: str
    ca: Path | None
    certificate: Path | None = None
    key: Path | None = None
    path: str = "/version"
    method: str = "GET"
    form: Mapping[str, str] | None = None
    accepted: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        refuse_unless_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Operation:
    """One request and what became of it. Times are of ``time.monotonic``.

    Attributes:
        due: when the schedule wanted it.
        start: when it began; later than due when every worker was busy.
        failed: why it failed; None when it was answered with 2xx or an accepted status.
        status: the HTTP status, None without an answer.
        head: when the answer's headers had come.
        member: who answered, when the body is a JSON object that says ``member``.
        reconnected: a kept-alive connection had ended and a new one was made.
        resent: the kept-alive connection ended without one byte of a reply, so the request was sent again.
    """

    due: float
    start: float
    end: float
    failed: str | None
    status: int | None = None
    member: str | None = None
    reconnected: bool = False
    resent: bool = False
    head: float | None = None

    @property
    def ok(self) -> bool:
        return self.failed is None


@dataclass(frozen=True)
class Summary:
    """Operations in one line.

    Attributes:
        served: how many were answered well.
        expected: how many there should have been.
        p50_ms: half of the served took no longer, counted from when they were due.
        longest_gap_s: longest time between two good answers, and from the first due time to the first good answer.
    """

    failed: int
    served: int
    expected: int
    p50_ms: float
    p99_ms: float
    longest_gap_s: float
    why: Mapping[str, int]
    resent: int = 0
    operations: Sequence[Operation] = field(default=(), repr=False)

    def recovery_s(self, after: float) -> float:
        """Return how long after that moment the last trouble ended: 0 without failures, infinite when it never did."""
        failures = [o.due for o in self.operations if not o.ok and o.end >= after]
        if not failures:
            return 0.0
        again = [o.end for o in self.operations if o.ok and o.due > max(failures)]
        return max(0.0, min(again) - after) if again else math.inf

    def as_row(self) -> str:
        row = (
            f"failed {self.failed} served {self.served}/{self.expected}"
            f" p50 {self.p50_ms:.1f} ms p99 {self.p99_ms:.1f} ms longest gap {self.longest_gap_s:.2f} s"
        )
        if self.resent:
            row += f" resent {self.resent}"
        return row + "".join(f"; {count}× {why}" for why, count in self.why.items())


def summary(operations: Sequence[Operation], expected: int | None = None) -> Summary:
    """Return what the operations amount to; ``expected`` is how many the schedule had, if not all of them."""
    good = [o for o in operations if o.ok]
    latencies = sorted((o.end - o.due) * 1000 for o in good)
    moments = sorted(o.end for o in good)
    if operations:
        moments.insert(0, min(o.due for o in operations))
    return Summary(
        failed=len(operations) - len(good),
        served=len(good),
        expected=len(operations) if expected is None else expected,
        p50_ms=_quantile(latencies, 0.5),
        p99_ms=_quantile(latencies, 0.99),
        longest_gap_s=max((b - a for a, b in itertools.pairwise(moments)), default=0.0),
        why=dict(Counter(o.failed for o in operations if o.failed is not None).most_common(3)),
        resent=sum(o.resent for o in operations),
        operations=tuple(operations),
    )


def _quantile(ascending: Sequence[float], share: float) -> float:
    if not ascending:
        return math.nan
    return ascending[min(len(ascending) - 1, math.ceil(share * len(ascending)) - 1)]


def by_member(operations: Sequence[Operation], since: float = -math.inf) -> Counter[str]:
    """Return how many answers each member gave to operations begun since."""
    return Counter(o.member for o in operations if o.member is not None and o.start >= since)


async def new_connections(
    target: Target,
    per_second: float,
    duration_s: float,
    workers: int | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    stop: asyncio.Event | None = None,
    seen: Callable[[Operation], None] | None = None,
) -> list[Operation]:
    """Make a connection for each request, as Foreman does, and return the operations in order of schedule.

    ``workers`` bounds those in progress; absent, there are enough for every one of them to time out. ``stop`` ends the
    schedule early: what is in progress is finished. ``seen`` is called with every operation as it ends.
    """
    count = _bounded(per_second, duration_s)
    workers = _workers(workers or math.ceil(per_second * (timeout_s + 1)), count)
    context = tls_context(target)
    request = _request(target, keep=False)
    begin = time.monotonic() + 0.05
    numbers = iter(range(count))
    done: list[Operation] = []

    async def work() -> None:
        for number in numbers:
            due = begin + number / per_second
            if not await _due(due, stop):
                return
            operation = await _once(target, context, request, due, timeout_s)
            done.append(operation)
            if seen is not None:
                seen(operation)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return sorted(done, key=lambda o: o.due)


async def keep_alive(
    target: Target,
    per_second: float,
    duration_s: float,
    connections: int,
    *,
    timeout_s: float = TIMEOUT_S,
    stop: asyncio.Event | None = None,
    seen: Callable[[Operation], None] | None = None,
    warm_path: str | None = None,
) -> list[Operation]:
    """Share the requests evenly among kept connections and return the operations in order of schedule.

    A connection the server ended between two requests is made anew. A request without a whole answer has failed, except
    a repeatable one on a connection that had served before and ended without one byte of a reply: there the end was on
    its way before the request, and the request is sent again once and marked. With a ``warm_path`` every connection has
    been asked for that when the schedule begins; whatever was answered, it is on no record.
    """
    count = _bounded(per_second, duration_s)
    context = tls_context(target)
    request = _request(target, keep=True)
    # More of them than there are requests are only kept.
    many = _workers(connections, count if warm_path is None else connections)
    kept = [_Kept(target, context, request) for _ in range(many)]
    if warm_path is not None:
        await _warm(kept, _request(replace(target, path=warm_path), keep=True), timeout_s)
    begin = time.monotonic() + 0.05
    done: list[Operation] = []

    async def work(first: int, connection: _Kept) -> None:
        try:
            for number in range(first, count, len(kept)):
                due = begin + number / per_second
                if not await _due(due, stop):
                    return
                operation = await connection.ask(due, timeout_s)
                done.append(operation)
                if seen is not None:
                    seen(operation)
        finally:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for first, connection in enumerate(kept):
            group.create_task(work(first, connection))
    return sorted(done, key=lambda o: o.due)


async def _warm(connections: Sequence[_Kept], request: bytes, timeout_s: float) -> None:
    waiting = iter(connections)

    async def work() -> None:
        for connection in waiting:
            await connection.ask(time.monotonic(), timeout_s, request)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WARMED_AT_ONCE):
            group.create_task(work())


@dataclass(frozen=True, slots=True)
class Held:
    """A connection that said nothing useful.

    Attributes:
        closed_after_s: when the other side ended it; None: it was still open at the limit.
        connected: whether it was accepted at all.
    """

    closed_after_s: float | None
    connected: bool = True


async def idle(host: str, port: int, openings: Sequence[bytes], limit_s: float) -> list[Held]:
    """Open a connection for every opening, send it, then only wait for the other side to close.

    An empty opening is a silent client.
    """
    refuse_unless_loopback(host)
    if len(openings) > MAX_WORKERS or limit_s > MAX_DURATION_S:
        raise ValueError(f"at most {MAX_WORKERS} connections for at most {MAX_DURATION_S:g} s")
    return list(await asyncio.gather(*(_hold(host, port, o, limit_s) for o in openings)))


def refuse_unless_loopback(host: str) -> None:
    """Raise ValueError for every host that is not a loopback address."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{host} is not a loopback address; load is made on this machine only")


def tls_context(target: Target) -> ssl.SSLContext | None:
    """Return the one context that all connections to the target share; None for plain HTTP."""
    if target.ca is None:
        return None
    context = ssl.create_default_context(cafile=str(target.ca))
    if target.certificate is not None:
        context.load_cert_chain(target.certificate, target.key)
    return context


def half_client_hello(server_name: str) -> bytes:
    """Return the first half of a real ClientHello for the name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    return hello[: len(hello) // 2]


class _Lost(Exception):
    """The connection ended before the answer was whole."""

    def __init__(self, why: str, *, unanswered: bool) -> None:
        super().__init__(why)
        self.unanswered = unanswered


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    last: bool
    head: float


class _Kept:
    """One kept-alive connection, made when it is first needed."""

    def __init__(self, target: Target, context: ssl.SSLContext | None, request: bytes) -> None:
        self._target = target
        self._context = context
        self._request = request
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ever = False

    async def ask(self, due: float, timeout_s: float, request: bytes | None = None) -> Operation:
        """Send the request, or another one instead, and return what became of it."""
        request = request or self._request
        start = time.monotonic()
        reconnected = resent = False
        try:
            async with asyncio.timeout(timeout_s):
                if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
                    self.close()
                used = self._streams is not None
                reconnected = self._ever and not used
                try:
                    answer = await self._exchange(request)
                except (_Lost, OSError) as e:
                    self.close()
                    unanswered = not isinstance(e, _Lost) or e.unanswered
                    if not (used and unanswered and self._target.method in _REPEATABLE):
                        raise
                    reconnected = resent = True
                    answer = await self._exchange(request)
        except (OSError, ssl.SSLError, TimeoutError, _Lost, ValueError) as e:
            self.close()
            return Operation(due, start, time.monotonic(), _why(e), reconnected=reconnected, resent=resent)
        if answer.last:
            self.close()
        return _answered(self._target, due, start, answer, reconnected=reconnected, resent=resent)

    async def _exchange(self, request: bytes) -> _Answer:
        if self._streams is None:
            self._streams = await _connected(self._target, self._context)
            self._ever = True
        reader, writer = self._streams
        writer.write(request)
        return await _read(reader, self._target.method)

    def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()


async def _once(
    target: Target, context: ssl.SSLContext | None, request: bytes, due: float, timeout_s: float
) -> Operation:
    start = time.monotonic()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connected(target, context)
            writer.write(request)
            answer = await _read(reader, target.method)
    except (OSError, ssl.SSLError, TimeoutError, _Lost, ValueError) as e:
        return Operation(due, start, time.monotonic(), _why(e))
    finally:
        if writer is not None:
            writer.close()
    return _answered(target, due, start, answer)


def _answered(
    target: Target, due: float, start: float, answer: _Answer, *, reconnected: bool = False, resent: bool = False
) -> Operation:
    good = 200 <= answer.status < 300 or answer.status in target.accepted
    failed = None if good else f"status {answer.status}"
    return Operation(
        due, start, time.monotonic(), failed, answer.status, _member(answer.body), reconnected, resent, answer.head
    )  # fmt: skip


def _member(body: bytes) -> str | None:
    # Most bodies name no member; those are not worth parsing.
    if b'"member"' not in body:
        return None
    with contextlib.suppress(ValueError):
        said = json.loads(body)
        if isinstance(said, dict) and isinstance(said.get("member"), str):
            return str(said["member"])
    return None


async def _connected(
    target: Target, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if context is None:
        return await asyncio.open_connection(target.host, target.port)
    return await asyncio.open_connection(
        target.host, target.port, ssl=context, server_hostname=target.server_name, ssl_shutdown_timeout=_SHUTDOWN_S
    )


def _request(target: Target, *, keep: bool) -> bytes:
    body = urlencode(target.form).encode() if target.form is not None else b""
    head = [
        f"{target.method} {target.path} HTTP/1.1",
        f"Host: {target.server_name}",
        "Accept: application/json",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    if body or target.method in ("POST", "PUT"):
        head += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode("ascii") + body


async def _read(reader: asyncio.StreamReader, method: str) -> _Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        raise _Lost("closed before the reply", unanswered=not e.partial) from None
    except asyncio.LimitOverrunError:
        raise _Lost("reply without an end of its headers", unanswered=False) from None
    at = time.monotonic()
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
    status = int(status_line.split(" ", 2)[1])
    last = headers.get("connection", "").lower() == "close"
    try:
        body = await _body(reader, headers, empty=method == "HEAD" or status in (204, 304))
    except asyncio.IncompleteReadError:
        raise _Lost("closed within the reply", unanswered=False) from None
    return _Answer(status, body, last, at)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str], *, empty: bool) -> bytes:
    if empty:
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    if "content-length" in headers:
        return await reader.readexactly(_size(int(headers["content-length"])))
    return await reader.read(_BODY_LIMIT_BYTES)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(_size(size + len(body)) - len(body))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


def _size(size: int) -> int:
    if not 0 <= size <= _BODY_LIMIT_BYTES:
        raise ValueError(f"a body of {size} bytes")
    return size


async def _due(at: float, stop: asyncio.Event | None) -> bool:
    """Wait for the moment; return False when the schedule was stopped first."""
    wait_s = at - time.monotonic()
    if stop is None:
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        return True
    if wait_s > 0 and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stop.wait()
    return not stop.is_set()


async def _hold(host: str, port: int, opening: bytes, limit_s: float) -> Held:
    begin = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return Held(None, connected=False)
    try:
        async with asyncio.timeout(limit_s):
            with contextlib.suppress(ConnectionError):
                writer.write(opening)
                while await reader.read(4096):
                    pass
            return Held(time.monotonic() - begin)
    except TimeoutError:
        return Held(None)
    finally:
        writer.transport.abort()


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _bounded(per_second: float, duration_s: float) -> int:
    count = round(per_second * duration_s)
    if not 0 < count <= MAX_OPERATIONS or not 0 < duration_s <= MAX_DURATION_S:
        raise ValueError(f"between 1 and {MAX_OPERATIONS} operations within {MAX_DURATION_S:g} s, not {count}")
    return count


def _workers(wanted: int, count: int) -> int:
    return max(1, min(wanted, count, MAX_WORKERS))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=["new", "keep", "idle"], help="new or kept connections, or ones that stay mute")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address [%(default)s]")
    parser.add_argument("--port", type=int, default=9090, help="[%(default)s]")
    parser.add_argument("--server-name", default="smartproxy.muster.test", help="TLS name and Host [%(default)s]")
    parser.add_argument("--pki", type=Path, help="directory of a local cluster's ca.pem and clients/")
    parser.add_argument("--client", default="foreman.muster.test", help="client bundle below --pki [%(default)s]")
    parser.add_argument("--path", default="/version", help="[%(default)s]")
    parser.add_argument("--per-second", type=float, default=30.0, help="[%(default)s]")
    parser.add_argument("--duration", type=float, default=10.0, metavar="S", help="[%(default)s]")
    parser.add_argument("--connections", type=int, default=8, help="of kinds keep and idle [%(default)s]")
    return parser.parse_args()


def _main() -> None:
    asked = _parsed()
    if asked.kind == "idle":
        held = asyncio.run(idle(asked.host, asked.port, [b""] * asked.connections, asked.duration))
        closed = [h.closed_after_s for h in held if h.closed_after_s is not None]
        print(f"closed {len(closed)}/{len(held)}, the last after {max(closed, default=math.nan):.2f} s")
        return
    bundle = asked.pki / "clients" / asked.client if asked.pki else None
    target = Target(
        asked.host,
        asked.port,
        asked.server_name,
        asked.pki / "ca.pem" if asked.pki else None,
        bundle / "cert.pem" if bundle else None,
        bundle / "key.pem" if bundle else None,
        asked.path,
    )
    run: Callable[..., Any] = (
        new_connections if asked.kind == "new" else partial(keep_alive, connections=asked.connections)
    )
    operations = asyncio.run(run(target, asked.per_second, asked.duration))
    print(summary(operations).as_row())
    for member, count in sorted(by_member(operations).items()):
        print(f"  {member} {count}")


if __name__ == "__main__":
    _main()
