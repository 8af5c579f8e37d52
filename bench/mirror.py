"""Mirrored repositories: what members that keep them themselves cost, beside nginx and a Pulp with the same repositories."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import downloads, fronts, load, nginx, processes
from bench.closed_loop import missing_tools
from bench.compared import STREAMS, idle, large_files, part, small_files
from bench.content import versions
from bench.figures import Figure, Findings
from bench.fronts import MUSTER, PULP, STATIC, STATIC_2, WORKERS_2, File, Front
from bench.processes import Running, cpu_seconds, rss_mb, tree_rss_mb
from muster.cli.local.plan import Plan
from muster.content.mirror.ledger import Ledger, Move
from muster.content.mirror.publications import Job, Publication
from muster.content.views import HOT_S, Views
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened

if TYPE_CHECKING:
    from tests.servers.packages import Package
    from tests.servers.pulp import Pulp

_ROOT = "/pulp/content/muster/"
_SERVED = "yum/served"
_LARGE = "file/large"
_MANY_PACKAGES = 2000
_PACKAGE_PADDING = 9_000
_SERVED_PACKAGES = 160
_REPOSITORIES = 1000
_BY = "the benchmark"
_PATIENCE_S = 240.0
_LOOK_S = 0.05
_CALLERS_OF_PULP = 4
# So long a member that has much is asked, to see whether it answers.
_ASKED_S = 20.0

_CPU_GOAL = "Muster ≤ 0.8"
_RATE_GOALS = {PULP: "≥ 5 times", STATIC: "≥ 0.25"}
_MEMORY_GOAL = "< 150 MB"


@dataclass(frozen=True)
class Size:
    """How much is measured: :data:`QUICK` or :data:`FULL`.

    Attributes:
        seconds: of each round with small files.
        packages: of a repository that is synchronised.
        syncs: how often that is done, each time with other packages.
        rest_s: how long a member is watched that nobody asks.
    """

    large_mb: int
    seconds: int
    rounds: int
    packages: int
    syncs: int
    flips: int
    repositories: int
    rest_s: float


QUICK = Size(
    large_mb=256, seconds=2, rounds=2, packages=500, syncs=1, flips=10, repositories=200, rest_s=5.0,
)  # fmt: skip
FULL = Size(
    large_mb=512, seconds=3, rounds=3, packages=_MANY_PACKAGES, syncs=2, flips=30, repositories=_REPOSITORIES,
    rest_s=60.0,
)  # fmt: skip


@dataclass(frozen=True)
class Mirroring:
    """A cluster whose members mirror, and its store."""

    plan: Plan
    members: Sequence[Running]
    store: Store

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store)

    async def synchronised(self, *names: str) -> list[Job]:
        """Return once the repositories are here and shown to clients.

        Raises:
            Unavailable: one of them failed, or took too long.
        """
        return [await self._done(await self.ledger.ask("sync", name, "", _BY)) for name in names]

    async def _done(self, job: Job) -> Job:
        deadline = time.monotonic() + _PATIENCE_S
        while not job.is_over:
            if time.monotonic() > deadline:
                raise Unavailable(f"{job.repository} was not synchronised within {_PATIENCE_S:g} s: {job.sentence}")
            await asyncio.sleep(_LOOK_S)
            job = await self.ledger.job(job.id)
        if job.state != "done":
            raise Unavailable(f"{job.repository} was not synchronised: {job.sentence}")
        return job


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return what small and large files cost from a member's own disk, and what it costs to have them there.

    Raises:
        Unavailable: there is no Pulp, or no nginx, on this machine.
    """
    from tests.servers import pulp as pulps

    why = pulps.missing() or nginx.missing()
    if why is not None:
        raise Unavailable(why)
    size = QUICK if quick else FULL
    findings = Findings("Mirrored repositories, from a member's own disk", notes=missing_tools("wrk"))
    processes.descriptors()
    async with contextlib.AsyncExitStack() as stack:
        site = directory / "site"
        large, small = await asyncio.to_thread(_filled, site, size)
        certificates = processes.prepared(directory / "origin")
        origin = await fronts.file_server(stack, directory / "nginx-0", certificates, "127.0.0.1:9", site, workers=1)
        at = origin.url("http", nginx.STATIC)
        pulp = stack.enter_context(pulps.running("bench"))
        async with part(findings, "files"):
            await _files(findings, directory, site, at, pulp, large, small, size)
        async with part(findings, "synchronisation"):
            await _syncs(findings, directory, at, pulp, size)
        pulp.stop()
        async with part(findings, "flips"):
            await _flips(findings, directory, at, size)
        async with part(findings, "many repositories"):
            await _many(findings, directory, at, size)
    findings.notes += [
        f"peers: {versions()}; nginx has the same files in a directory; Pulp has them from the same origin, with one "
        "process of pulp-content and one worker, without a cache",
        f"pulp-content is asked by {_CALLERS_OF_PULP} at once, the others by 32; its database's CPU is not in its figures",
        f"large: {size.large_mb} MB, {STREAMS} downloads at once by clients that throw away what they get",
        f"clients, servers and database share {os.cpu_count()} cores",
    ]
    return findings


