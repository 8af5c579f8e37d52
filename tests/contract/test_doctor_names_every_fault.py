"""The doctor's promise: each fault is named by its own code, at its place, with cause and remedy, and nothing else is.

Two members are small TLS servers that can be told what to answer; files, sockets, BIND and HAProxy are real.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import resource
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.message
import pytest
import yaml

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.sockets import RuntimeSocket
from muster.balancer.haproxy.version import HAProxyVersion
from muster.balancer.steering import Steering
from muster.cluster.checks import known_lives
from muster.cluster.file import ClusterFile
from muster.cluster.foreman import keep
from muster.cluster.life import Life, State, changed, in_maintenance
from muster.cluster.roster import Report, Roster
from muster.doctor import signer
from muster.doctor.checks import Patient
from muster.doctor.examine import examined, in_order
from muster.doctor.matrix import Cell, Prober, entrances, versions
from muster.features.dns import checks as dns_checks
from muster.features.dns.settings import DNSSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured
from muster.kernel.findings import Check, Finding
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, paths, write
from muster.pki.context import Credentials, server_context
from muster.store.engine import Store
from muster.store.engine import opened as store_opened
from tests.servers import bind
from tests.servers import foreman as foremen
from tests.servers.bind import BindServer, Zone
from tests.servers.foreman import Foreman
from tests.servers.haproxy import free_ports

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
ADDRESS = "proxy.example.com"
FIRST, SECOND = "proxy01.example.com", "proxy02.example.com"
HOSTS = {FIRST: "127.0.3.11", SECOND: "127.0.3.12"}
BALANCER = "127.0.3.9"


class Ahead(SystemClock):
    """This host's clock, ten minutes ahead."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=10)


@dataclass
class Machine:
    """A member: what it is and answers can be changed before it runs.

    Attributes:
        listens: ``False``: nothing does; ``"drops"``: its packets vanish; ``"hangs"``: it takes connections, no more.
        clock_s: how far its clock is ahead.
        plain: it speaks plain HTTP where TLS belongs.
        puppet_ca: the bundle it hands out; empty: its puppetserver is no CA.
        server: what it says that it is.
        behind: status of what lies behind its ports of content.
        told: settings of its features, told to hosts it trusts.
        told_status: with what it answers these.
    """

    name: str
    listens: bool | str = True
    version_status: int = 200
    features: Sequence[str] = ("dns", "logs")
    features_status: int = 200
    ready: tuple[int, dict[str, Any]] = (200, {"ready": True})
    clock_s: float = 0.0
    plain: bool = False
    puppet_ca: str = ""
    version: str = "1.0"
    reports: bool = True
    trusted: Path | None = None
    server: str = "foreman-proxy muster/1.0"
    behind: int = 200
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    told_status: int = 200

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, IndexError):
            # Who speaks plain HTTP answers a ClientHello at once: it is no request.
            path = "/" if self.plain else await _path(reader)
            if self.listens == "hangs":
                await reader.read()
            status, body = self._said(path)
            date = format_datetime(datetime.now(UTC) + timedelta(seconds=self.clock_s), usegmt=True)
            head = f"HTTP/1.1 {status} X\r\nDate: {date}\r\nServer: {self.server}\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
            await writer.drain()
        writer.close()

    def _said(self, path: str) -> tuple[int, str]:
        if path.startswith("/health/"):
            return self.ready[0], json.dumps(self.ready[1])
        if path == "/features":
            return self.features_status, json.dumps(list(self.features))
        if path == "/v2/features":
            entries = {n: {"state": "running", "settings": self.told.get(n, {})} for n in self.features}
            return self.told_status, json.dumps(entries)
        if path.startswith("/pulp/"):
            return self.behind, "from behind"
        if path.startswith("/status/v1/simple"):
            return 200, "running"
        if path.startswith("/puppet-ca/"):
            return (200, self.puppet_ca) if self.puppet_ca else (404, "no such page")
        return self.version_status, json.dumps({"version": self.version, "modules": dict.fromkeys(self.features, "")})


