"""Leases and reservations of a real dhcpd with many leases, asked of a member that follows its files.

dhcpd, the member and its callers are on a segment of their own, in network namespaces: what is probed there is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from bench import load, processes
from bench.figures import Figure, Findings
from muster.cli.local.plan import ADDRESS, Plan
from muster.features.dhcp import asked
from muster.features.dhcp.providers import isc
from muster.features.dhcp.settings import ISCSettings
from muster.kernel.errors import Unavailable
from muster.kernel.process import clean_environment, end_with_parent

if TYPE_CHECKING:
    from tests.servers.dhcpd import DHCPServer
    from tests.servers.namespaces import Host

_SIZES = (1_000, 10_000, 100_000)
_NETWORK = ipaddress.IPv4Network("10.232.0.0/15")
_FIRST_LEASE = 256
# Hosts that Foreman makes lie behind the leases of the largest size.
_FIRST_HOST = 126_000
_OMAPI_PORT = 7911
_WITHIN_S = 60.0
_POOL_FILLS_S = 4.0
_WARM_CALLS = 5
_VERSION_PAUSE_S = 0.02
_LISTS = "dhcp-lease-list"
_HOST = "dhcpd and the member in network namespaces on one segment, HTTPS with a client's certificate"
# Of docs/facts/ruby-proxy.md §2, by the number of leases; not measured in this run.
_RUBY = {
    1_000: {"list": "15 ms", "unused": "4 ms", "start": "0.69 s", "rss": "100 MiB"},
    10_000: {"list": "187 ms", "unused": "96 ms", "start": "2.0 s", "rss": "361 MiB"},
    100_000: {"list": "91.4 s", "unused": "95.5 s", "start": "18.0 s", "rss": "382 MiB fresh, 650+"},
}
_RUBY_RESERVATIONS = "52/s"
_GOALS = {"last": "< 500 ms", "first": "< 150 ms", "warm": "< 50 ms", "cold": "≤ 2 s", "reading": "< 1 s"}


@dataclass(frozen=True)
class Rounds:
    """How often each is measured."""

    starts: int
    lists: int
    ranges: int
    seconds: float
    reservations: int
    by_tool: int
    of_reservations: int


_FULL = Rounds(starts=3, lists=7, ranges=4, seconds=6.0, reservations=300, by_tool=60, of_reservations=3)
_QUICK = Rounds(starts=2, lists=3, ranges=2, seconds=2.0, reservations=100, by_tool=30, of_reservations=2)


@dataclass(frozen=True)
class Listed:
    """One list as it came.

    Attributes:
        first_ms, last_ms: from the request to the answer's first and last byte.
        leases: how many it has.
    """

    first_ms: float
    last_ms: float
    leases: int


@dataclass
class Member:
    """A member on the segment.

    Attributes:
        running_s: from the spawn until the feature ran.
    """

    plan: Plan
    host: Host
    pid: int
    running_s: float
    context: ssl.SSLContext

    def connected(self) -> socket.socket:
        """A connection to its HTTPS port, TLS made, for a thread that blocks."""
        raw = self.host.opened()
        raw.settimeout(_WITHIN_S)
        raw.connect((self.plan.member_address(0), self.plan.ports["smartproxy"]))
        return self.context.wrap_socket(raw, server_hostname=ADDRESS)

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        raw = self.host.opened()
        raw.connect((self.plan.member_address(0), self.plan.ports["smartproxy"]))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setblocking(False)
        streams = await asyncio.open_connection(sock=raw, ssl=self.context, server_hostname=ADDRESS)
        try:
            yield Caller(*streams)
        finally:
            streams[1].close()


@dataclass(frozen=True)
class Caller:
    """One kept connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[float, bytes]:
        """Ask, by POST with a form; return how many seconds it took, and the body.

        Raises:
            Unavailable: the answer is not 200, or is none.
        """
        head = f"{'GET' if form is None else 'POST'} {path} HTTP/1.1\r\nhost: {ADDRESS}\r\naccept: application/json\r\n"
        body = b""
        if form is not None:
            body = urlencode(form).encode()
            head += f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n"
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(_WITHIN_S):
                self.writer.write(f"{head}\r\n".encode() + body)
                said = await self.reader.readuntil(b"\r\n\r\n")
                length = length_of(said)
                answer = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, TimeoutError) as e:
            raise Unavailable(f"{path} was not answered: {e!r}") from e
        if not said.startswith(b"HTTP/1.1 200 "):
            raise Unavailable(f"{path}: {said[:40]!r} {answer[:300]!r}")
        return time.perf_counter() - begun, answer


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return times of lists, of addresses for new hosts, of starts and of reservations, for more and more leases."""
    # Imported here: what runs without dhcpd does not need the tests beside it.
    from tests.servers import available, dhcpd

    rounds, sizes = (_QUICK, _SIZES[:2]) if quick else (_FULL, _SIZES)
    findings = Findings(f"DHCP: a member with provider isc on a real dhcpd; {_HOST}")
    for what in ("dhcpd", "namespaces"):
        if (why := available.missing(what)) is not None:
            findings.notes.append(f"not measured: {why}")
            return findings
    try:
        for size in sizes:
            conf, leases = conf_of(size), leases_of(size, datetime.now(UTC))
            with dhcpd.running(directory / f"dhcpd{size}", conf=conf, leases=leases) as server:
                _lead_there(server)
                await _of_size(findings, directory, server, size, rounds, with_hosts=size in (sizes[0], sizes[-1]))
    except AssertionError as e:
        raise Unavailable(f"dhcpd does not run: {e}") from e
    findings.notes += [
        "Ruby's figures are recorded ones (docs/facts/ruby-proxy.md), over HTTP, and not of this machine's today",
        f"callers, dhcpd and the member share {os.cpu_count()} cores; all is on one host",
    ]
    return findings


async def _of_size(
    findings: Findings, directory: Path, server: DHCPServer, size: int, rounds: Rounds, *, with_hosts: bool
) -> None:
    named = f"{size:,} leases".replace(",", " ")
    ruby, is_largest = _RUBY[size], size == _SIZES[-1]

    def goal(what: str, rubys: str = "") -> str:
        said = [_GOALS[what]] if is_largest and what in _GOALS else []
        return "; ".join([*said, *([f"Ruby, recorded: {ruby[rubys]}"] if rubys else [])])

    plan, empty = (_prepared(directory / f"{name}{size}", server, name) for name in ("full", "empty"))
    starts: dict[str, list[float]] = {"full": [], "empty": []}
    fresh: dict[str, list[float]] = {"full": [], "empty": []}
    read: list[float] = []
    for number, (name, one) in itertools.product(range(rounds.starts + 1), (("full", plan), ("empty", empty))):
        async with _member(one, server.client) as member:
            # The first start makes the store's schema.
            if number:
                starts[name].append(member.running_s)
                fresh[name].append(processes.rss_mb(member.pid))
        if number and name == "full":
            read.append(await asyncio.to_thread(_read_by_dhcpd, server))
    nothing = "no leases"
    findings.figures.append(
        Figure(f"{named}: start until dhcp runs", "s", starts["full"], nothing, starts["empty"], goal("", "start"))
    )
    reading = [a - b for a, b in zip(starts["full"], starts["empty"], strict=True)]
    findings.figures.append(Figure(f"{named}: of it for the leases", "s", reading, "dhcpd -T", read, goal("reading")))
    async with _member(plan, server.client) as member:
        await _lists(findings, member, server, size, rounds, named, goal)
        busy = processes.rss_mb(member.pid)
        findings.figures += [
            Figure(f"{named}: RSS after start", "MB", fresh["full"], nothing, fresh["empty"]),
            Figure(f"{named}: RSS after lists", "MB", [busy], nothing, [statistics.median(fresh["empty"])],
                   "≤ 170 MB; " * is_largest + goal("", "rss")),
        ]  # fmt: skip
        await _unused(findings, member, size, rounds, named, goal)
        await _meanwhile(findings, member, rounds, named)
        if with_hosts:
            await _reservations(findings, member, server, rounds, named)
    findings.notes.append(f"{named}: a file of {server.leases.stat().st_size / 1e6:.1f} MB")


async def _lists(
    findings: Findings,
    member: Member,
    server: DHCPServer,
    size: int,
    rounds: Rounds,
    named: str,
    goal: Callable[..., str],
) -> None:
    tool = shutil.which(_LISTS, path="/usr/sbin:/usr/bin")
    ours: list[Listed] = []
    theirs: list[float] = []
    await asyncio.to_thread(_listed, member.connected)
    for _ in range(rounds.lists):
        found = await asyncio.to_thread(_listed, member.connected)
        if found.leases != size:
            raise Unavailable(f"The list has {found.leases} of {size} leases")
        ours.append(found)
        if tool is not None and len(theirs) < 3:
            theirs.append(await asyncio.to_thread(_listed_by_tool, tool, server.leases, size))
    if tool is None:
        findings.notes.append("dhcp-lease-list is missing (Debian's package isc-dhcp-server)")
    findings.figures += [
        Figure(f"{named}: list, last byte", "ms", [m.last_ms for m in ours], _LISTS, theirs, goal("last", "list")),
        Figure(f"{named}: list, first byte", "ms", [m.first_ms for m in ours], goal=goal("first")),
    ]


async def _unused(
    findings: Findings, member: Member, size: int, rounds: Rounds, named: str, goal: Callable[..., str]
) -> None:
    cold: list[float] = []
    warm: list[float] = []
    given: set[str] = set()
    async with member.caller() as caller:
        for first, last in ranges_of(size, rounds.ranges):
            path = f"/dhcp/{_NETWORK.network_address}/unused_ip?from={first}&to={last}"
            took = []
            for call in range(_WARM_CALLS + 1):
                seconds, answer = await caller.ask(path)
                took.append(seconds)
                given.add(str(json.loads(answer)["ip"]))
                if not call:
                    await asyncio.sleep(_POOL_FILLS_S)
            cold.append(took[0])
            warm += [1000 * one for one in took[1:]]
    if len(given) != len(cold) + len(warm) or "None" in given:
        raise Unavailable(f"{len(cold) + len(warm)} calls were told {len(given)} addresses: {sorted(given)[:20]}")
    findings.figures += [
        Figure(f"{named}: unused_ip, first of a range", "s", cold, goal=goal("cold")),
        Figure(f"{named}: unused_ip, from the pool", "ms", warm, goal=goal("warm", "unused")),
    ]


async def _meanwhile(findings: Findings, member: Member, rounds: Rounds, named: str) -> None:
    """Ask for the version while the list is fetched again and again, and while it is not."""
    during: list[list[float]] = []
    alone: list[list[float]] = []
    async with member.caller() as caller:
        for _ in range(2):
            alone.append(await _versions(caller, rounds.seconds))
            async with _fetching(member):
                during.append(await _versions(caller, rounds.seconds))
    for name, share in (("p50", 50), ("p99", 99)):
        mine, other = ([statistics.quantiles(one, n=100)[share - 1] for one in found] for found in (during, alone))
        findings.figures.append(
            Figure(f"{named}: GET /version meanwhile, {name}", "ms", mine, "without lists", other,
                   "Ruby, recorded: 860 ms" if named.startswith("100 ") and name == "p50" else "")
        )  # fmt: skip


@contextlib.asynccontextmanager
async def _fetching(member: Member) -> AsyncIterator[None]:
    """Fetch the list again and again, in a process of its own: this one's clock shall not wait for it.

    Raises:
        Unavailable: a list was not answered.
    """
    plan = member.plan
    files = processes.credentials(plan)
    where = [plan.member_address(0), str(plan.ports["smartproxy"])]
    with (plan.directory / "log" / "lists.log").open("w+b") as log:
        process = subprocess.Popen(
            member.host.command(sys.executable, "-m", "bench.dhcp", *where, files.ca, files.combined),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), preexec_fn=end_with_parent,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_WITHIN_S):
                while not log.seek(0, os.SEEK_END):
                    await asyncio.sleep(0.05)
            yield
            if process.poll() is not None:
                log.seek(0)
                raise Unavailable(f"The list was not fetched: {log.read()[-800:]!r}")
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)


async def _versions(caller: Caller, seconds: float) -> list[float]:
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(1000 * (await caller.ask("/version"))[0])
        await asyncio.sleep(_VERSION_PAUSE_S)
    return found


async def _reservations(findings: Findings, member: Member, server: DHCPServer, rounds: Rounds, named: str) -> None:
    tool = "omshell, one process each"
    numbers = itertools.count()
    alone = {"1 connection": "provider alone, 1 caller", "4 connections": "provider alone, 4 callers"}
    rates: dict[str, list[float]] = {name: [] for name in (*itertools.chain(*alone.items()), tool)}
    cpu_ms: dict[str, list[float]] = {name: [] for name in rates}
    for _, name in itertools.product(range(rounds.of_reservations), rates):
        hosts = [host_of(next(numbers)) for _ in range(rounds.by_tool if name == tool else rounds.reservations)]
        before = processes.cpu_seconds(member.pid)
        if name == tool:
            seconds = await asyncio.to_thread(_by_omshell, server, hosts)
        elif name in alone.values():
            seconds = await _added(server, hosts, 1 if "1 caller" in name else 4)
        else:
            seconds = await _posted(member, hosts, int(name[0]))
        for one in (hosts[0], hosts[-1]):
            if (block := server.host_in_leases(one["name"])) is None or one["ip"] not in block:
                raise Unavailable(f"dhcpd does not have {one['name']}, made by {name}: {block!r}")
        rates[name].append(len(hosts) / seconds)
        cpu_ms[name].append((processes.cpu_seconds(member.pid) - before) / len(hosts) * 1000)
    goal = f"≥ 5 times Ruby, recorded: {_RUBY_RESERVATIONS}"
    for name, peer in alone.items():
        findings.figures += [
            Figure(f"{named}: reservations, {name}", "hosts/s", rates[name], tool, rates[tool], goal),
            Figure("", "hosts/s", rates[name], peer, rates[peer]),
            Figure("", "member's CPU ms/host", cpu_ms[name]),
        ]


async def _posted(member: Member, hosts: Sequence[dict[str, str]], connections: int) -> float:
    waiting = iter(hosts)

    async def post(caller: Caller) -> None:
        for one in waiting:
            await caller.ask(f"/dhcp/{_NETWORK.network_address}", one)

    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(member.caller()) for _ in range(connections)]
        begun = time.perf_counter()
        await asyncio.gather(*(post(one) for one in callers))
        return time.perf_counter() - begun


async def _added(server: DHCPServer, hosts: Sequence[dict[str, str]], callers: int) -> float:
    """Make hosts by the provider, in this process: without HTTP, and without the store that members share."""
    async with isc.opened(ISCSettings.model_validate(server.settings)) as provider:
        (subnet,) = (s for s in await provider.subnets() if s.network == _NETWORK)
        waiting = iter([asked.wanted(one).within(subnet) for one in hosts])

        async def add() -> None:
            for reservation in waiting:
                await provider.add(reservation)

        begun = time.perf_counter()
        await asyncio.gather(*(add() for _ in range(callers)))
        return time.perf_counter() - begun


def _by_omshell(server: DHCPServer, hosts: Sequence[dict[str, str]]) -> float:
    """Make hosts as a proxy does that has no OMAPI of its own; return how many seconds it took."""

    def made() -> float:
        # The thread stays there, and so do the programs it starts; it ends with its executor.
        server.client.enter()
        begun = time.perf_counter()
        for one in hosts:
            said = subprocess.run(
                ["omshell"], input=omshell_of(one, server), capture_output=True, text=True, timeout=_WITHIN_S, check=False,
            )  # fmt: skip
            if said.returncode != 0:
                raise Unavailable(f"omshell ended with exit code {said.returncode}: {said.stderr[-300:]}")
        return time.perf_counter() - begun

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(made).result()


def omshell_of(one: dict[str, str], server: DHCPServer) -> str:
    """Return what omshell is told to make one host as the form describes it."""
    assert server.key is not None
    packed = ":".join(f"{octet:02x}" for octet in IPv4Address(one["nextServer"]).packed)
    statements = (
        f'filename = \\"{one["filename"]}\\"; next-server = {packed}; option host-name = \\"{one["hostname"]}\\";'
    )
    return "\n".join(
        (
            f"server {server.host.address}", f"port {_OMAPI_PORT}",
            f"key-algorithm {server.key.algorithm}",
            f"key {server.key.name} {server.key.secret.reveal()}",
            "connect", "new host", f'set name = "{one["name"]}"', f"set ip-address = {one['ip']}",
            f"set hardware-address = {one['mac']}", "set hardware-type = 1", f'set statements = "{statements}"',
            "create", "",
        )
    )  # fmt: skip


def _listed(connected: Callable[[], socket.socket]) -> Listed:
    """Fetch the list on a connection that is made before, and read it as fast as it comes."""
    request = f"GET /dhcp/{_NETWORK.network_address} HTTP/1.1\r\nhost: {ADDRESS}\r\nconnection: close\r\n\r\n"
    with connected() as connection:
        begun = time.perf_counter()
        connection.sendall(request.encode())
        pieces = [connection.recv(1 << 18)]
        first = last = time.perf_counter()
        while piece := connection.recv(1 << 18):
            pieces.append(piece)
            last = time.perf_counter()
    answer = b"".join(pieces)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Unavailable(f"The list was not answered: {answer[:300]!r}")
    return Listed(1000 * (first - begun), 1000 * (last - begun), answer.count(b'"starts"'))


def _listed_by_tool(tool: str, leases: Path, size: int) -> float:
    """Return in how many milliseconds Debian's own program lists what is leased."""
    begun = time.perf_counter()
    done = subprocess.run(
        [tool, "--parsable", "--lease", str(leases)], capture_output=True, text=True, timeout=_WITHIN_S, check=False
    )
    took = 1000 * (time.perf_counter() - begun)
    if (found := done.stdout.count("\nMAC ") + done.stdout.startswith("MAC ")) != size:
        raise Unavailable(f"{tool} lists {found} of {size} leases: {done.stderr[-300:]}")
    return took