def _filled(site: Path, size: Size) -> tuple[File, dict[str, File]]:
    """Write all that the origin has; return a large file, and small ones by what they are."""
    from tests.servers import origins
    from tests.servers.packages import Package

    served = [Package(f"served{n:03}", padding=_PACKAGE_PADDING) for n in range(_SERVED_PACKAGES)]
    at = origins.yum(site / _SERVED, served, revision=1)
    origins.yum(site / "yum/flips/1", [Package("flip")], revision=1)
    origins.yum(site / "yum/flips/2", [Package("flip"), Package("flop")], revision=2)
    for number in range(size.syncs):
        origins.yum(site / f"yum/sync{number}", _packages(number, size.packages), revision=1)
    origins.files(site / _LARGE, {"large.iso": random.Random(1).randbytes(1_000_000) * size.large_mb})
    # The lists of files are what is nearest to 10 kB of what a small repository has.
    listed = min((at / "repodata").glob("*.xml.gz"), key=lambda f: abs(f.stat().st_size - 10_000))
    first = at / "Packages" / "s" / served[0].rpm_name

    def file(path: Path) -> File:
        return File(path.relative_to(site).as_posix(), "", path.stat().st_size)

    small = {"metadata by digest": file(listed), "repomd.xml": file(at / "repodata/repomd.xml"), "package": file(first)}
    return file(site / _LARGE / "large.iso"), small


def _packages(seed: int, count: int) -> list[Package]:
    from tests.servers.packages import Package

    return [Package(f"package{seed}x{n:04}", padding=1_000) for n in range(count)]


@contextlib.asynccontextmanager
async def _cluster(
    directory: Path, mirror: dict[str, Any], *, workers: int = 1, count: int = 1
) -> AsyncIterator[Mirroring]:
    """Hold a cluster of members that mirror running."""
    content = {"pulp_content_url": None, "pulp_api_url": None, "workers": workers, "mirror": mirror}
    async with contextlib.AsyncExitStack() as stack:
        plan, members = await fronts.members(stack, directory, content, count=count)
        await processes.with_store(replace(members[0], http_port=plan.ports["anaconda"]))
        store = await stack.enter_async_context(opened(Secret(plan.store_url)))
        yield Mirroring(plan, members, store)