def bundle(content: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n"


async def _path(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ")[1]


@dataclass
class World:
    """A cluster that is well until a test breaks something; :meth:`examined` runs it and asks the doctor.

    Attributes:
        changes: to the cluster file.
        before: further changes in the file that HAProxy was configured from.
        lives: what was decided about members.
        during: what happens once everything runs.
    """

    directory: Path
    changes: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    names: dict[str, frozenset[str]] = field(default_factory=lambda: {ADDRESS: frozenset({BALANCER})})
    reverse: dict[str, frozenset[str]] = field(default_factory=dict)
    has_haproxy: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    during: Callable[[], Awaitable[None]] | None = None
    outside: str | None = None
    lives: dict[str, State] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machines = {n: Machine(n) for n in HOSTS}
        self.machines[FIRST].puppet_ca = bundle("one")
        self.port, self.ca_port, self.listen = free_ports("127.0.0.1", 3)
        self.pki = self.directory / "pki"
        self.ca = ClusterCA.create(self.pki, "sick", now=NOW - 400 * DAY)
        for name in HOSTS:
            self.issue(name)
        self.client = write(self.ca.issue(BundleRequest("client", "foreman.example.com"), now=NOW), self.pki)
        self.issue_check()

    def issue(self, member: str, *names: str, ca: ClusterCA | None = None, now: datetime = NOW) -> BundlePaths:
        request = BundleRequest("member", member, names or (ADDRESS,))
        return write((ca or self.ca).issue(request, now=now, valid_days=300), self.pki)

    def issue_check(self, now: datetime = NOW) -> None:
        write(self.ca.issue(BundleRequest("balancer", "balancer"), now=now, valid_days=300), self.pki)

    @property
    def second(self) -> Machine:
        return self.machines[SECOND]

    @property
    def runtime(self) -> RuntimePaths:
        return RuntimePaths(self.directory / "run", self.pki / "balancer")

    def cluster(self, **changes: Any) -> ClusterFile:
        off = {"enabled": False}
        content = {
            "schema": 1,
            "cluster": "sick",
            "address": ADDRESS,
            "store": {"url": f"sqlite:///{self.directory / 'store.db'}"},
            "members": [{"id": i, "name": n, "address": a} for i, (n, a) in enumerate(HOSTS.items(), 1)],
            "balancers": [{"address": BALANCER, "bind": BALANCER}],
            "signer": FIRST,
            "edge": {"proxy_protocol": "off"},
            "services": {
                **dict.fromkeys(("http", "https", "puppet", "anaconda"), off),
                "smartproxy": {"listen_port": self.listen, "member_port": self.port},
                "puppetca": {"listen_port": self.listen + 1, "member_port": self.ca_port},
            },
        }
        return parse(yaml.safe_dump(content | self.changes | changes)).parsed(ClusterFile)

    async def examined(self) -> list[Finding]:
        """Run members (and HAProxy), ask the doctor as the command does, and return the findings."""
        async with AsyncExitStack() as stack:
            for machine in self.machines.values():
                for port in (self.port, self.ca_port):
                    await stack.enter_async_context(self._running(machine, port))
            await self._report()
            if self.has_haproxy:
                await stack.enter_async_context(self._balanced())
            if self.during is not None:
                await self.during()
            return await self._asked()

    async def _asked(self) -> list[Finding]:
        cluster = self.cluster()
        balancing = modelled(cluster)
        url = cluster.store.url

        def store() -> contextlib.AbstractAsyncContextManager[Store]:
            return store_opened(url, connect_timeout_s=1, statement_timeout_s=1, migrate=False)

        lives = await known_lives(store)
        patient = Patient(
            cluster,
            modelled,
            self.pki,
            self.runtime.run,
            store,
            Credentials(self.pki / "ca.pem", self.client.certificate, self.client.key, cluster.foreman.ca_file),
            self.clock,
            (self.directory,),
            self._resolved,
            lives=lives,
        )
        own = self.client
        prober = Prober(
            balancing,
            self.pki / "ca.pem",
            own.certificate,
            own.key,
            self.clock.now(),
            # A machine with much to do is slow to answer; who never answers is waited for in vain.
            timeout_s=1.0 if any(m.listens in ("drops", "hangs") for m in self.machines.values()) else 10.0,
            resting=in_maintenance(lives or {}),
            aliases=tuple(map(str, cluster.aliases)),
        )
        asked = cluster if self.has_haproxy else cluster.model_copy(update={"balancers": ()})
        ways_in = entrances(asked, outside=self.outside)
        self.cells, found = await asyncio.gather(prober.cells(ways_in), examined(patient.checks()))
        return in_order([*(f for c in self.cells for f in c.findings), *versions(cluster, self.cells), *found])

    async def _resolved(self, name: str) -> frozenset[str]:
        if name not in self.names:
            raise OSError(f"no address for {name}")
        return self.names[name]

    async def _named(self, address: str) -> frozenset[str]:
        if address not in self.reverse:
            raise LookupError(f"no name for {address}")
        return self.reverse[address]

    @contextlib.asynccontextmanager
    async def _running(self, machine: Machine, port: int) -> AsyncIterator[None]:
        address = HOSTS[machine.name]
        if machine.listens is False:
            yield
            return
        if machine.listens == "drops":
            with dropping(address, port):
                yield
            return
        bundle = paths(self.pki, "member", machine.name)
        tls = None
        if not machine.plain:
            tls = server_context(bundle.certificate, bundle.key, [machine.trusted or self.pki / "ca.pem"])
        server = await asyncio.start_server(machine.answer, address, port, ssl=tls)
        try:
            yield
        finally:
            server.close()

    async def _report(self) -> None:
        async with store_opened(Secret(f"sqlite:///{self.directory / 'store.db'}")) as store:
            await store.prepare()
            for number, m in enumerate(self.machines.values(), 1):
                if m.reports:
                    it = Report(m.name, number, m.version, "1", "host", 1, "ready", "", {}, {}, {})
                    await Roster(store).beat(it, first=True)
            async with store.write() as uow:
                for name, state in self.lives.items():
                    await changed(uow, name, state, reason="put into maintenance by ada: a new disk", expected=0)

    @contextlib.asynccontextmanager
    async def _balanced(self) -> AsyncIterator[None]:
        binary = await binaries.probed(binaries.found())
        cluster = self.cluster(**self.before)
        text = rendered(modelled(cluster), which=cluster.balancers[0], runtime=self.runtime, version=binary.version)
        async with HAProxyEngine(self.runtime, binary=binary.path, min_interval_s=0.0) as engine:
            await engine.apply(text)

            async def settled() -> bool:
                states = [s for s in await engine.runtime.servers() if not s.backend.endswith("_panic")]
                return all(s.check in ("L7OK", "L7OKC") or s.status.startswith("DOWN") for s in states)

            async with asyncio.timeout(20):
                while not await settled():
                    await asyncio.sleep(0.05)
            yield


@contextlib.contextmanager
def dropping(address: str, port: int) -> Iterator[None]:
    """Hold a port whose queue is full: the kernel drops what comes, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((address, port))
        yield


def named(found: Sequence[Finding], *codes: str) -> Finding:
    """Return the finding of the first code; these codes and no others were found, each with cause and remedy."""
    assert {f.code for f in found} == set(codes), found
    assert all(f.sentence and f.cause and f.remedy and f.place for f in found), found
    return next(f for f in found if f.code == codes[0])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_well_cluster_has_no_findings(world: World) -> None:
    assert await world.examined() == []
    assert [(c.path, c.ok) for c in world.cells] == [(FIRST, True), (FIRST, True), (SECOND, True)]


# Certificates.


async def test_a_certificate_without_the_clusters_name(world: World) -> None:
    world.issue(SECOND, SECOND)
    assert named(await world.examined(), "TLS-NAME").place in (f"smartproxy on {SECOND}", SECOND)


async def test_a_certificate_without_an_alias(world: World) -> None:
    world.changes["aliases"] = ["puppet.example.com"]
    world.names["puppet.example.com"] = frozenset({BALANCER})
    world.issue(FIRST, ADDRESS, "puppet.example.com")
    found = [f for f in await world.examined() if f.place != SECOND]
    sentence = named(found, "TLS-NAME").sentence
    assert f"does not name puppet.example.com; it names {SECOND}, {ADDRESS}" in sentence
    assert {f.place for f in found} == {f"smartproxy on {SECOND}"}


async def test_a_certificate_without_the_members_own_name(world: World) -> None:
    # One for all members, as some make it for a load balancer: Foreman calls each by its own name.
    shared = world.ca.issue(BundleRequest("member", ADDRESS, (ADDRESS,)), now=NOW, valid_days=300)
    bundle = paths(world.pki, "member", SECOND)
    bundle.certificate.write_text(shared.certificate_pem)
    bundle.key.write_text(shared.key_pem.reveal())
    found = [f for f in await world.examined() if f.place != SECOND]
    assert f"does not name {SECOND}; it names {ADDRESS}" in named(found, "TLS-NAME").sentence


async def test_an_expired_certificate(world: World) -> None:
    world.issue(SECOND, now=NOW - 301 * DAY)
    assert "expired 1 day ago" in named(await world.examined(), "TLS-EXPIRED").sentence


async def test_a_certificate_that_ends_soon_is_a_warning(world: World) -> None:
    world.issue(SECOND, now=NOW - 295 * DAY)
    assert named(await world.examined(), "TLS-EXPIRES-SOON").severity == "warning"


async def test_a_certificate_from_the_future(world: World) -> None:
    world.issue(SECOND, now=NOW + 30 * DAY)
    named(await world.examined(), "TLS-NOT-YET-VALID")


async def test_a_certificate_of_another_ca(world: World, tmp_path: Path) -> None:
    world.issue(SECOND, ca=ClusterCA.create(tmp_path / "other", "other", now=NOW))
    # The bundle that was written also carries the other CA's certificate.
    named(await world.examined(), "TLS-CA", "FILE-CA")


async def test_a_ca_that_was_made_anew(world: World, tmp_path: Path) -> None:
    world.issue(SECOND, ca=ClusterCA.create(tmp_path / "other", "sick", now=NOW))
    named(await world.examined(), "TLS-CA-KEY", "FILE-CA")


async def test_a_key_others_can_read(world: World) -> None:
    key = paths(world.pki, "member", SECOND).key
    key.chmod(0o644)
    assert str(key) in named(await world.examined(), "FILE-MODE").sentence


async def test_a_bundle_copied_in_part(world: World) -> None:
    async def copy() -> None:
        paths(world.pki, "member", SECOND).key.write_bytes(world.client.key.read_bytes())

    # The member still runs with the pair it had.
    world.during = copy
    assert named(await world.examined(), "FILE-MISMATCH").place == SECOND


async def test_half_a_bundle(world: World) -> None:
    async def remove() -> None:
        paths(world.pki, "member", SECOND).key.unlink()

    world.during = remove
    assert named(await world.examined(), "FILE-MISSING").place == SECOND


async def test_no_ca_file_here_is_said_once(world: World) -> None:
    async def remove() -> None:
        (world.pki / "ca.pem").unlink()

    world.during = remove
    found = await world.examined()
    named(found, "PKI-UNUSABLE")
    assert len(found) == 1
    assert not any(c.ok for c in world.cells)


# Foreman.


@pytest.fixture
def foreman(world: World) -> Iterator[Foreman]:
    """The cluster's Foreman, which this host may ask."""
    with foremen.running(world.directory / "foreman", ca=world.ca) as one:
        world.changes["foreman"] = one.settings()
        yield one


async def heard(world: World, version: str) -> None:
    async with store_opened(Secret(f"sqlite:///{world.directory / 'store.db'}")) as store:
        await keep(store, version, age_s=0, by=FIRST)


async def test_a_foreman_that_says_its_version_is_no_finding(world: World, foreman: Foreman) -> None:
    assert await world.examined() == []
    assert foreman.asked == ["/api/v2/status"]


async def test_a_foreman_that_is_away_and_what_members_say_meanwhile(world: World, foreman: Foreman) -> None:
    foreman.stop()
    world.during = lambda: heard(world, "3.19.0")
    found = named(await world.examined(), "FOREMAN-API")
    assert found.sentence.startswith(
        f"Foreman does not say its version, and members say 3.19.0: GET {foreman.url}/api/v2/status failed"
    )
    assert "foreman.ca_file" in found.remedy


async def test_a_token_that_foreman_does_not_take(world: World, foreman: Foreman) -> None:
    foreman.token = "another"
    found = named(await world.examined(), "FOREMAN-API")
    assert "members say 5.0.0" in found.sentence
    assert "answered 401" in found.sentence
    assert "Personal Access Tokens" in found.remedy
    assert foremen.TOKEN not in str(found)


async def test_a_foreman_that_hosts_do_not_reach(world: World, foreman: Foreman) -> None:
    world.changes["foreman"] = {"url": foreman.url, "version": "3.19"}
    world.changes["features"] = {"templates": {}}
    assert await world.examined() == []
    assert foreman.asked == ["/api/v2/status"], "nobody's template"
    world.changes["foreman"]["url"] = f"https://127.0.0.1:{foreman.port}"
    found = named(await world.examined(), "FOREMAN-AWAY")
    assert found.sentence.startswith("Hosts get no templates: GET ")
    world.changes["foreman"]["url"] = foreman.url
    foreman.name = "foreman.example.com"
    found = named(await world.examined(), "FOREMAN-REFUSES")
    assert found.sentence.endswith(f"Foreman answers 403 at {foreman.url}")
    foreman.stop()
    found = named(await world.examined(), "FOREMAN-AWAY")
    assert f"GET {foreman.url}/api/v2/status failed" in found.sentence
    world.changes["features"] = {"templates": {"enabled": False}}
    assert await world.examined() == []
    # What else Foreman is asked for is there without it no more than that.
    world.changes["features"] = {name: {} for name in ("registration", "openscap", "discovery")}
    (found,) = [f for f in await world.examined() if f.code == "FOREMAN-AWAY"]
    assert found.sentence.startswith(
        "Hosts cannot register, compliance reports wait and machines cannot be discovered: GET "
    )


async def test_a_host_without_the_token_leaves_it_to_members(world: World, foreman: Foreman) -> None:
    foreman.token_file.unlink()
    assert await world.examined() == []
    assert foreman.asked == []


async def test_a_written_version_of_which_foreman_warns(world: World, foreman: Foreman) -> None:
    world.changes["foreman"]["version"] = "5.0"
    found = named(await world.examined(), "FOREMAN-VERSION")
    assert "foreman.version is 5.0, and Foreman says 3.19.0" in found.sentence
    # It warns of no other than its own and the next.
    world.changes["foreman"]["version"] = "3.20"
    assert await world.examined() == []


async def test_a_version_that_was_written_over_what_members_heard(world: World) -> None:
    world.changes["foreman"] = {"version": "3.19"}
    world.during = lambda: heard(world, "5.0.0")
    assert "Foreman says 5.0.0" in named(await world.examined(), "FOREMAN-VERSION").sentence


async def test_a_version_that_nobody_says(world: World) -> None:
    world.changes["foreman"] = {"url": "https://foreman.example.com"}
    found = named(await world.examined(), "FOREMAN-VERSION-UNKNOWN")
    assert found.sentence == "Members say that Foreman is 5.0.0, which nobody heard from Foreman"
    world.during = lambda: heard(world, "3.19.0")
    found = named(await world.examined(), "FOREMAN-VERSION-UNKNOWN")
    assert found.sentence == "Members say that Foreman is 3.19.0, as was last heard; nobody asks Foreman any more"


# Content.


@pytest.fixture
def content(world: World) -> World:
    """Members answer 443, too, in front of a Pulp."""
    off = {"enabled": False}
    world.changes |= {
        "services": {
            **dict.fromkeys(("http", "puppet", "puppetca", "anaconda"), off),
            "smartproxy": {"listen_port": world.listen, "member_port": world.port},
            "https": {"listen_port": world.listen + 1, "member_port": world.ca_port},
        },
        "content": {"services": ["https"]},
    }
    return world


async def test_content_that_is_well_has_no_findings(content: World) -> None:
    assert await content.examined() == []


async def test_a_program_behind_content_that_does_not_answer(content: World) -> None:
    content.second.behind = 500
    found = named(await content.examined(), "CONTENT-BACKEND")
    assert (found.place, found.severity) == (f"https on {SECOND}", "error")


async def test_another_program_on_a_port_of_content(content: World) -> None:
    content.second.server = "Apache/2.4.62"
    assert named(await content.examined(), "CONTENT-ELSEWHERE").place == f"https on {SECOND}"


# The network, and what listens.


async def test_a_closed_port(world: World) -> None:
    world.second.listens = False
    found = named(await world.examined(), "TLS-REFUSED")
    assert (found.place, found.severity) == (f"smartproxy on {SECOND}", "error")


async def test_a_firewall_that_drops(world: World) -> None:
    world.second.listens = "drops"
    assert "firewall" in named(await world.examined(), "TLS-TIMEOUT").cause


async def test_a_hung_member(world: World) -> None:
    world.second.listens = "hangs"
    assert named(await world.examined(), "SERVICE-DOWN").place == f"smartproxy on {SECOND}"


async def test_plain_http_where_tls_belongs(world: World) -> None:
    world.second.plain = True
    named(await world.examined(), "TLS-NOT-TLS")


async def test_a_member_that_trusts_another_ca(world: World, tmp_path: Path) -> None:
    ClusterCA.create(tmp_path / "other", "other", now=NOW)
    world.second.trusted = tmp_path / "other" / "ca.pem"
    found = await world.examined()
    assert named([f for f in found if f.code != "MEMBER-UNREADY"], "TLS-CLIENT-REFUSED").place.endswith(SECOND)


async def test_a_service_that_answers_errors(world: World) -> None:
    world.second.version_status = 500
    assert "500" in named(await world.examined(), "SERVICE-DOWN").sentence


async def test_an_entrance_that_does_not_work_from_outside(world: World) -> None:
    world.outside = "127.0.3.99"
    places = {f.place for f in await world.examined()}
    assert places == {"smartproxy on outside", "puppetca on outside"}
    assert all(c.ok for c in world.cells if c.path != "outside")


# Members among each other.


async def test_a_member_s_clock_ten_minutes_behind(world: World) -> None:
    world.second.clock_s = -600
    found = named(await world.examined(), "CLOCK-OFF")
    assert (found.place, found.severity) == (SECOND, "error")
    assert re.search(r"(599|600|601) s behind this host's", found.sentence)


async def test_a_member_s_clock_ten_seconds_ahead_is_a_warning(world: World) -> None:
    world.second.clock_s = 10
    assert named(await world.examined(), "CLOCK-OFF").severity == "warning"


async def test_this_host_s_clock_is_blamed_when_all_members_agree(world: World) -> None:
    world.clock = Ahead()
    found = named(await world.examined(), "CLOCK-OFF", "STORE-CLOCK")
    assert found.place == "this host"
    assert "ahead of that of all 2 members" in found.sentence


async def test_a_feature_that_one_member_lacks(world: World) -> None:
    world.second.features = ("logs",)
    assert f"{SECOND} lacks dns" in named(await world.examined(), "FEATURE-MISSING").sentence


async def test_a_member_that_lacks_a_feature_and_tells_us_nothing_else(world: World) -> None:
    world.second.features, world.second.told_status = ("logs",), 403
    assert f"{SECOND} lacks dns" in named(await world.examined(), "FEATURE-MISSING").sentence


def told(url: str | None, **pulp: str) -> dict[str, dict[str, Any]]:
    return {"registration": {"registration_url": url}, "pulpcore": pulp}


@pytest.fixture
def telling(world: World) -> World:
    """Members tell Foreman where clients are sent, and where their own Pulp is."""
    url = f"https://{ADDRESS}:{world.listen}"
    for name, machine in world.machines.items():
        machine.features = ("logs", "registration", "pulpcore")
        machine.told = told(url, pulp_url=f"https://{name}", content_app_url=f"{url}/pulp/content", rhsm_url=f"{url}/r")
    return world


async def test_members_that_all_send_clients_to_the_cluster_are_well(telling: World) -> None:
    assert await telling.examined() == []


async def test_a_member_that_dropped_out_of_the_group(telling: World) -> None:
    telling.second.told["registration"]["registration_url"] = None
    found = named(await telling.examined(), "MEMBER-UNGROUPED")
    assert (found.place, found.severity) == (f"registration_url on {SECOND}", "error")


async def test_a_member_that_sends_clients_past_the_balancer(telling: World) -> None:
    telling.second.told["pulpcore"]["content_app_url"] = f"https://{SECOND}/pulp/content"
    found = named(await telling.examined(), "MEMBER-URL")
    assert f"https://{SECOND}/pulp/content" in found.sentence
    assert "features: pulpcore: content_app_url in the cluster file" in found.remedy


async def test_a_member_that_sends_clients_to_a_port_nobody_answers(telling: World) -> None:
    telling.second.told["pulpcore"]["rhsm_url"] = f"https://{ADDRESS}/rhsm"
    assert "no port 443" in named(await telling.examined(), "MEMBER-URL-PORT").sentence


async def test_members_that_tell_two_names_of_the_cluster(telling: World) -> None:
    telling.changes["aliases"] = ["other.example.com"]
    for name in HOSTS:
        telling.issue(name, ADDRESS, "other.example.com")
    telling.names["other.example.com"] = frozenset({BALANCER})
    telling.second.told["registration"]["registration_url"] = f"https://other.example.com:{telling.listen}"
    assert named(await telling.examined(), "MEMBER-URLS-DIFFER").severity == "error"


async def test_a_member_whose_pulp_is_another_ones(telling: World) -> None:
    telling.second.told["pulpcore"]["pulp_url"] = f"https://{FIRST}"
    assert f"member {FIRST}'s" in named(await telling.examined(), "MEMBER-PULP-URL").sentence


async def test_members_that_tell_trusted_hosts_only_are_one_warning(telling: World) -> None:
    for machine in telling.machines.values():
        machine.told_status = 403
    found = named(await telling.examined(), "MEMBER-URLS-UNSEEN")
    assert (found.place, found.severity) == (f"{FIRST}, {SECOND}", "warning")


async def test_a_member_that_is_down_is_not_said_to_have_dropped_out_of_the_group(telling: World) -> None:
    telling.second.listens = False
    named(await telling.examined(), "TLS-REFUSED")


async def test_fewer_ready_members_than_are_asked_for(world: World) -> None:
    world.changes["min_ready"] = 2
    world.second.ready = (404, {"state": "draining", "reason": "drained by ada: a new disk"})
    found = await world.examined()
    assert named(found, "SERVICE-SHORT", "MEMBER-DRAINING").place == "smartproxy"
    assert [f.place for f in found if f.code == "SERVICE-SHORT"] == ["smartproxy"]


async def test_members_that_are_in_maintenance_count_as_missing(world: World) -> None:
    world.changes["min_ready"] = 2
    world.lives = {FIRST: "ready", SECOND: "maintenance"}
    assert (
        f"({FIRST}); min_ready asks for 2"
        in named(await world.examined(), "SERVICE-SHORT", "MEMBER-MAINTENANCE").sentence
    )


async def test_a_member_that_is_not_ready(world: World) -> None:
    world.second.ready = (503, {"state": "unready", "reason": "feature dns failed: no key"})
    assert "no key" in named(await world.examined(), "MEMBER-UNREADY").sentence


async def test_a_member_that_drains_is_a_warning(world: World) -> None:
    world.second.ready = (404, {"state": "draining", "reason": "maintenance by ada"})
    assert named(await world.examined(), "MEMBER-DRAINING").severity == "warning"


async def test_a_note_of_a_member_is_a_warning(world: World) -> None:
    world.second.ready = (200, {"ready": True, "notes": ["the store does not answer"]})
    assert named(await world.examined(), "MEMBER-NOTE").severity == "warning"


async def test_a_service_nobody_is_ready_for(world: World) -> None:
    for machine in world.machines.values():
        machine.ready = (503, {"state": "unready", "reason": "down"})
    assert named(await world.examined(), "SERVICE-NOWHERE", "MEMBER-UNREADY").place in ("smartproxy", "puppetca")


async def test_a_member_that_never_reported(world: World) -> None:
    world.second.reports = False
    assert named(await world.examined(), "MEMBER-SILENT").place == SECOND


async def test_members_of_two_versions(world: World) -> None:
    world.second.version = "1.1"
    assert f"{SECOND} 1.1" in named(await world.examined(), "MEMBER-VERSIONS").sentence


async def test_members_that_tell_foreman_two_versions(world: World) -> None:
    # The store knows nothing of Ruby members, so what they answer is compared.
    world.second.version, world.second.reports = "3.11.0", False
    world.changes["members"] = [
        {"id": i, "name": n, "address": a, "kind": "foreman"} for i, (n, a) in enumerate(HOSTS.items(), 1)
    ]
    assert f"{FIRST} 1.0, {SECOND} 3.11.0" in named(await world.examined(), "MEMBER-VERSIONS").sentence


async def test_of_a_member_in_maintenance_only_that_is_said_and_by_whom(world: World) -> None:
    world.lives = {FIRST: "ready", SECOND: "maintenance"}
    world.second.listens = world.second.reports = False
    paths(world.pki, "member", SECOND).key.unlink()
    (found,) = await world.examined()
    assert (found.code, found.place, found.severity) == ("MEMBER-MAINTENANCE", SECOND, "warning")
    assert found.sentence == f"{SECOND} is in maintenance, by ada: a new disk"
    assert (found.cause != "", found.remedy) == (True, f"muster ready {SECOND} when the work is done.")
    assert [(c.path, c.ok, c.asked, c.words) for c in world.cells if c.path == SECOND] == [
        (SECOND, True, False, "maintenance")
    ]
    assert all(c.ok for c in world.cells)


async def test_a_member_in_maintenance_is_no_measure_for_the_others(world: World) -> None:
    world.lives = {SECOND: "maintenance"}
    world.second.version, world.second.features, world.second.clock_s = "2.0", ("dns", "logs", "bmc"), -600
    world.second.ready = (404, {"state": "draining", "reason": "put into maintenance by ada: a new disk"})
    world.issue(SECOND, now=NOW - 295 * DAY)
    named(await world.examined(), "MEMBER-MAINTENANCE")


async def test_the_signer_in_maintenance(world: World) -> None:
    world.lives = {FIRST: "maintenance"}
    world.machines[FIRST].listens = world.machines[FIRST].reports = False
    assert named(await world.examined(), "MEMBER-MAINTENANCE").place == FIRST
    assert {(c.service, c.path) for c in world.cells if not c.asked} == {("smartproxy", FIRST), ("puppetca", FIRST)}


@pytest.mark.parametrize("state", ["drained", "ready", "removed"])
async def test_only_maintenance_excuses_a_member_that_is_off(world: World, state: State) -> None:
    world.lives = {SECOND: state}
    world.second.listens = world.second.reports = False
    named(await world.examined(), "MEMBER-SILENT", "TLS-REFUSED")


# Names.


async def test_an_address_without_a_record(world: World) -> None:
    world.names = {}
    # The members are on loopback: a trial, so a warning.
    assert named(await world.examined(), "ADDRESS-UNKNOWN").severity == "warning"


async def test_an_address_that_resolves_to_a_member(world: World) -> None:
    world.names[ADDRESS] = frozenset({HOSTS[FIRST]})
    assert f"member {FIRST}" in named(await world.examined(), "ADDRESS-IS-MEMBER").sentence


async def test_an_address_that_resolves_to_neither_balancer(world: World) -> None:
    world.names[ADDRESS] = frozenset({"192.0.2.77"})
    named(await world.examined(), "ADDRESS-ELSEWHERE")


def far(world: World) -> list[Check]:
    """The checks of names, for members that are not on loopback (and so not here)."""
    from muster.cluster.checks import checks

    members = [{"id": 1, "name": FIRST, "address": "192.0.2.11"}, {"id": 2, "name": SECOND, "address": "192.0.2.12"}]
    members_of = world.cluster(members=members)
    here = checks(members_of, lambda: store_opened(Secret("sqlite:////x")), world._resolved, world._named)
    return [c for c in here if c.name != "reports"]


async def test_a_member_without_a_record(world: World) -> None:
    world.names[FIRST] = frozenset({"192.0.2.11"})
    assert named(await examined(far(world)), "MEMBER-UNRESOLVED").place == SECOND


async def test_a_member_whose_address_has_another_name(world: World) -> None:
    world.names |= {FIRST: frozenset({"192.0.2.11"}), SECOND: frozenset({"192.0.2.12"})}
    world.reverse = {"192.0.2.11": frozenset({FIRST}), "192.0.2.12": frozenset({"old.example.com"})}
    found = named(await examined(far(world)), "MEMBER-REVERSE")
    assert (found.place, found.severity) == (SECOND, "warning")


async def test_a_member_whose_record_says_another_address(world: World) -> None:
    world.names |= {FIRST: frozenset({"192.0.2.11"}), SECOND: frozenset({"192.0.2.99"})}
    assert "192.0.2.99" in named(await examined(far(world)), "MEMBER-ELSEWHERE").sentence


async def test_a_real_cluster_s_address_without_a_record_is_an_error(world: World) -> None:
    world.names = {FIRST: frozenset({"192.0.2.11"}), SECOND: frozenset({"192.0.2.12"})}
    assert named(await examined(far(world)), "ADDRESS-UNKNOWN").severity == "error"


# Store and disks.


async def test_a_store_that_cannot_be_reached(world: World) -> None:
    world.changes["store"] = {"url": "postgresql://muster@127.0.0.1:1/muster"}
    assert named(await world.examined(), "STORE-DOWN").place == "store"


@contextlib.contextmanager
def small_disk(place: Path, *options: str) -> Iterator[Path]:
    """A file system of its own in a new directory; without root there is none."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        why = f"no small disk can be mounted here: {mounted.stderr.partition(chr(10))[0]}"
        (pytest.fail if os.environ.get("MUSTER_NO_SKIPS") else pytest.skip)(why)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def full_of_data(directory: Path) -> None:
    with (directory / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def full_of_files(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (directory / f"ballast{number}").touch()


async def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        world = World(disk)

        async def fill() -> None:
            full_of_data(disk)

        world.during = fill
        found = await world.examined()
        # The store is on it, and nobody has it open: not even a read has room for SQLite's index of its log.
        assert named(found, "DISK-FULL", "STORE-DOWN").severity == "error"
        assert {f.place for f in found if f.code == "DISK-FULL"} >= {str(disk), str(world.pki)}
        assert "the disk is full" in next(f.sentence for f in found if f.code == "STORE-DOWN")


async def test_a_disk_without_room_for_files(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=512m", "nr_inodes=100") as disk:
        world = World(disk)

        async def fill() -> None:
            full_of_files(disk)

        world.during = fill
        assert "no room for another file" in named(await world.examined(), "DISK-FULL", "STORE-DOWN").sentence


async def test_a_disk_that_fills_is_a_warning(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=20m") as disk:
        assert named(await World(disk).examined(), "DISK-LOW").severity == "warning"


async def test_store_settings_that_cannot_be_used(world: World) -> None:
    from muster.store.checks import checks

    def broken() -> Any:
        raise Misconfigured("Reading store password file /etc/muster/password failed: No such file or directory")

    here = checks(broken, directories=(), clock=SystemClock())
    assert "password file" in named(await examined(here), "STORE-SETTINGS").sentence


async def test_a_store_across_the_network_that_is_not_verified_is_a_warning() -> None:
    from muster.store.checks import of_way

    found = named(of_way(Secret("postgresql://u@db.example.net/d?sslmode=require")), "STORE-UNVERIFIED")
    assert (found.severity, found.place) == ("warning", "db.example.net")
    for url in ("postgresql://u@db.example.net/d?sslmode=verify-full", "postgresql://u@127.0.0.1/d", "sqlite:////x.db"):
        assert of_way(Secret(url)) == []


# Puppet's CA.


async def test_a_signer_that_is_down(world: World) -> None:
    services = world.cluster().model_dump(exclude_none=True)["services"]
    services["puppetca"]["member_port"] = free_ports("127.0.0.1", 1)[0]
    world.changes["services"] = services
    assert named(await world.examined(), "SIGNER-DOWN", "TLS-REFUSED").place == f"puppetca on {FIRST}"


async def test_puppetca_that_goes_to_two_ruby_proxies(world: World) -> None:
    world.changes |= {
        "signer": "any",
        "members": [{"id": i, "name": n, "address": a, "kind": "foreman"} for i, (n, a) in enumerate(HOSTS.items(), 1)],
    }
    assert "signer: NAME" in named(await world.examined(), "SIGNER-MANY").remedy


@pytest.mark.parametrize("changes", [{"signer": "any"}, {"signer": FIRST, "authority": {}}])
async def test_puppetca_that_goes_to_the_puppetservers_of_two_members_of_ours(
    world: World, changes: dict[str, Any]
) -> None:
    services = world.cluster().model_dump(exclude_none=True)["services"]
    services["puppetca"]["destinations"] = "all"
    world.changes |= {"services": services, **changes}
    found = await world.examined()
    said = next(f for f in found if f.code == "SIGNER-MANY")
    assert f"goes to {FIRST} and {SECOND}, and each has a Puppet CA of its own" in said.sentence
    assert {f.code for f in found} <= {"SIGNER-MANY", "SIGNER-SECOND"}


async def test_puppetca_with_two_different_cas(world: World) -> None:
    world.changes["signer"] = "any"
    world.second.puppet_ca = bundle("one")
    named(await world.examined(), "SIGNER-MANY")
    world.second.puppet_ca = bundle("two")
    assert FIRST in named(await world.examined(), "SIGNER-DIFFERENT", "SIGNER-MANY").sentence


@pytest.mark.parametrize("content", ["one", "two"])
async def test_a_puppetserver_that_is_a_ca_beside_the_signer(world: World, content: str) -> None:
    # A real one's certificate is its Puppet CA's, which this host has no reason to trust.
    foreign = ClusterCA.create(world.directory / "foreign", "foreign", now=NOW)
    world.issue(SECOND, ca=foreign)
    world.second.puppet_ca = bundle(content)
    found = await world.examined()
    second = next(f for f in found if f.code == "SIGNER-SECOND")
    assert (second.place, second.severity) == (f"puppetca on {SECOND}", "error")
    assert f"{HOSTS[SECOND]} port {world.ca_port}, beside the signer {FIRST}" in second.sentence
    assert "SIGNER-DIFFERENT" not in {f.code for f in found}


async def test_a_puppetserver_for_catalogs_that_is_a_ca_on_its_own_port(world: World) -> None:
    services = world.cluster().model_dump(exclude_none=True)["services"]
    (elsewhere,) = free_ports("127.0.0.1", 1)
    services["puppet"] = {"enabled": False}
    services["puppetca"]["member_port"] = elsewhere
    world.changes |= {"services": services, "authority": {}, "signer": "any"}
    cluster = world.cluster()
    assert signer.elsewhere(cluster, modelled(cluster)) == []
    services["puppet"] = {"listen_port": world.listen + 2, "member_port": world.ca_port}
    cluster = world.cluster()
    assert signer.elsewhere(cluster, modelled(cluster)) == [signer.Place(n, a, world.ca_port) for n, a in HOSTS.items()]
    (check,) = signer.beside(cluster, modelled(cluster))
    async with contextlib.AsyncExitStack() as stack:
        for machine in world.machines.values():
            await stack.enter_async_context(world._running(machine, world.ca_port))
        (found,) = await check.run()
    assert (found.code, found.place) == ("SIGNER-SECOND", f"puppetca on {FIRST}")
    assert "beside the members' own" in found.sentence


# DNS: a real BIND.

WRONG = base64.b64encode(b"w" * 32).decode()


@pytest.fixture(scope="module")
def named_server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BindServer]:
    needs("bind")
    zones = (Zone("example.com"), Zone("readonly.test", updatable=False))
    with bind.running(tmp_path_factory.mktemp("bind"), zones=zones) as server:
        yield server


def with_dns(world: World, server: BindServer, **settings: Any) -> World:
    given = {"server": server.address, "port": server.port, "timeout_s": 2} | settings
    world.changes["features"] = {"dns": {"nsupdate": {k: v if k != "key_file" else str(v) for k, v in given.items()}}}
    return world


async def test_a_dns_server_that_takes_our_key_is_well_and_unchanged(world: World, named_server: BindServer) -> None:
    before = named_server.transfer("example.com")
    assert await with_dns(world, named_server, key_file=named_server.key_file).examined() == []
    assert named_server.transfer("example.com") == before


async def test_a_dns_server_that_is_down(world: World, named_server: BindServer) -> None:
    sick = with_dns(world, named_server, key_file=named_server.key_file, port=free_ports("127.0.0.1", 1)[0])
    assert named(await sick.examined(), "DNS-DOWN").place == "feature dns"


async def test_a_dns_key_the_server_does_not_know(world: World, named_server: BindServer) -> None:
    found = named(
        await with_dns(world, named_server, key_name="nobody", key_secret=WRONG).examined(), "DNS-KEY-UNKNOWN"
    )
    assert "nobody" in found.sentence


async def test_a_dns_key_with_another_secret(world: World, named_server: BindServer) -> None:
    found = await with_dns(world, named_server, key_name="muster-test", key_secret=WRONG).examined()
    assert WRONG not in str(named(found, "DNS-KEY-WRONG"))


async def test_a_dns_server_with_another_clock(
    world: World, named_server: BindServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # dnspython signs with time.time() and offers no other seam; there is no faketime on these machines.
    monkeypatch.setattr(dns.message, "time", SimpleNamespace(time=lambda: time.time() - 600))
    named(await with_dns(world, named_server, key_file=named_server.key_file).examined(), "DNS-CLOCK")


async def test_a_key_is_tried_on_a_server_with_none_of_our_zones(named_server: BindServer) -> None:
    settings = DNSSettings.model_validate(
        {"nsupdate": {"server": named_server.address, "port": named_server.port, "key_name": "n", "key_secret": WRONG}}
    )
    named(await examined(dns_checks.checks(settings, [FQDN.parse("proxy.test")], lambda: None)), "DNS-KEY-UNKNOWN")


async def test_a_zone_we_may_not_change(world: World, named_server: BindServer) -> None:
    found = named(await with_dns(world, named_server).examined(), "DNS-REFUSED")
    assert "change example.com" in found.sentence


async def test_a_key_that_may_not_change_the_zone(world: World, named_server: BindServer) -> None:
    world.changes["address"] = "proxy.readonly.test"
    world.names["proxy.readonly.test"] = frozenset({BALANCER})
    for name in HOSTS:
        world.issue(name, ADDRESS, "proxy.readonly.test")
    found = named(await with_dns(world, named_server, key_file=named_server.key_file).examined(), "DNS-REFUSED")
    assert "change readonly.test" in found.sentence


async def test_a_damaged_dns_key_file(world: World, named_server: BindServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key")
    named(await with_dns(world, named_server, key_file=tmp_path / "key").examined(), "DNS-KEY-FILE")


async def test_a_dns_key_that_is_not_on_this_host_is_a_warning(
    world: World, named_server: BindServer, tmp_path: Path
) -> None:
    sick = with_dns(world, named_server, key_file=tmp_path / "absent")
    assert named(await sick.examined(), "DNS-KEY-ABSENT").severity == "warning"


def with_other_proxy(world: World, feature: str, **settings: Any) -> World:
    given = {"url": f"https://{HOSTS[SECOND]}:{world.port}", "server_name": ADDRESS} | settings
    world.changes["features"] = {feature: {"provider": "smart_proxy", "smart_proxy": given}}
    for machine in world.machines.values():
        machine.features = ("logs", feature)
    return world


of_another = pytest.mark.parametrize("feature", ["dns", "dhcp"])


@of_another
async def test_another_smart_proxy_that_is_well(world: World, feature: str) -> None:
    assert await with_other_proxy(world, feature).examined() == []


@of_another
async def test_another_smart_proxy_that_is_down(world: World, feature: str) -> None:
    port = free_ports("127.0.0.1", 1)[0]
    sick = with_other_proxy(world, feature, url=f"https://127.0.3.12:{port}")
    named(await sick.examined(), f"{feature.upper()}-PROXY-DOWN")


@of_another
async def test_another_smart_proxy_that_does_not_trust_us(world: World, feature: str) -> None:
    sick = with_other_proxy(world, feature)
    world.second.features_status = 403
    named(await sick.examined(), f"{feature.upper()}-PROXY-DENIED")


@of_another
async def test_another_smart_proxy_without_the_feature(world: World, feature: str) -> None:
    sick = with_other_proxy(world, feature)
    for machine in world.machines.values():
        machine.features = ("logs",)
    assert "it has logs" in named(await sick.examined(), f"{feature.upper()}-PROXY-LACKS").sentence


# The balancer: a real HAProxy.


@pytest.fixture
def balanced(world: World, needs: Callable[[str], None]) -> World:
    needs("haproxy")
    world.has_haproxy = True
    return world


async def test_a_well_balancer_has_no_findings(balanced: World) -> None:
    assert await balanced.examined() == []
    assert {c.path for c in balanced.cells if c.ok} == {FIRST, SECOND, "balancer"}


async def test_a_second_balancer_that_is_dead_is_seen_beside_the_first(balanced: World) -> None:
    first, dead = {"name": "lb1", "address": BALANCER, "bind": BALANCER}, "127.0.3.10"
    balanced.changes["balancers"] = [first, {"name": "lb2", "address": dead, "bind": dead}]
    found = await balanced.examined()
    named(found, "TLS-REFUSED")
    assert {f.place for f in found} == {"smartproxy on balancer lb2", "puppetca on balancer lb2"}
    assert all(dead in f.sentence for f in found)
    assert {c.path for c in balanced.cells if c.ok} == {FIRST, SECOND, "balancer"}
    assert {c.path for c in balanced.cells if not c.ok} == {"balancer lb2"}


async def test_a_configuration_that_is_not_the_cluster_file_s(balanced: World) -> None:
    balanced.before = {"balancers": [{"address": BALANCER, "bind": BALANCER, "maxconn": 500}]}
    assert "muster balance" in named(await balanced.examined(), "BALANCER-STALE").cause


async def test_a_configuration_edited_by_hand_is_a_warning(balanced: World) -> None:
    async def edit() -> None:
        config = balanced.runtime.config
        config.write_text(config.read_text() + "# mine\n")

    balanced.during = edit
    assert named(await balanced.examined(), "BALANCER-EDITED").severity == "warning"


async def test_too_few_descriptors(balanced: World) -> None:
    async def lower() -> None:
        info = await RuntimeSocket(balanced.runtime.runtime_socket).ask("show info")
        pid = next(int(line.partition(":")[2]) for line in info.splitlines() if line.startswith("Pid:"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 1024))

    balanced.during = lower
    assert "may open 1024" in named(await balanced.examined(), "BALANCER-DESCRIPTORS").sentence


@pytest.mark.parametrize("lives", [{}, {FIRST: "ready", SECOND: "ready"}])
async def test_a_server_somebody_put_into_maintenance_on_haproxys_socket(
    balanced: World, lives: dict[str, State]
) -> None:
    async def out() -> None:
        await RuntimeSocket(balanced.runtime.runtime_socket).maint("smartproxy", SECOND)

    balanced.during, balanced.lives = out, lives
    found = named(await balanced.examined(), "BALANCER-MAINT")
    assert (found.place, found.severity) == (f"smartproxy on {SECOND}", "warning")
    assert "Muster did not ask for it" in found.sentence
    assert "muster maintenance" in found.remedy


@pytest.mark.parametrize("lives", [{}, {FIRST: "ready", SECOND: "ready"}])
async def test_a_server_somebody_drained_on_haproxys_socket(balanced: World, lives: dict[str, State]) -> None:
    async def out() -> None:
        await RuntimeSocket(balanced.runtime.runtime_socket).drain("smartproxy", SECOND)

    balanced.during, balanced.lives = out, lives
    found = named(await balanced.examined(), "BALANCER-DRAIN")
    assert (found.place, found.severity) == (f"smartproxy on {SECOND}", "warning")
    assert f"set server smartproxy/{SECOND} state ready" in found.remedy


def steered(world: World, **states: State) -> Callable[[], Awaitable[None]]:
    """Let the balancer follow these lives, as :class:`~muster.balancer.steering.Steering` does each beat."""

    async def beat() -> None:
        lives = {SECOND: Life(states["second"])}
        await Steering(world.runtime.run).beat(
            "lb", modelled(world.cluster()), lives, engine="", generation="", trouble="", totals={}
        )

    return beat


async def test_a_server_that_muster_put_into_maintenance_is_no_finding_of_the_balancer(balanced: World) -> None:
    balanced.lives = {FIRST: "ready", SECOND: "maintenance"}
    balanced.during = steered(balanced, second="maintenance")
    balanced.second.reports = False
    named(await balanced.examined(), "MEMBER-MAINTENANCE")
    assert all(c.ok for c in balanced.cells)


@pytest.mark.parametrize("state", ["drained", "ready"])
async def test_a_server_that_muster_drained_is_no_finding(balanced: World, state: State) -> None:
    # Ready: it was decided this very moment, and the balancer has not heard of it.
    balanced.lives = {FIRST: "ready", SECOND: state}
    balanced.during = steered(balanced, second="drained")
    assert await balanced.examined() == []


async def test_a_balancer_that_has_forgotten_who_was_removed_is_up_to_date(balanced: World) -> None:
    balanced.lives = {SECOND: "removed"}
    balanced.before = {"members": [{"id": 1, "name": FIRST, "address": HOSTS[FIRST]}]}
    assert await balanced.examined() == []
    balanced.lives = {}
    (balanced.directory / "store.db").unlink()
    named(await balanced.examined(), "BALANCER-STALE")


async def test_an_expired_check_certificate(balanced: World) -> None:
    balanced.issue_check(now=NOW - 301 * DAY)
    found = named(await balanced.examined(), "BALANCER-CHECK-EXPIRED", "BALANCER-OUT")
    assert "health check" in found.cause
    assert "muster certs issue --balancer" in found.remedy


async def test_a_member_the_balancer_has_taken_out(balanced: World) -> None:
    balanced.second.listens = False
    found = named(await balanced.examined(), "BALANCER-OUT", "TLS-REFUSED")
    assert (found.place, "L4CON" in found.sentence) == (f"smartproxy on {SECOND}", True)


async def test_a_balancer_that_does_not_run(world: World) -> None:
    which = world.cluster()
    version = HAProxyVersion(2, 8)
    world.runtime.run.mkdir()
    world.runtime.config.write_text(
        rendered(modelled(which), which=which.balancers[0], runtime=world.runtime, version=version)
    )
    assert "runtime.sock" in named(await world.examined(), "BALANCER-DOWN").sentence


# The doctor itself.


async def test_a_check_that_hangs_stops_no_other() -> None:
    async def hangs() -> Sequence[Finding]:
        await asyncio.Event().wait()
        return []

    async def finds() -> Sequence[Finding]:
        return [Finding("X", "here", "x", "y", "z")]

    found = await examined([Check("slow", hangs), Check("quick", finds)], timeout_s=0.05)
    assert named(found, "CHECK-TIMEOUT", "X").place == "slow"


async def test_a_bug_in_a_check_stops_no_other() -> None:
    async def breaks() -> Sequence[Finding]:
        raise ZeroDivisionError

    assert named(await examined([Check("buggy", breaks)]), "CHECK-BROKEN").place == "buggy"


async def test_a_check_that_cannot_be_carried_out_says_why() -> None:
    async def cannot() -> Sequence[Finding]:
        raise Misconfigured("Reading X failed: Permission denied")

    assert "Permission denied" in named(await examined([Check("blind", cannot)]), "CHECK-FAILED").sentence
