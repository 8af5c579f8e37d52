"""The ports of content: what a member costs in front of a Pulp, beside that Pulp and nginx as file server and as proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import downloads, fronts, load, nginx, processes
from bench.closed_loop import missing_tools
from bench.compared import STREAMS, By, alternating, beside, idle, large_files, part, small_files
from bench.figures import Figure, Findings
from bench.fronts import PROXY, PULP, SCHEMES, STATIC, STATIC_2, WORKERS_2, File, Front, Fronts, Scheme
from bench.processes import tree_rss_mb
from muster.kernel.errors import Unavailable

# What is under way at the end of a round counts for nothing, so of Pulp, which is slow, it has to be little.
_CALLERS_OF_PULP = 4
_SLOW_READERS = 300
_SLOW_PAUSE_S = 1.0
# All clients together. Of Pulp it is a quarter of what one process answers. Who does not come to ask in a round
# keeps a connection all the same: a round is shorter than the 30 s after which members close it.
_ASKED_OF_PULP_PER_S = 10.0
_ASKED_PER_S = 100.0
_FIRST_BYTE_TIMEOUT_S = 20.0
_NOWHERE = "/nothing-there"

_CPU_GOAL = "Muster ≤ 0.8"
_LATER = "once members keep files"
_RATE_GOALS = {PULP: f"≥ 5 times, {_LATER}", STATIC: f"≥ 0.25, {_LATER}"}
_MEMORY_GOAL = "< 150 MB"


@dataclass(frozen=True)
class Size:
    """How much is measured: :data:`QUICK` or :data:`FULL`.

    Attributes:
        seconds: of each round with small files.
        windows, window_s: how often, and for how long, first bytes are waited for.
        slow_s: how long slow readers are watched.
    """

    large_mb: int
    seconds: int
    rounds: int
    clients: int
    windows: int
    window_s: float
    slow_s: float


QUICK = Size(large_mb=256, seconds=2, rounds=2, clients=200, windows=1, window_s=5.0, slow_s=4.0)
FULL = Size(large_mb=512, seconds=3, rounds=3, clients=1000, windows=2, window_s=10.0, slow_s=10.0)


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return CPU per GB and per small file, first bytes under many clients and memory; rounds of all alternate.

    Raises:
        Unavailable: there is no Pulp on this machine.
    """
    from tests.servers import pulp as pulps

    why = pulps.missing()
    if why is not None:
        raise Unavailable(why)
    size = QUICK if quick else FULL
    findings = Findings(f"Content: files of {size.large_mb} MB and of 10 kB", notes=missing_tools("wrk"))
    descriptors = processes.descriptors()
    async with contextlib.AsyncExitStack() as stack:
        pulp = stack.enter_context(pulps.running("bench"))
        large, small = fronts.filled(pulp, directory / "source", large_mb=size.large_mb, small=size.rounds)
        these = await fronts.started(stack, directory, pulp, small[0])
        member = these.member.server
        rest, unasked = tree_rss_mb(member.pid), await idle(these.member)
        async with part(findings, "large files"):
            await large_files(findings, these.all, large, size.rounds, _CPU_GOAL)
        after = tree_rss_mb(member.pid)
        async with part(findings, "small files"):
            callers = dict.fromkeys((front.name for front in these.all), _CALLERS_OF_PULP)
            await small_files(findings, these.all, small, size.seconds, "small files", callers, _RATE_GOALS)
        async with part(findings, "small files, nginx behind"):
            await small_files(findings, these.quick, small, size.seconds, "small files, nginx behind", {}, _RATE_GOALS)
        async with part(findings, "first byte"):
            asked = [front for front in these.all if front.name not in (STATIC, STATIC_2)]
            await _first_bytes(findings, asked, small[0], size, _ASKED_OF_PULP_PER_S, "first byte")
        async with part(findings, "first byte, nginx behind"):
            await _first_bytes(findings, these.quick, small[0], size, _ASKED_PER_S, "first byte, nginx behind")
        findings.figures += [
            Figure("memory of the member at rest", "MB", [rest], goal=_MEMORY_GOAL),
            Figure("the same after the large files", "MB", [after], goal=_MEMORY_GOAL),
            *(
                Figure("a member with two workers, after the small files", "MB", [tree_rss_mb(front.server.pid)])
                for front in these.quick
                if front.name == WORKERS_2
            ),
        ]
        async with part(findings, "slow readers"):
            await _slow(findings, these, large, size)
    findings.notes += [
        f"peers: {versions()}; one process of pulp-content, without a cache; nginx has Debian's settings and its access "
        "log, as a proxy it keeps connections and spools nothing",
        f"asked for nothing, the member takes {unasked:.1f} % of a core; that is in each figure",
        f"{STREAMS} large downloads at once by clients that throw away what they get; GB and MB are 10^9 and 10^6 bytes; "
        "on loopback the sender does much of the receiver's work, so its CPU is more than in a network",
        f"first bytes: {size.clients} clients keep connections and ask in turn, all together {_ASKED_OF_PULP_PER_S:g} times "
        f"a second with Pulp behind, {_ASKED_PER_S:g} times with nginx; counted from when it was due",
        f"every process may have {descriptors} descriptors; members allow {fronts.CONNECTIONS_PER_ADDRESS} connections of "
        "one address, since all clients have the same",
        f"clients, servers and database share {os.cpu_count()} cores",
    ]
    return findings