async def _files(
    findings: Findings,
    directory: Path,
    site: Path,
    origin: str,
    pulp: Pulp,
    large: File,
    small: dict[str, File],
    size: Size,
) -> None:
    from tests.servers import pulp_api

    mirror = {
        "repositories": {
            "served": {"kind": "yum", "url": f"{origin}{_SERVED}", "policy": "immediate"},
            "large": {"kind": "file", "url": f"{origin}{_LARGE}", "policy": "immediate"},
        }
    }  # fmt: skip

    async def in_pulp() -> None:
        def synced() -> None:
            pulp_api.repository(pulp.api, "rpm", _SERVED).sync_from(f"{origin}{_SERVED}/")
            made = pulp_api.repository(pulp.api, "file", _LARGE)
            made.sync_from(f"{origin}{_LARGE}/PULP_MANIFEST").publish()

        await asyncio.to_thread(synced)

    def of_member(file: File) -> str:
        return f"{_ROOT}library/{file.name}"

    def of_nginx(file: File) -> str:
        return f"{nginx.STATIC}{file.name}"

    async with contextlib.AsyncExitStack() as stack:
        await in_pulp()
        one = await stack.enter_async_context(_cluster(directory / "one", mirror))
        two = await stack.enter_async_context(_cluster(directory / "two", mirror, workers=2))
        for cluster in (one, two):
            await cluster.synchronised("served", "large")
        caller, callers = (processes.credentials(c.plan) for c in (one, two))
        plain = [
            await fronts.file_server(stack, directory / f"nginx-{n}", one.plan, "127.0.0.1:9", site, workers=n)
            for n in (1, 2)
        ]
        content = Running(pulp.pid("content"), pulp.address, pulp.content_port, 0, 0.0)
        compared = [
            Front(MUSTER, one.members[0], caller, of_member),
            Front(STATIC, plain[0], caller, of_nginx),
            Front(STATIC_2, plain[1], caller, of_nginx),
            Front(PULP, content, caller, lambda f: f"/pulp/content/{f.name}", schemes=("http",)),
            Front(WORKERS_2, two.members[0], callers, of_member),
        ]  # fmt: skip
        for front in compared:
            for scheme in front.schemes:
                for file in small.values():
                    await fronts.answers(front.target(scheme, file))
        rest, unasked = tree_rss_mb(one.members[0].pid), await idle(compared[0])
        first: list[float] = []
        for front in compared:
            for scheme in front.schemes:
                # Each process of a member looks at all bytes of a file before it gives it for the first time.
                for _ in range(4 if front.name == WORKERS_2 else 1):
                    used = cpu_seconds(front.server.pid)
                    await downloads.downloaded(front.target(scheme, large), large.size, 1)
                    first.append((cpu_seconds(front.server.pid) - used) / large.size * 1e9)
        async with part(findings, "large files"):
            findings.figures.append(Figure("a large file for the first time, plain", "CPU s/GB", first[:1]))
            await large_files(findings, [f for f in compared if f.name != STATIC_2], large, size.rounds, _CPU_GOAL)
        for name, file in small.items():
            async with part(findings, name):
                await small_files(
                    findings, compared, [file] * size.rounds, size.seconds, f"{name}, {file.size / 1000:.1f} kB",
                    {PULP: _CALLERS_OF_PULP}, _RATE_GOALS,
                )  # fmt: skip
        findings.figures += [
            Figure("memory of a member at rest", "MB", [rest], goal=_MEMORY_GOAL),
            Figure("the same after all that", "MB", [tree_rss_mb(one.members[0].pid)], goal=_MEMORY_GOAL),
            Figure("with two workers, after all that", "MB", [tree_rss_mb(two.members[0].pid)]),
        ]
        findings.notes.append(f"asked for nothing, a member takes {unasked:.1f} % of a core; that is in each figure")


async def _syncs(findings: Findings, directory: Path, origin: str, pulp: Pulp, size: Size) -> None:
    """Add how long a synchronisation takes, and what it costs; ours and Pulp's take turns."""
    from tests.servers import pulp_api

    names = [f"sync{n}" for n in range(size.syncs)]
    repositories = {n: {"kind": "yum", "url": f"{origin}yum/{n}", "policy": "immediate"} for n in names}
    took: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    pids = [pulp.pid(p) for p in pulp.parts] + [pulp.database.pid]

    def of_pulp() -> float:
        return sum(cpu_seconds(pid) for pid in pids)

    async with _cluster(directory / "syncs", {"repositories": repositories}) as cluster:
        pid = cluster.members[0].pid
        for name in names:
            began, used = time.perf_counter(), cpu_seconds(pid)
            await cluster.synchronised(name)
            took[0].append(time.perf_counter() - began)
            cpu[0].append(cpu_seconds(pid) - used)
            began, used = time.perf_counter(), of_pulp()
            made = pulp_api.repository(pulp.api, "rpm", f"yum/{name}")
            await asyncio.to_thread(made.sync_from, f"{origin}yum/{name}/")
            took[1].append(time.perf_counter() - began)
            cpu[1].append(of_pulp() - used)
        findings.figures += [
            Figure(f"sync of {size.packages} packages, until shown", "s", took[0], "Pulp, one worker", took[1]),
            Figure("", "CPU s", cpu[0], "with its database", cpu[1]),
            Figure("memory of the member after it", "MB", [tree_rss_mb(pid)], goal=_MEMORY_GOAL),
        ]


