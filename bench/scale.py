"""What readiness checks and a look at everything cost with 3 to 50 members and the seed's nine services.

A real HAProxy has the configuration rendered for so many members and asks as it would ask them. One real member stands
for all: HAProxy has a server, a TLS context and a session of its own for each, and all lead to that member's address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from bench import processes
from bench.figures import Figure, Findings
from muster.app.offers import modelled
from muster.app.settings import loaded
from muster.balancer.generations import SEED
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.sockets import RuntimeSocket, ServerState
from muster.balancer.haproxy.supervisor import Supervisor
from muster.balancer.haproxy.version import HAProxyVersion
from muster.balancer.model import READY
from muster.balancer.watch import Watch, Watched, is_needed, watched
from muster.cli.demo.bind import free_port
from muster.cli.local.plan import Plan
from muster.cli.status import collected
from muster.cluster.file import ClusterFile
from muster.cluster.roster import Roster
from muster.kernel.clock import SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.process import run
from muster.kernel.secrets import Secret
from muster.pki.bundles import paths as bundle_paths
from muster.pki.context import Credentials
from muster.store.engine import opened

_SIZES = (3, 10, 25, 50)
_PEER = "3 members"
_GOAL = "≤ 5 % of a core"
_FOUND_GOAL = "≤ 4 s"
_RETURN_TIMEOUT_S = 90.0
_OWN = ("smartproxy", "anaconda")
# A member beats once a second.
_IDLE_WINDOW_S = 5.0
_UP_TIMEOUT_S = 60.0
_STATUS_TIMEOUT_S = 60.0
_ANSWERS = re.compile(rb'^muster_request_seconds_count\{[^}]*route="/health/ready"[^}]*\} (\S+)', re.MULTILINE)
_FULL_HANDSHAKES = re.compile(r"^SslBackendKeyRate: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Cluster:
    """A cluster of which the first member runs; all members have its address."""

    plan: Plan
    file: ClusterFile

    @property
    def members(self) -> int:
        return len(self.file.members)

    @property
    def paths(self) -> RuntimePaths:
        return RuntimePaths(self.plan.run, self.plan.pki / "balancer")

    @property
    def pause_s(self) -> float:
        """How long HAProxy waits between two questions about one service of one member."""
        return modelled(self.file).services[0].check.watched_s


@dataclass
class Load:
    """What was seen, one value per window.

    Attributes:
        checks: a second, as the member counted them.
        handshakes: TLS handshakes a second that resumed no session, as HAProxy counted them.
        haproxy, member: percent of one core.
        watch: percent of one core of this process, which asks as ``muster balance`` does in large clusters.
        found: seconds until every service of every member that was stopped was down.
        idle: the member's percent of one core while nobody asked it anything.
    """

    idle: float = 0.0
    checks: list[float] = field(default_factory=list)
    handshakes: list[float] = field(default_factory=list)
    haproxy: list[float] = field(default_factory=list)
    member: list[float] = field(default_factory=list)
    watch: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)

    def share(self, members: int) -> list[float]:
        """Return what one of so many members would spend on being asked: its part of what the asking added."""
        return [max(0.0, m - self.idle) / members for m in self.member]

    def each_ms(self, used: Sequence[float]) -> list[float]:
        """Return CPU milliseconds per check."""
        return [percent * 10 / rate if rate else 0.0 for percent, rate in zip(used, self.checks, strict=True)]


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return the CPU that checks take at HAProxy and at members, and the time of ``muster status --json``.

    The peer of every row is the smallest cluster, so the ratio is the growth.
    """
    findings = Findings("Scale: readiness checks of members x 9 services (generation seed), peer: 3 members")
    window_s, windows, looks = (5.0, 3, 3) if quick else (20.0, 3, 5)
    smallest: dict[str, Sequence[float]] = {}
    binary = await binaries.probed(binaries.found())
    for members in _SIZES:
        async with cluster(directory / str(members), members) as one, processes.member(one.plan) as server:
            await processes.with_store(server)
            seen = Load(idle=await _idle(server))
            async with haproxy(one, configuration(one, binary.version), binary) as pid, _watching(one):
                for _ in range(windows):
                    await look(one, server, pid, window_s, seen)
                outside, inside, note = await _status(one, looks)
                for _ in range(windows):
                    seen.found.append(await _found_s(one, server))
        for name, unit, values, goal in (
            ("checks", "per s", seen.checks, ""),
            ("of them with a full handshake", "per s", seen.handshakes, ""),
            ("HAProxy", "% of a core", seen.haproxy, _GOAL),
            ("HAProxy, per check", "CPU ms", seen.each_ms(seen.haproxy), ""),
            ("the watch of muster balance", "% of a core", seen.watch, ""),
            ("hung members found after", "s", seen.found, _FOUND_GOAL),
            ("one member in place of all", "% of a core", seen.member, ""),
            ("a member's share of it", "% of a core", seen.share(members), _GOAL),
            ("muster status --json", "ms", outside, ""),
            ("the same within a process", "ms", inside, ""),
        ):
            smallest.setdefault(name, values)
            findings.figures.append(Figure(f"{members:>2} members: {name}", unit, values, _PEER, smallest[name], goal))
        findings.notes.append(
            f"{members} members: a service of a member is asked every {one.pause_s:g} s; "
            f"the member unasked: {seen.idle:.1f} % of a core{note}"
        )
    findings.notes.append("a member's share: what the asking added, divided by the members it stands for")
    findings.notes.append(
        f"HAProxy, the member and this process share {os.cpu_count()} cores; status ran beside the checks and asked "
        "every service of every member, the store and HAProxy"
    )
    return findings