async def _first_bytes(
    findings: Findings, compared: Sequence[Front], file: File, size: Size, per_second: float, name: str
) -> None:
    halves: dict[By, list[float]] = {}
    most: dict[By, list[float]] = {}

    async def work(front: Front, scheme: Scheme, _: int) -> None:
        made = await load.keep_alive(
            front.target(scheme, file), per_second, size.window_s, size.clients, timeout_s=_FIRST_BYTE_TIMEOUT_S,
            warm_path=_NOWHERE,
        )  # fmt: skip
        found = load.summary(made)
        if found.failed:
            raise Unavailable(f"first bytes: {found.as_row()}")
        taken = sorted((o.head - o.due) * 1000 for o in made if o.head is not None)
        halves.setdefault((front.name, scheme), []).append(taken[len(taken) // 2])
        most.setdefault((front.name, scheme), []).append(taken[int(0.99 * (len(taken) - 1))])

    await alternating(compared, size.windows, work)
    for scheme, spoken in SCHEMES.items():
        findings.figures += beside(f"{name}, {spoken}", "p99 ms", most, scheme, compared)
        findings.figures += beside("", "p50 ms", halves, scheme, compared)


async def _slow(findings: Findings, these: Fronts, file: File, size: Size) -> None:
    """Add the most memory that the member and nginx have while many take a large file slowly."""
    compared = [front for front in (these.member, these.proxy) if front is not None]
    most: dict[By, list[float]] = {}

    async def work(front: Front, scheme: Scheme, _: int) -> None:
        seen = []
        async with downloads.slow_readers(front.target(scheme, file), _SLOW_READERS, pause_s=_SLOW_PAUSE_S):
            for _ in range(round(size.slow_s / 0.5)):
                await asyncio.sleep(0.5)
                seen.append(tree_rss_mb(front.server.pid))
        most.setdefault((front.name, scheme), []).append(max(seen))

    await alternating(compared, 1, work)
    for scheme, spoken in SCHEMES.items():
        findings.figures.append(
            Figure(
                f"the same with {_SLOW_READERS} slow readers, {spoken}", "MB", most[these.member.name, scheme],
                PROXY, most.get((PROXY, scheme), ()), _MEMORY_GOAL,
            )
        )  # fmt: skip


def versions() -> str:
    """Return what the peers call themselves."""
    from tests.servers import pulp as pulps

    pinned = re.search(r"^pulpcore==([\w.]+)", (pulps.HOME / "venv" / ".made").read_text(), re.MULTILINE)
    found = [f"pulpcore {pinned[1]}" if pinned else "pulpcore"]
    return ", ".join(found if nginx.missing() else [*found, nginx.version()])