async def _flips(findings: Findings, directory: Path, origin: str, size: Size) -> None:
    """Add how long it takes from a promotion until all of three members give what was promoted."""
    repositories = {f"flip{n}": {"kind": "yum", "url": f"{origin}yum/flips/{n}", "policy": "immediate"} for n in (1, 2)}
    mirror = {"repositories": repositories, "environments": ["library", "test"]}
    async with _cluster(directory / "flips", mirror, count=3) as cluster:
        # Two states of one repository: what was fetched of the second is put down as the first's.
        await cluster.synchronised("flip1", "flip2")
        (one,), (two,) = [await cluster.ledger.publications(n) for n in repositories]
        other = replace(two, repository="flip1")
        await cluster.ledger.publish(other, environment=None, kind="yum", by=_BY)
        wanted = [one.digest, other.digest]
        took: list[float] = []
        bodies: list[bytes] = []
        path = f"{_ROOT}test/yum/flip1/repodata/repomd.xml"
        for number in range(size.flips + 2):
            await cluster.ledger.promote([Move("flip1", "yum", wanted[number % 2])], to="test", by=_BY)
            began = time.perf_counter()
            before = bodies[-1] if bodies else b""
            each = await asyncio.gather(*(_until_other(m, path, before, began) for m in cluster.members))
            bodies.append(each[0][1])
            if {body for _, body in each} != {bodies[-1]}:
                raise Unavailable("members gave different states of a repository")
            # The first two bring what is not here yet.
            if number >= 2:
                took.append(max(s for s, _ in each) * 1000)
            await asyncio.sleep(random.Random(number).uniform(0.5, 1.5))
        took.sort()
        findings.figures += [
            Figure("flip, three members, p50", "ms", [took[len(took) // 2]]),
            Figure("flip, three members, p99", "ms", [took[int(0.99 * (len(took) - 1))]]),
        ]
        findings.notes.append(
            f"flips: {len(took)}, from the return of the promotion until the last member answers the other repomd.xml; "
            f"the least was {took[0]:.0f} ms"
        )


async def _until_other(member: Running, path: str, before: bytes, began: float) -> tuple[float, bytes]:
    """Return how long it took until a member answered something else, and what."""
    while True:
        head, _, body = (await processes.fetched(member.address, member.http_port, path)).partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200") and body != before:
            return time.perf_counter() - began, body
        if time.perf_counter() - began > _PATIENCE_S:
            raise Unavailable(f"{member.address} did not answer what was promoted within {_PATIENCE_S:g} s")
        await asyncio.sleep(0.01)


async def _many(findings: Findings, directory: Path, origin: str, size: Size) -> None:
    """Add what it costs a member to have so many repositories, of which nothing is asked."""
    names = [f"r{n:04}" for n in range(size.repositories)]
    repositories = {n: {"kind": "yum", "url": f"{origin}{_SERVED}"} for n in names}
    async with _cluster(directory / "many", {"repositories": repositories}) as cluster:
        member = cluster.members[0]
        without = rss_mb(member.pid)
        (first,) = await cluster.synchronised(names[0])
        (published,) = await cluster.ledger.publications(names[0])
        began, used = time.perf_counter(), cpu_seconds(member.pid)
        for name in names[1:]:
            await _publish(cluster.ledger, replace(published, repository=name))
        last = f"{_ROOT}library/yum/{{}}/repodata/repomd.xml"
        for name in names:
            await _until_other(member, last.format(name), b"", time.perf_counter())
        shown, cost = time.perf_counter() - began, cpu_seconds(member.pid) - used
        # What was asked for a moment ago is looked at more often.
        await asyncio.sleep(HOT_S + 15)
        before, at = cpu_seconds(member.pid), time.perf_counter()
        await asyncio.sleep(size.rest_s)
        rest = (cpu_seconds(member.pid) - before) / (time.perf_counter() - at) * 100
        waited = await _waited(replace(member, http_port=cluster.plan.ports["anaconda"]), min(size.rest_s, _ASKED_S))
        read = await _timed(lambda: Ledger(cluster.store).distributions(), 5)
        stamp = Ledger(cluster.store)
        await stamp.distributions()
        again = await _timed(stamp.distributions, 5)
        picture = await _timed(lambda: Views(cluster.store).picture(HOT_S), 5)
        of = f"{size.repositories} repositories on_demand"
        findings.figures += [
            Figure(f"{of}: memory", "MB", [rss_mb(member.pid)], "none", [without], _MEMORY_GOAL),
            Figure("  at rest", "% of a core", [rest]),
            Figure("  a beat reads what environments have, changed", "ms", read),
            Figure("    the same, unchanged", "ms", again),
            Figure("    and what members have", "ms", picture),
            Figure("  how long GET /version waited at the most", "ms", [max(waited) * 1000]),
            Figure("  from published to shown, all of them", "s", [shown]),
            Figure("", "CPU s", [cost]),
        ]
        assert first.ended_at is not None
        assert first.started_at is not None
        findings.notes.append(
            f"of {of} the first was synchronised ({first.ended_at - first.started_at:.1f} s), what it has was put down "
            "as that of the others"
        )


async def _publish(ledger: Ledger, publication: Publication) -> None:
    await ledger.publish(publication, environment="library", kind="yum", by=_BY)


async def _waited(member: Running, seconds: float) -> list[float]:
    """Return how long answers to calls took that came 50 times a second."""
    target = load.Target(member.address, member.http_port, "bench", None)
    made = await load.keep_alive(target, 50.0, seconds, 1, timeout_s=10)
    return [o.head - o.due for o in made if o.head is not None]


async def _timed(work: Callable[[], Any], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        found.append((time.perf_counter() - began) * 1000)
    return found