def _read_by_dhcpd(server: DHCPServer) -> float:
    """Return how many seconds dhcpd needs to read the same files and end."""
    from tests.servers.available import sbin

    command = [sbin("dhcpd") or "dhcpd", "-T", "-4", "--no-pid", "-cf", str(server.conf), "-lf", str(server.leases)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    took = time.perf_counter() - begun
    if done.returncode != 0:
        raise Unavailable(f"dhcpd -T ended with exit code {done.returncode}: {done.stderr[-300:]}")
    return took


def _lead_there(server: DHCPServer) -> None:
    """Give the member's host a way to the subnet, through dhcpd's, which forwards nothing: who is probed there is silent."""
    route = server.client.command("ip", "route", "add", str(_NETWORK), "via", server.host.address)
    subprocess.run(route, check=True, timeout=10)


def _prepared(directory: Path, server: DHCPServer, name: str) -> Plan:
    settings = {**server.settings, "server": server.host.address, "omapi_port": _OMAPI_PORT}
    if name == "empty":
        nothing = directory.with_name(f"{directory.name}.leases")
        nothing.write_text("# This lease file was written by isc-dhcp-4.4.3-P1\n")
        settings["leases"] = str(nothing)
    return processes.prepared(directory, features={"dhcp": {"provider": "isc", "isc": settings}})


@contextlib.asynccontextmanager
async def _member(plan: Plan, host: Host) -> AsyncIterator[Member]:
    """Run ``muster serve`` on a host of the segment, until the feature runs.

    Raises:
        Unavailable: it did not come up; the sentence has the end of its log.
    """
    files = processes.credentials(plan)
    address, log = plan.member_address(0), plan.directory / "log" / "member.log"
    target = load.Target(address, plan.ports["smartproxy"], ADDRESS, files.ca, files.certificate, files.key)
    context = load.tls_context(target)
    assert context is not None
    arguments = ["serve", "--cluster", str(plan.cluster_file), "--pki", str(plan.pki), "--member", plan.names[0]]
    with log.open("ab") as out:
        begun = time.perf_counter()
        process = subprocess.Popen(
            host.command(sys.executable, "-m", "muster", *arguments), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env=clean_environment(), preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        limit = begun + _WITHIN_S
        while not await asyncio.to_thread(_runs, host, address, plan.ports["anaconda"]):
            if process.poll() is not None or time.perf_counter() > limit:
                raise Unavailable(f"The member does not serve dhcp: {log.read_text('utf-8', 'replace')[-800:]}")
            await asyncio.sleep(0.01)
        yield Member(plan, host, process.pid, time.perf_counter() - begun, context)
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _runs(host: Host, address: str, port: int) -> bool:
    with contextlib.suppress(OSError), host.opened() as s:
        s.settimeout(10)
        s.connect((address, port))
        s.sendall(b"GET /features HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
        said = b""
        while piece := s.recv(65536):
            said += piece
        return said.startswith(b"HTTP/1.1 200") and b'"dhcp"' in said
    return False


def length_of(head: bytes) -> int:
    """Return what an answer's head says of its body's length.

    Raises:
        Unavailable: it says nothing.
    """
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise Unavailable(f"An answer says nothing of its length: {head[:300]!r}")


def address_of(number: int) -> IPv4Address:
    """Return the address of a lease; the one behind every fourth is free."""
    return _NETWORK[_FIRST_LEASE + number + number // 4]


def leases_of(size: int, now: datetime) -> str:
    """Return a leases file as a dhcpd has it: all of its leases live for a day, most with a name and an identifier."""
    from tests.unit.features.dhcp.isc import written

    ends = now + timedelta(days=1)

    def lease(number: int) -> str:
        mac = f"52:54:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        more = f'  uid "\\001RT{number:08d}";\n  client-hostname "host{number:06d}";\n' if number % 10 else ""
        return written.lease(str(address_of(number)), mac, ends=ends, more=more)

    return "# This lease file was written by isc-dhcp-4.4.3-P1\n\n" + "".join(lease(n) for n in range(size))


def conf_of(size: int) -> str:
    """Return a configuration whose range has all the leases: dhcpd forgets the others."""
    span = f"range {address_of(0)} {address_of(size - 1)};"
    # It answers nobody there: the segment has another network.
    return f"subnet {_NETWORK.network_address} netmask {_NETWORK.netmask} {{ option routers {_NETWORK[1]}; {span} }}\n"


def ranges_of(size: int, count: int) -> Iterator[tuple[IPv4Address, IPv4Address]]:
    """Yield ranges of as many addresses, which together have all leases, and nothing in common."""
    first, last = int(address_of(0)), int(address_of(size - 1))
    step = (last - first + 1) // count
    for number in range(count):
        yield IPv4Address(first + number * step), IPv4Address(first + (number + 1) * step - 1)


def host_of(number: int) -> dict[str, str]:
    """Return the form of a host that Foreman makes."""
    name = f"new{number:05d}.example.net"
    mac = f"52:55:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    address = str(_NETWORK[_FIRST_HOST + number])
    given = {"name": name, "hostname": name, "mac": mac, "ip": address}
    return {**given, "nextServer": "192.0.2.7", "filename": "pxelinux.0"}


def _fetched_for_ever(address: str, port: str, ca: str, caller: str) -> None:
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(caller)

    def connected() -> socket.socket:
        raw = socket.create_connection((address, int(port)), _WITHIN_S)
        return context.wrap_socket(raw, server_hostname=ADDRESS)

    while True:
        print(_listed(connected), flush=True)


if __name__ == "__main__":
    _fetched_for_ever(*sys.argv[1:])