@contextlib.asynccontextmanager
async def cluster(directory: Path, members: int) -> AsyncIterator[Cluster]:
    """Write the cluster's file and certificates, and let something listen where Apache or puppetserver would."""
    plan = processes.prepared(directory)
    address = plan.member_address(0)
    outside = {row.name: free_port(address) for row in SEED if row.name not in _OWN}
    write_atomically(plan.cluster_file, yaml.safe_dump(_document(plan, members, outside), sort_keys=False), mode=0o600)
    async with contextlib.AsyncExitStack() as stack:
        for port in outside.values():
            await stack.enter_async_context(await asyncio.start_server(_hang_up, address, port))
        yield Cluster(plan, loaded(plan.cluster_file))


def _document(plan: Plan, members: int, outside: Mapping[str, int]) -> dict[str, object]:
    base = plan.document()
    name = plan.names[0]
    ports = {**outside, **{s: plan.ports[s] for s in _OWN}}
    # Drawn one after the other, the same may come twice.
    listening: set[int] = set()
    while len(listening) < len(ports):
        listening.add(free_port())
    return {
        **base,
        "generation": "seed",
        "members": [
            {"id": n, "name": name.replace("01", f"{n:02d}"), "address": plan.member_address(0)}
            for n in range(1, members + 1)
        ],
        # One member plays all of them, Puppet CA included.
        "signer": name,
        "services": {
            s: {
                "listen_port": listen_port,
                "member_port": port,
                **({"destinations": "all"} if s == "puppetca" else {}),
                # What listens there is no Apache and no puppetserver, so it can prove nothing more than its port.
                **({"check": "tcp"} if s in outside else {}),
            }
            for (s, port), listen_port in zip(ports.items(), sorted(listening), strict=True)
        },
        "edge": {"drain_s": 0},
    }


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def configuration(one: Cluster, version: HAProxyVersion) -> str:
    """Return what ``muster balance`` would give its HAProxy."""
    return rendered(modelled(one.file), which=one.file.balancer(None), runtime=one.paths, version=version)


@contextlib.asynccontextmanager
async def haproxy(one: Cluster, text: str, binary: binaries.Binary) -> AsyncIterator[int]:
    """Run HAProxy with this text; yield its master's process id when every server has passed some checks.

    Raises:
        Unavailable: a server does not pass; with what HAProxy says of the first.
    """
    write_atomically(one.paths.state, "1\n", mode=0o600)
    write_atomically(one.paths.config, text, mode=0o600)
    await binaries.checked(binary.path, one.paths.config)
    command = (binary.path, "-W", "-S", f"{one.paths.master_socket},mode,600", "-f", one.paths.config)
    async with Supervisor(command, clock=SystemClock(), stop_timeout_s=1.0) as supervisor:
        await _all_up(RuntimeSocket(one.paths.runtime_socket))
        # Sessions are kept per thread: only after a few rounds has each thread met each server.
        await asyncio.sleep(2 * one.pause_s + 1)
        assert supervisor.pid is not None
        yield supervisor.pid


async def _all_up(socket: RuntimeSocket) -> None:
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while True:
        try:
            servers = [s for s in await socket.servers() if not s.status.startswith("no check")]
            # A server that tracks another one has no check of its own.
            passing = [s for s in servers if s.takes_traffic and s.check in ("", "L7OK")]
            late = [f"{s.backend}/{s.server} {s.status} {s.check}" for s in servers if s not in passing]
        except MusterError as e:
            servers, late = [], [str(e)]
        if servers and not late:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"HAProxy has {len(late)} servers that are not up after {_UP_TIMEOUT_S:g} s: {late[:1]}")
        await asyncio.sleep(0.2)


async def _idle(server: processes.Running) -> float:
    before, at = processes.cpu_seconds(server.pid), time.perf_counter()
    await asyncio.sleep(_IDLE_WINDOW_S)
    return (processes.cpu_seconds(server.pid) - before) / (time.perf_counter() - at) * 100


