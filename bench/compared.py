"""Servers beside each other: the same work done by each of them in each round, and what that cost it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench import downloads, nginx
from bench.closed_loop import kept_connections
from bench.figures import Figure, Findings
from bench.fronts import PULP, SCHEMES, File, Front, Scheme
from bench.processes import cpu_seconds
from muster.kernel.errors import MusterError, Unavailable

STREAMS = 2
_CALLERS = 32
_IDLE_WINDOW_S = 5.0

By = tuple[str, Scheme]


@dataclass
class Used:
    """CPU seconds of a front's processes, of what is behind it and of the database, by front and scheme: one per round."""

    own: dict[By, list[float]] = field(default_factory=dict)
    behind: dict[By, list[float]] = field(default_factory=dict)
    database: dict[By, list[float]] = field(default_factory=dict)

    async def during(self, front: Front, scheme: Scheme, work: Awaitable[float]) -> None:
        """Count while ``work`` is done, which returns by how much of it to divide."""
        pids = ((self.own, front.server.pid), (self.behind, front.backend), (self.database, front.database))
        before = [(to, pid, cpu_seconds(pid)) for to, pid in pids if pid is not None]
        amount = await work
        for to, pid, used in before:
            to.setdefault((front.name, scheme), []).append((cpu_seconds(pid) - used) / amount)

    def of_backend(self) -> dict[By, list[float]]:
        """Return what the program behind used: of one that is asked directly its own."""
        return {by: values for by, values in self.own.items() if by[0] == PULP} | self.behind


async def idle(front: Front) -> float:
    """Return percent of a core."""
    before, at = cpu_seconds(front.server.pid), time.perf_counter()
    await asyncio.sleep(_IDLE_WINDOW_S)
    return (cpu_seconds(front.server.pid) - before) / (time.perf_counter() - at) * 100


@contextlib.asynccontextmanager
async def part(findings: Findings, name: str) -> AsyncIterator[None]:
    """Let what fails be a note, and the other parts go on."""
    try:
        yield
    except (MusterError, OSError) as e:
        findings.notes.append(f"{name} not measured: {str(e) or type(e).__name__}")


@contextlib.asynccontextmanager
async def _with(front: Front, scheme: Scheme) -> AsyncIterator[None]:
    """Let a failure say with whom it happened."""
    try:
        yield
    except (MusterError, OSError) as e:
        raise Unavailable(f"{front.name}, {SCHEMES[scheme]}: {str(e) or type(e).__name__}") from e


async def alternating(
    compared: Sequence[Front], rounds: int, work: Callable[[Front, Scheme, int], Awaitable[None]]
) -> None:
    """Do the work with every front and scheme in each round, first in order, then in reverse.

    Raises:
        Unavailable: there is no nginx, and so nobody to compare; or the work failed.
    """
    if not compared:
        raise Unavailable(nginx.missing() or "nobody is there")
    asked = [(front, scheme) for scheme in SCHEMES for front in compared if scheme in front.schemes]
    for number in range(rounds):
        for front, scheme in asked if number % 2 == 0 else reversed(asked):
            async with _with(front, scheme):
                await work(front, scheme, number)


async def large_files(findings: Findings, compared: Sequence[Front], file: File, rounds: int, goal: str) -> None:
    """Add what a GB of a large file costs, downloaded by ``STREAMS`` at once."""
    used = Used()

    async def fetched(front: Front, scheme: Scheme) -> float:
        await downloads.downloaded(front.target(scheme, file), file.size, STREAMS)
        return file.size * STREAMS / 1e9

    async def work(front: Front, scheme: Scheme, _: int) -> None:
        await used.during(front, scheme, fetched(front, scheme))

    await alternating(compared, rounds, work)
    for scheme, spoken in SCHEMES.items():
        goals = dict.fromkeys((f.name for f in compared), goal) if scheme == "http" else {}
        findings.figures += beside(f"large files, {spoken}", "CPU s/GB", used.own, scheme, compared, goals)
        findings.figures += beside("  Pulp meanwhile", "CPU s/GB", used.of_backend(), scheme, compared)


async def small_files(
    findings: Findings,
    compared: Sequence[Front],
    files: Sequence[File],
    seconds: int,
    name: str,
    callers: Mapping[str, int],
    goals: Mapping[str, str],
) -> None:
    """Add how many files a second there are, and what each costs; there is a file for each round.

    ``callers`` are how many ask at once, by the front's name, where that is not 32.
    """
    used = Used()
    rates: dict[By, list[float]] = {}

    async def asked(front: Front, scheme: Scheme, file: File) -> float:
        found = await kept_connections(
            front.server, scheme, seconds, front.caller, front.path(file), callers.get(front.name, _CALLERS)
        )
        rates.setdefault((front.name, scheme), []).append(found.per_second)
        return found.requests / 1e6

    async def work(front: Front, scheme: Scheme, number: int) -> None:
        await used.during(front, scheme, asked(front, scheme, files[number]))

    await alternating(compared, len(files), work)
    behind = "  Pulp meanwhile" if compared[0].database is not None else "  nginx behind meanwhile"
    for scheme, spoken in SCHEMES.items():
        findings.figures += beside(f"{name}, {spoken}", "files/s", rates, scheme, compared, goals)
        findings.figures += beside("", "CPU µs/file", used.own, scheme, compared)
        findings.figures += beside(behind, "CPU µs/file", used.of_backend(), scheme, compared)
        findings.figures += beside("  its database", "CPU µs/file", used.database, scheme, compared)


def beside(
    name: str,
    unit: str,
    found: Mapping[By, list[float]],
    scheme: Scheme,
    compared: Sequence[Front],
    goals: Mapping[str, str] | None = None,
) -> list[Figure]:
    """Return a figure for each peer that has one, and ours alone where none has; ours is the first that is compared."""
    ours, *peers = compared
    if (ours.name, scheme) not in found:
        return []
    figures: list[Figure] = []
    for front in peers:
        values = found.get((front.name, scheme))
        if values:
            goal = (goals or {}).get(front.name, "")
            figures.append(Figure("" if figures else name, unit, found[ours.name, scheme], front.name, values, goal))
    return figures or [Figure(name, unit, found[ours.name, scheme])]
