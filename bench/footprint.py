"""A member's memory, and how long it takes from its start to its first answer."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bench import load, processes
from bench.figures import Figure, Findings
from muster.cli.local.plan import ADDRESS

_REQUESTS = 10_000
_CONNECTIONS = 16
_FLOOD_PER_S = 50_000.0


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return resident memory at rest and after 10,000 requests, and the times of second starts.

    A second start finds the store's schema there and Python's bytecode written, as a restart of a service does.
    """
    findings = Findings("Footprint of one member (features dns and logs, SQLite)")
    plan = processes.prepared(directory)
    async with processes.member(plan) as first:
        first_start = first.started_in_s
        # A member stopped before its schema is made leaves the next start all of the work, and Alembic in its memory.
        await processes.with_store(first)
    starts: list[float] = []
    bare_starts: list[float] = []
    for _ in range(3 if quick else 5):
        async with processes.member(plan) as again:
            starts.append(again.started_in_s)
        async with processes.bare(plan, ("dns", "logs")) as peer:
            bare_starts.append(peer.started_in_s)
    async with contextlib.AsyncExitStack() as stack:
        member = await stack.enter_async_context(processes.member(plan))
        peer = await stack.enter_async_context(processes.bare(plan, ("dns", "logs")))
        await processes.with_store(member)
        rested, bare_rested = processes.rss_mb(member.pid), processes.rss_mb(peer.pid)
        await _asked(member)
        await _asked(peer)
        busy, bare_busy = processes.rss_mb(member.pid), processes.rss_mb(peer.pid)
    name = "bare uvicorn"
    findings.figures += [
        Figure("start to first answer", "s", starts, name, bare_starts, "< 1.5 s"),
        Figure("RSS after start", "MB", [rested], name, [bare_rested], "< 85 MB"),
        Figure(f"RSS after {_REQUESTS} requests", "MB", [busy], name, [bare_busy], "< 85 MB"),
    ]
    findings.notes.append(f"the first start, which makes the schema, took {first_start:.2f} s; MB are 10^6 bytes")
    return findings


async def _asked(server: processes.Running) -> None:
    target = load.Target(server.address, server.http_port, ADDRESS, None)
    seconds = _REQUESTS / _FLOOD_PER_S
    await load.keep_alive(target, _FLOOD_PER_S, seconds, _CONNECTIONS, timeout_s=60)