async def look(one: Cluster, server: processes.Running, pid: int, seconds: float, into: Load) -> None:
    """Watch for so many seconds and append what was seen."""
    socket = RuntimeSocket(one.paths.runtime_socket)
    answers = await _answers(server)
    before, at = [processes.cpu_seconds(p) for p in (pid, server.pid)], time.perf_counter()
    ours = time.process_time()
    handshakes = []
    for _ in range(max(1, round(seconds / 5))):
        await asyncio.sleep(5.0)
        found = _FULL_HANDSHAKES.search(await socket.ask("show info"))
        handshakes.append(float(found[1]) if found else 0.0)
    ours = time.process_time() - ours
    after, took_s = [processes.cpu_seconds(p) for p in (pid, server.pid)], time.perf_counter() - at
    into.checks.append((await _answers(server) - answers) / took_s)
    into.handshakes.append(sum(handshakes) / len(handshakes))
    mine, theirs = [(b - a) / took_s * 100 for a, b in zip(before, after, strict=True)]
    into.haproxy.append(mine)
    into.member.append(theirs)
    into.watch.append(ours / took_s * 100)


@contextlib.asynccontextmanager
async def _watching(one: Cluster) -> AsyncIterator[None]:
    """Watch the members where ``muster balance`` would."""
    balancing, watch = modelled(one.file), Watch(RuntimeSocket(one.paths.runtime_socket))
    members = watched(balancing, one.file.balancer(None)) if is_needed(balancing) else ()
    bundle = bundle_paths(one.plan.pki, "member", one.plan.names[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle.certificate, bundle.key)
    # Where every member is silent the watch blames nobody, and all of these hang at once. This one goes on.
    server = await asyncio.start_server(_ready, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    other = Watched("other", str(one.file.address), url, READY, False, False, None, ())
    await watch.follow((*members, other) if members else (), Credentials(one.paths.ca, one.paths.check), None)
    try:
        yield
    finally:
        await watch.close()
        server.close()


async def _ready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    writer.close()


async def _found_s(one: Cluster, server: processes.Running) -> float:
    """Return how long HAProxy takes to send nothing to the members any more, which all hang with the one that runs."""
    socket = RuntimeSocket(one.paths.runtime_socket)
    names = {s.name for s in modelled(one.file).services}

    async def servers() -> list[ServerState]:
        return [s for s in await socket.servers() if s.backend in names]

    begun = time.monotonic()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        while any(not s.status.startswith("DOWN") for s in await servers()):
            if time.monotonic() - begun > _UP_TIMEOUT_S:
                raise Unavailable(f"HAProxy did not find members that hang within {_UP_TIMEOUT_S:g} s")
            await asyncio.sleep(0.05)
        took_s = time.monotonic() - begun
    finally:
        os.kill(server.pid, signal.SIGCONT)
    async with asyncio.timeout(_RETURN_TIMEOUT_S):
        while any(s.status != "UP" for s in await servers()):
            await asyncio.sleep(0.2)
    return took_s


async def _answers(server: processes.Running) -> float:
    """Return how often the member was asked whether it is ready."""
    text = await processes.fetched(server.address, server.http_port, "/metrics")
    return sum(float(n) for n in _ANSWERS.findall(text))


async def _status(one: Cluster, rounds: int) -> tuple[list[float], list[float], str]:
    """Return milliseconds of ``muster status --json`` as a command and as a function, and a note if one is not ready."""
    plan = one.plan
    command = [sys.executable, "-m", "muster", "status", "--json", "--cluster", plan.cluster_file, "--run", plan.run]
    outside, inside, note = [], [], ""
    async with opened(Secret(plan.store_url)) as store:
        for _ in range(rounds):
            await _heard_of(one, Roster(store))
            at = time.perf_counter()
            await run([*map(str, command), "--pki", plan.pki], timeout_s=_STATUS_TIMEOUT_S)
            outside.append((time.perf_counter() - at) * 1000)
            await _heard_of(one, Roster(store))
            at = time.perf_counter()
            found = await collected(plan.cluster_file, plan.pki, plan.run)
            inside.append((time.perf_counter() - at) * 1000)
            # Not its exit code: the others do not go on reporting, and count as silent after 5 s.
            late = [a for s in found["services"] for a in s["members"] if a["state"] != "ready"]
            if late or found["store"]["trouble"]:
                note = f"; status found {len(late)} services not ready"
    return outside, inside, note


async def _heard_of(one: Cluster, roster: Roster) -> None:
    """Let the other members have reported just now, what the one that runs reported of itself."""
    said = (await roster.seen())[one.plan.names[0]].report
    for member in one.file.members[1:]:
        await roster.beat(replace(said, name=str(member.name), member_id=member.id), first=False)
