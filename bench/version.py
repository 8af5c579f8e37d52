"""``GET /version``: what the edge costs above bare uvicorn behind the same acceptor."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import processes
from bench.closed_loop import Round, kept_connections, missing_tools, new_tls_connections
from bench.figures import Figure, Findings
from bench.processes import Running

_PEER = "bare uvicorn"
_NEAREST = "the same on our protocol"
_GOAL = "ratio ≥ 0.90"
_CPU_GOAL = "ratio ≤ 1.10"

Ask = Callable[[Running], Awaitable[Round]]


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return req/s and CPU per request over HTTP, HTTPS and new mutual-TLS connections, each beside the peers'.

    Bare uvicorn is what the goals name. Its application on our HTTP protocol shows what the edge costs above that.
    """
    seconds, handshakes, rounds = (1.0, 300, 2) if quick else (3.0, 1200, 3)
    findings = Findings("GET /version", notes=missing_tools())
    plan = processes.prepared(directory)
    caller = processes.credentials(plan)
    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(processes.member(plan))
        peer = await stack.enter_async_context(processes.bare(plan, ("dns", "logs")))
        nearest = await stack.enter_async_context(processes.bare(plan, ("dns", "logs"), protocol="muster"))
        await processes.with_store(ours)
        for other in (peer, nearest):
            findings.notes += await _differences(ours, other)
        asks: dict[str, Ask] = {
            "HTTP keep-alive": lambda s: kept_connections(s, "http", seconds, caller),
            "HTTPS keep-alive": lambda s: kept_connections(s, "https", seconds, caller),
            "new mutual-TLS connection": lambda s: new_tls_connections(s, handshakes, caller),
        }
        for name, ask in asks.items():
            findings.figures += await _compared(name, ask, ours, {_PEER: peer, _NEAREST: nearest}, rounds)
    return findings


async def _compared(name: str, ask: Ask, ours: Running, peers: dict[str, Running], rounds: int) -> list[Figure]:
    servers = [ours, *peers.values()]
    seen: dict[int, list[Round]] = {s.pid: [] for s in servers}
    for number in range(rounds):
        # Whoever goes first in a round meets the caches and the clock speed the round before left; so they take turns.
        for server in servers if number % 2 == 0 else reversed(servers):
            seen[server.pid].append(await ask(server))
    mine = seen[ours.pid]
    figures = []
    for peer, running in peers.items():
        other = seen[running.pid]
        goal, cpu_goal = (_GOAL, _CPU_GOAL) if peer == _PEER else ("", "")
        figures += [
            Figure(name, "req/s", [r.per_second for r in mine], peer, [r.per_second for r in other], goal),
            Figure("", "CPU µs/req", [r.cpu_us for r in mine], peer, [r.cpu_us for r in other], cpu_goal),
        ]
    return figures


async def _differences(ours: Running, peer: Running) -> list[str]:
    mine, other = [await processes.fetched(s.address, s.http_port) for s in (ours, peer)]
    if _undated(mine) == _undated(other):
        return []
    return [f"the peer answers other bytes, so the ratios are not fair: {mine!r} and {other!r}"]


def _undated(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"date:")]
