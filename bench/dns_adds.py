"""A records through the whole API into a real BIND, and through the provider alone."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench import load, processes
from bench.figures import Figure, Findings
from muster.cli.demo import bind
from muster.cli.local.child import Child
from muster.cli.local.cluster import running
from muster.cli.local.plan import ADDRESS, Plan
from muster.features.dns.contract import RecordType
from muster.features.dns.providers import nsupdate
from muster.features.dns.service import requested
from muster.features.dns.settings import NSUpdateSettings
from muster.kernel.errors import Unavailable

_CALLERS = 8
_ZONE = "example.net"
_ROUND_TIMEOUT_S = 30.0
_GOAL = "≥ 400 adds/s"
_PEER = "provider alone"

# A name and its address; and what adds one.
Pair = tuple[str, str]
Add = Callable[[Pair], Awaitable[None]]


@dataclass(frozen=True)
class _Way:
    """One way for a record into BIND.

    Attributes:
        callers: opens as many adders as there are callers.
        pids: the processes of ours that the way leads through.
    """

    callers: Callable[[], AbstractAsyncContextManager[Sequence[Add]]]
    pids: Sequence[int]


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return adds a second with 8 callers: through one member, through the balancer to three, and without any of ours."""
    count, rounds = (400, 2) if quick else (1200, 3)
    findings = Findings(f"POST /dns/ of A records into BIND, {_CALLERS} callers on kept mutual-TLS connections")
    if bind.binary() is None:
        findings.notes.append("not measured: there is no named on this machine (Debian's package bind9)")
        return findings
    async with contextlib.AsyncExitStack() as stack:
        named = await stack.enter_async_context(bind.running(directory / "bind"))
        asked = {"server": named.address, "port": named.port, "key_file": str(named.key_file)}
        features = {"dns": {"provider": "nsupdate", "ttl_s": 300, "nsupdate": asked}}
        plan = processes.prepared(directory / "cluster", members=3, features=features)
        cluster = await stack.enter_async_context(running(plan))
        provider = await stack.enter_async_context(nsupdate.opened(NSUpdateSettings.model_validate(asked), 300))
        members, balancer = [_pid(m) for m in cluster.members], _pid(cluster.balancer)
        ways = {
            "through one member": _Way(lambda: _posting(plan, plan.member_address(0)), members[:1]),
            "through the balancer to three": _Way(lambda: _posting(plan, "127.0.0.1"), [*members, balancer]),
            _PEER: _Way(lambda: _alone(provider), [os.getpid()]),
        }
        pairs = _pairs()
        rates: dict[str, list[float]] = {name: [] for name in ways}
        cpu_us: dict[str, list[float]] = {name: [] for name in ways}
        for _, (name, way) in itertools.product(range(rounds), ways.items()):
            before = sum(processes.cpu_seconds(p) for p in way.pids)
            async with way.callers() as adds:
                rates[name].append(count / await _seconds(adds, list(itertools.islice(pairs, count))))
            cpu_us[name].append((sum(processes.cpu_seconds(p) for p in way.pids) - before) / count * 1e6)
        last = next(pairs)
        await _alone_add(provider, last)
        if not await provider.lookup(requested(*last, "A").name, RecordType.A):
            findings.notes.append("BIND does not have the last record: the figures are void")
    for name in list(ways)[:2]:
        findings.figures += [
            Figure(name, "adds/s", rates[name], _PEER, rates[_PEER], _GOAL),
            Figure("", "CPU µs/add", cpu_us[name], _PEER, cpu_us[_PEER]),
        ]
    findings.notes.append(
        f"callers, BIND and members share {os.cpu_count()} cores; CPU is ours, without BIND and callers"
    )
    return findings


def _pid(child: Child) -> int:
    assert child.process is not None
    return child.process.pid


def _pairs() -> Iterator[Pair]:
    """Yield names and addresses that were never used before, in this run or by a caller at the same time."""
    first = int(ipaddress.IPv4Address("10.0.0.1"))
    for number in itertools.count():
        yield f"host{number:07d}.{_ZONE}", str(ipaddress.IPv4Address(first + number))


async def _seconds(adds: Sequence[Add], pairs: list[Pair]) -> float:
    """Return how long the callers need for all of the pairs; each takes the next as soon as its last is done."""
    waiting = iter(pairs)

    async def call(add: Add) -> None:
        for pair in waiting:
            await add(pair)

    begun = time.perf_counter()
    async with asyncio.timeout(_ROUND_TIMEOUT_S), asyncio.TaskGroup() as group:
        for add in adds:
            group.create_task(call(add))
    return time.perf_counter() - begun


@contextlib.asynccontextmanager
async def _alone(provider: nsupdate.NSUpdateDNS) -> AsyncIterator[Sequence[Add]]:
    yield [lambda pair: _alone_add(provider, pair)] * _CALLERS


async def _alone_add(provider: nsupdate.NSUpdateDNS, pair: Pair) -> None:
    await provider.add(requested(*pair, "A"))


@contextlib.asynccontextmanager
async def _posting(plan: Plan, host: str) -> AsyncIterator[Sequence[Add]]:
    files = processes.credentials(plan)
    port = plan.ports["smartproxy"]
    target = load.Target(host, port, ADDRESS, files.ca, files.certificate, files.key)
    context = load.tls_context(target)
    callers = []
    try:
        for _ in range(_CALLERS):
            # One after the other: the balancer then spreads them evenly, whatever it counts.
            streams = await asyncio.open_connection(host, port, ssl=context, server_hostname=ADDRESS)
            callers.append(_Caller(*streams))
        yield [c.add for c in callers]
    finally:
        for caller in callers:
            caller.writer.close()


@dataclass(frozen=True)
class _Caller:
    """One kept connection that posts records."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def add(self, pair: Pair) -> None:
        form: dict[str, Any] = {"fqdn": pair[0], "value": pair[1], "type": "A"}
        body = urlencode(form).encode()
        head = (
            f"POST /dns/ HTTP/1.1\r\nhost: {ADDRESS}\r\naccept: application/json\r\n"
            f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 ") or b"\r\ncontent-length: 0\r\n" not in answer:
            raise Unavailable(f"Adding {pair[0]} failed: {answer[:300]!r}")
