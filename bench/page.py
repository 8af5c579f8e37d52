"""The cluster's page: how long it takes, how many bytes it has, and what those who follow it cost the member.

One member runs and answers for all, as in :mod:`bench.scale`: what it spends is the page's and, with it, what all members
together spend on being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench import processes
from bench.figures import Figure, Findings
from bench.scale import Cluster, cluster
from muster.cluster.roster import Roster
from muster.kernel.secrets import Secret
from muster.pki.context import client_context
from muster.store.engine import opened

_SIZES = (3, 50)
_PEER = "3 members"
_MANY = 10
_GOAL = "< 1 % of a core"
_SETTLED_S = 7.0
_AT_REST_S = 20.0


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return the page's time and bytes, and what one viewer and each further one cost; the peer is the smallest cluster."""
    findings = Findings("Page: members x 9 services, followed by browsers; peer: 3 members")
    window_s, rounds = (12.0, 3) if quick else (25.0, 5)
    smallest: dict[str, Sequence[float]] = {}
    for members in _SIZES:
        async with (
            cluster(directory / str(members), members) as one,
            processes.member(one.plan) as server,
            _reporting(one),
        ):
            await processes.with_store(server)
            caller = _Caller(one, server)
            # The cluster has to come to rest: its steward admits everybody first.
            await asyncio.sleep(_AT_REST_S)
            first = [await asyncio.to_thread(caller.page_ms)]
            rest, single, many, told, again = [], [], [], [], []
            for _ in range(rounds):
                await asyncio.sleep(_SETTLED_S)
                rest.append(await _used(server, window_s))
                async with _followed(caller, 1) as heard:
                    again += [await asyncio.to_thread(caller.page_ms) for _ in range(5)]
                    await asyncio.sleep(_SETTLED_S)
                    before = sum(heard)
                    single.append(max(0.0, await _used(server, window_s) - rest[-1]))
                    told.append((sum(heard) - before) / window_s / 1e3)
                async with _followed(caller, _MANY):
                    await asyncio.sleep(_SETTLED_S)
                    many.append(max(0.0, await _used(server, window_s) - rest[-1]) / _MANY)
        for name, unit, values, goal in (
            ("page, the first look", "ms", first, ""),
            ("page, while somebody follows", "ms", again, ""),
            ("page", "kB", [caller.page_bytes / 1e3], ""),
            ("style, script and picture, once", "kB", [caller.static_bytes / 1e3], ""),
            ("told to one who follows", "kB/s", told, ""),
            ("one who follows", "% of a core", single, _GOAL),
            (f"each of {_MANY} who follow", "% of a core", many, _GOAL),
        ):
            smallest.setdefault(name, values)
            findings.figures.append(Figure(f"{members:>2} members: {name}", unit, values, _PEER, smallest[name], goal))
        findings.notes.append(f"{members} members: the member while nobody looks: {median(rest):.1f} % of a core")
    findings.notes.append(
        "the one member also answers for all the others; about every five minutes it also takes the census, which may fall "
        "into any round; kB are 10^3 bytes"
    )
    return findings


class _Caller:
    """Foreman, who looks at the page."""

    def __init__(self, one: Cluster, server: processes.Running) -> None:
        shown = processes.credentials(one.plan)
        self.context: ssl.SSLContext = client_context(shown.ca, shown.certificate, shown.key)
        self.name = str(one.file.address)
        self.place = (server.address, server.https_port)
        self.page_bytes = self.static_bytes = 0

    def page_ms(self) -> float:
        """Return how long the page took, over a connection of its own."""
        begun = time.perf_counter()
        body = self._got("/cluster/")
        took_ms = (time.perf_counter() - begun) * 1000
        self.page_bytes = len(body)
        if not self.static_bytes:
            paths = set(re.findall(r'"(/cluster/static/[^"]+)"', body.decode()))
            self.static_bytes = sum(len(self._got(p)) for p in paths)
        return took_ms

    def _got(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(*self.place, timeout=30)
        raw = socket.create_connection(self.place, 30)
        connection.sock = self.context.wrap_socket(raw, server_hostname=self.name)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": self.name})
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise OSError(f"GET {path} was answered with {answer.status}: {body[:300]!r}")
        return body

    async def follow(self, heard: list[int], number: int) -> None:
        """Read what is told, for ever."""
        reader, writer = await asyncio.open_connection(*self.place, ssl=self.context, server_hostname=self.name)
        try:
            writer.write(f"GET /cluster/live HTTP/1.1\r\nHost: {self.name}\r\n\r\n".encode())
            while piece := await reader.read(1 << 16):
                heard[number] += len(piece)
            raise OSError("the stream ended")
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def _followed(caller: _Caller, viewers: int) -> AsyncIterator[list[int]]:
    heard = [0] * viewers
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caller.follow(heard, n)) for n in range(viewers)]
        yield heard
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def _reporting(one: Cluster) -> AsyncIterator[None]:
    """Have the other members report each second what the one that runs reports."""

    async def report() -> None:
        async with opened(Secret(one.plan.store_url)) as store:
            roster = Roster(store)
            while True:
                seen = await roster.seen()
                if one.plan.names[0] in seen:
                    said = seen[one.plan.names[0]].report
                    for member in one.file.members[1:]:
                        other = replace(said, name=str(member.name), member_id=member.id)
                        await roster.beat(other, first=False)
                await asyncio.sleep(1.0)

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _used(server: processes.Running, window_s: float) -> float:
    """Return what share of a core the member used for some seconds, in percent."""
    before, at = processes.cpu_seconds(server.pid), time.monotonic()
    await asyncio.sleep(window_s)
    return 100 * (processes.cpu_seconds(server.pid) - before) / (time.monotonic() - at)
