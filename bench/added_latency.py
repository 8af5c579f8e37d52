"""What the balancer adds to a call, at a rate that makes nobody wait."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

from bench import load, processes
from bench.figures import Figure, Findings
from muster.cli.local.cluster import running
from muster.cli.local.plan import ADDRESS, Plan

_KEPT_PER_S = 100.0
_NEW_PER_S = 25.0
_KEPT_CONNECTIONS = 4
_DIRECT = "direct"


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return p50 and p99 of ``GET /version`` through HAProxy and directly to a member, and what is between them.

    They count from a call's start to its whole answer.
    """
    seconds, rounds = (2.0, 2) if quick else (4.0, 3)
    findings = Findings("Added latency of the balancer (GET /version, mutual TLS, fixed light rate)")
    plan = processes.prepared(directory, members=3)
    async with running(plan):
        # A member that has just started compiles patterns and fills caches in its first calls.
        for host in ("127.0.0.1", *(plan.member_address(i) for i in range(plan.members))):
            await _asked(plan, host, kept=True, seconds=0.5)
        for kept in (True, False):
            through, direct = [], []
            for _ in range(rounds):
                direct.append(await _asked(plan, plan.member_address(0), kept=kept, seconds=seconds))
                through.append(await _asked(plan, "127.0.0.1", kept=kept, seconds=seconds))
            findings.figures += _figures("keep-alive" if kept else "new connections", through, direct)
            findings.notes += [f"{s.failed} calls failed: {s.as_row()}" for s in (*through, *direct) if s.failed]
    return findings


async def _asked(plan: Plan, host: str, *, kept: bool, seconds: float) -> load.Summary:
    """Return the calls, counted from their own start: nobody is late at this rate, but the loop's timer is, by 1 ms."""
    files = processes.credentials(plan)
    port = plan.ports["smartproxy"]
    target = load.Target(host, port, ADDRESS, files.ca, files.certificate, files.key)
    if kept:
        operations = await load.keep_alive(target, _KEPT_PER_S, seconds, _KEPT_CONNECTIONS)
    else:
        operations = await load.new_connections(target, _NEW_PER_S, seconds)
    return load.summary([replace(o, due=o.start) for o in operations])


def _figures(name: str, through: list[load.Summary], direct: list[load.Summary]) -> list[Figure]:
    out = []
    for quantile in ("p50_ms", "p99_ms"):
        mine, other = [[float(getattr(s, quantile)) for s in found] for found in (through, direct)]
        label = quantile.removesuffix("_ms")
        added = statistics.median(m - o for m, o in zip(mine, other, strict=True))
        out.append(Figure(f"{name} {label}", "ms", mine, _DIRECT, other, f"adds {added:+.2f} ms"))
    return out
