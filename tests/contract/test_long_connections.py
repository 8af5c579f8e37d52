"""AMQP and MQTT through the balancer: real brokers, real clients, and what these see when something happens to a member.

Nobody is timed: what was seen is printed (``-s``) and stands in docs/admin/long-connections.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.layout import steered
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.cli.local.plan import ADDRESS, FOREMAN
from muster.cluster.file import ClusterFile
from muster.kernel.errors import MusterError
from muster.kernel.settings import parse
from tests import scale
from tests.servers import local as clusters
from tests.servers import mosquitto, rabbitmq, subscribers
from tests.servers.clients import Identity
from tests.servers.haproxy import free_ports
from tests.servers.local import Local, say, until
from tests.servers.mosquitto import Mosquitto
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.subscribers import Subscriber

pytestmark = pytest.mark.anyio

KINDS = ("amqp", "mqtt")
# Seconds in which a drain that cannot end has said what it waits for.
_PATIENCE_S = "6"
_FOREMAN_OFF = "".join(
    f"  {name}: {{enabled: false}}\n" for name in ("http", "https", "anaconda", "puppet", "puppetca", "smartproxy")
)


@dataclass
class Site:
    """A cluster of two members, each with a broker of either kind on its host."""

    local: Local
    ports: Mapping[str, int]
    client: Identity
    brokers: dict[tuple[str, str], RabbitMQ | Mosquitto] = field(default_factory=dict)
    _held: dict[tuple[str, str], contextlib.ExitStack] = field(default_factory=dict)

    def address(self, member: str) -> str:
        return f"127.0.0.{11 + self.local.names.index(member)}"

    def start(self, kind: str, member: str) -> None:
        """Start a member's broker, with the member's own certificate, as on a content proxy."""
        bundle = self.local.pki / "members" / member
        tls = Identity(self.local.pki / "ca.pem", bundle / "cert.pem", bundle / "key.pem")
        running: Callable[..., Any] = {"amqp": rabbitmq.running, "mqtt": mosquitto.running}[kind]
        stack = self._held[kind, member] = contextlib.ExitStack()
        self.brokers[kind, member] = stack.enter_context(
            running(
                self.local.directory / f"{kind}-{member}", address=self.address(member), port=self.ports[kind],
                tls=tls, client=self.client,
            )
        )  # fmt: skip

    def stop(self, kind: str, member: str) -> None:
        self._held.pop((kind, member)).close()
        del self.brokers[kind, member]

    def close(self) -> None:
        for kind, member in list(self._held):
            self.stop(kind, member)

    def tell(self, member: str, text: str) -> None:
        """Send a word to those who listen at a member's brokers, and not through the balancer."""
        assert subscribers.tell_amqp(self.address(member), self.ports["amqp"], self.client, text)
        assert subscribers.tell_mqtt(self.address(member), self.ports["mqtt"], self.client, text)

    def subscribed(self, kind: str, address: str = "127.0.0.1", port: int | None = None) -> Any:
        """A client that subscribes through the balancer."""
        place = port or self.ports[kind]
        if kind == "amqp":
            return subscribers.amqp(address, place, ADDRESS, self.client)
        return subscribers.mqtt(address, place, self.client)

    async def states(self) -> dict[tuple[str, str], str]:
        servers = await self.local.runtime.servers()
        return {(s.backend, s.server): s.status for s in servers if s.backend in KINDS}

    async def is_well(self) -> bool:
        with contextlib.suppress(MusterError):
            states = await self.states()
            return all(states.get((k, m)) == "UP" for k in KINDS for m in self.local.names)
        return False

    @contextlib.asynccontextmanager
    async def clients(self, at: str) -> AsyncIterator[dict[str, Subscriber]]:
        """A client of either kind, both led to the same member."""
        others = [m for m in self.local.names if m != at]
        with contextlib.ExitStack() as stack:
            found = {}
            for kind in KINDS:
                for other in others:
                    await self.local.runtime.drain(kind, other)
                found[kind] = stack.enter_context(self.subscribed(kind))
                await found[kind].until_subscribed()
                for other in others:
                    await self.local.runtime.ready(kind, other)
            await until(self.is_well, "nobody is held out")
            # Said past the balancer, on HAProxy's own socket: it is written down a moment later.
            await until(self.is_remembered, "a HAProxy that is killed begins with nobody held out")
            yield found

    async def is_remembered(self) -> bool:
        with contextlib.suppress(MusterError):
            now = steered(await self.local.runtime.state_file_content())
            return now == steered(RuntimePaths(self.local.run, self.local.pki).state.read_text())
        return False

    async def worker(self) -> int | None:
        found = [p.pid for p in await self.local.master.processes() if p.type == "worker" and not p.is_old]
        return found[0] if found else None


@pytest.fixture(scope="module")
def running(needs: Callable[[str], None]) -> Iterator[Site]:
    for name in ("haproxy", "rabbitmq", "mosquitto"):
        needs(name)
    with clusters.running(members=2) as local:
        bundle = local.pki / "clients" / FOREMAN
        client = Identity(local.pki / "ca.pem", bundle / "cert.pem", bundle / "key.pem")
        it = Site(local, dict(zip(KINDS, free_ports("127.0.0.1", 2), strict=True)), client)
        try:
            for kind in KINDS:
                for member in local.names:
                    it.start(kind, member)
            document = yaml.safe_load(local.cluster_file.read_text())
            document["services"] |= {k: {"listen_port": p, "member_port": p} for k, p in it.ports.items()}
            # As the page for administrators advises: a broker that hangs still takes connections.
            document["services"]["amqp"]["check"] = {"over": "mutual"}
            local.cluster_file.write_text(yaml.safe_dump(document, sort_keys=False))
            for member in local.names:
                pid = local.pid_of(member)
                assert pid is not None
                # They learn of the services when they start.
                os.kill(pid, signal.SIGKILL)
            yield it
        finally:
            it.close()


@pytest.fixture
async def site(running: Site) -> Site:
    await until(running.is_well, "both members are up for both services")
    return running


async def test_a_service_beside_the_generation_is_a_tunnel(site: Site) -> None:
    said = await site.local.cli("config", "check")
    assert (said.code, "valid" in said.out, said.err) == (0, True, ""), said
    text = (site.local.run / "haproxy.cfg").read_text()
    assert [kind for kind in KINDS if f"frontend {kind}_in from tcp_long\n" in text] == list(KINDS)


async def test_a_drained_member_keeps_its_clients_and_gets_no_new_ones(site: Site) -> None:
    first, second = site.local.names
    async with site.clients(at=first) as old:
        try:
            said = await site.local.cli("drain", first, "--wait", _PATIENCE_S)
            assert said.code == 4, said
            assert "2 connections left" in said.out + said.err, said
            with contextlib.ExitStack() as stack:
                new = {kind: stack.enter_context(site.subscribed(kind)) for kind in KINDS}
                for one in new.values():
                    await one.until_subscribed()
                site.tell(first, "from the first")
                site.tell(second, "from the second")
                for kind in KINDS:
                    await old[kind].until_heard("from the first")
                    await new[kind].until_heard("from the second")
                    assert new[kind].heard() == ["from the second"]
        finally:
            await site.local.cli("ready", first)
        assert [one.count("connected") for one in old.values()] == [1, 1]


@pytest.mark.parametrize("command", ["maintenance", "remove"])
async def test_a_member_leaves_when_its_last_client_has_gone(site: Site, command: str) -> None:
    first, second = site.local.names
    async with site.clients(at=first) as clients:
        try:
            said = await site.local.cli(command, first, "--wait", _PATIENCE_S, "--force")
            assert said.code == 4, said
            assert "2 connections left" in said.out + said.err, said
            site.tell(first, "still here")
            for kind, one in clients.items():
                await one.until_heard("still here")
                assert one.count("lost") == 0
                # What sends its clients to the others: the broker stops, not Muster.
                stopped = time.monotonic()
                site.stop(kind, first)
                shown(f"{kind}, broker of a drained member stopped", one, stopped, await one.until_subscribed(2))
            site.tell(second, "elsewhere")
            for one in clients.values():
                await one.until_heard("elsewhere")
            # The wish stood.
            if command == "maintenance":
                assert (await site.local.cli("maintenance", first)).code == 0
        finally:
            for kind in KINDS:
                if (kind, first) not in site.brokers:
                    site.start(kind, first)
            await site.local.cli("ready", first)


async def test_a_roll_stops_before_its_command_at_a_member_whose_clients_stay(site: Site, tmp_path: Path) -> None:
    first = site.local.names[0]
    ran = tmp_path / "ran"
    async with site.clients(at=first) as clients:
        try:
            said = await site.local.cli("roll", "--member", first, "--wait", _PATIENCE_S, "--", "touch", str(ran))
            assert said.code != 0, said
            assert "2 connections left" in f"{said}", said
            assert not ran.exists()
            assert [one.count("lost") for one in clients.values()] == [0, 0]
        finally:
            await site.local.cli("roll", "--forget")
            await site.local.cli("ready", first)


async def test_clients_of_a_killed_broker_are_with_another_member_at_once(site: Site) -> None:
    first, second = site.local.names
    async with site.clients(at=first) as clients:
        try:
            for kind, one in clients.items():
                killed = time.monotonic()
                site.brokers[kind, first].kill()
                shown(f"{kind}, broker killed", one, killed, await one.until_subscribed(2))
            site.tell(second, "from the second")
            for one in clients.values():
                await one.until_heard("from the second")
        finally:
            for kind in KINDS:
                site.stop(kind, first)
                site.start(kind, first)


@pytest.mark.parametrize("what", ["brokers", "member"])
async def test_clients_are_freed_of_what_hangs(site: Site, what: str) -> None:
    first, second = site.local.names
    async with site.clients(at=first) as clients:
        member = site.local.pid_of(first)
        assert member is not None
        groups = {kind: os.getpgid(site.brokers[kind, first].process.pid) for kind in KINDS}

        def send(number: signal.Signals) -> None:
            if what == "member":
                os.kill(member, number)
            else:
                for group in groups.values():
                    os.killpg(group, number)

        hung = time.monotonic()
        send(signal.SIGSTOP)
        try:
            for kind, one in clients.items():
                shown(f"{kind}, {what} hang", one, hung, await one.until_subscribed(2))
            site.tell(second, "from the second")
            for one in clients.values():
                await one.until_heard("from the second")
        finally:
            send(signal.SIGCONT)


async def test_clients_return_when_haproxy_was_killed(site: Site) -> None:
    async with site.clients(at=site.local.names[0]) as clients:
        worker = await site.worker()
        assert worker is not None
        killed = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        for kind, one in clients.items():
            shown(f"{kind}, HAProxy killed", one, killed, await one.until_subscribed(2))


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_clients_leave_a_member_that_ends_though_its_broker_goes_on(site: Site, by: signal.Signals) -> None:
    first, second = site.local.names
    async with site.clients(at=first) as clients:
        pid = site.local.pid_of(first)
        assert pid is not None
        supervisor = site.local.supervisor
        # Nobody starts it again until its clients have gone.
        os.kill(supervisor, signal.SIGSTOP)
        try:
            ended = time.monotonic()
            os.kill(pid, by)
            for kind, one in clients.items():
                shown(f"{kind}, muster serve gets {by.name}", one, ended, await one.until_subscribed(2))
        finally:
            os.kill(supervisor, signal.SIGCONT)
        site.tell(second, "from the second")
        for one in clients.values():
            await one.until_heard("from the second")


async def test_a_reload_ends_no_subscription(site: Site) -> None:
    first = site.local.names[0]
    async with site.clients(at=first) as clients:
        before = await site.worker()
        document = yaml.safe_load(site.local.cluster_file.read_text())
        document["balancers"][0]["maxconn"] += 1
        site.local.cluster_file.write_text(yaml.safe_dump(document, sort_keys=False))

        async def is_reloaded() -> bool:
            with contextlib.suppress(MusterError):
                return await site.worker() not in (None, before)
            return False

        await until(is_reloaded, "another worker serves")
        site.tell(first, "after the reload")
        for one in clients.values():
            await one.until_heard("after the reload")
            assert one.count("connected") == 1
        # Connections of old workers are counted by everybody: a drain waits for them.
        servers = (await site.local.cli("status", "--json")).json["balancer"]["servers"]
        assert sum(s["sessions"] for s in servers if (s["backend"], s["server"]) in {(k, first) for k in KINDS}) == 2
        said = await site.local.cli("drain", first, "--wait", _PATIENCE_S)
        await site.local.cli("ready", first)
        assert "2 connections left" in said.out + said.err, said


@dataclass(frozen=True)
class Balanced:
    """The product's own configuration on an HAProxy of its own, with shorter times where the test says so."""

    engine: HAProxyEngine
    text: str
    address: str
    ports: Mapping[str, int]


@contextlib.asynccontextmanager
async def balanced(site: Site, run: Path, times: Mapping[str, str]) -> AsyncIterator[Balanced]:
    address = "127.0.0.10"
    names = [*KINDS, *(f"short-{kind}" for kind in KINDS)]
    ports = dict(zip(names, free_ports("127.0.0.1", len(names)), strict=True))
    services = "".join(
        f"  {name}: {{listen_port: {port}, member_port: {site.ports[name[-4:]]}, check: tcp"
        f"{', traffic: tls' if name.startswith('short') else ''}}}\n"
        for name, port in ports.items()
    )
    of = parse(
        f"schema: 1\ncluster: long\naddress: {ADDRESS}\nstore: {{url: 'sqlite:////nowhere/x.db'}}\n"
        f"members:\n- {{id: 1, name: {site.local.names[0]}, address: 127.0.0.11, kind: foreman}}\n"
        f"balancers:\n- {{name: lb, address: {address}, bind: {address}}}\n"
        f"services:\n{_FOREMAN_OFF}{services}"
    ).parsed(ClusterFile)
    executable = binaries.found()
    paths = RuntimePaths(run, site.local.pki / "balancer")
    version = (await binaries.probed(executable)).version
    text = rendered(modelled(of), which=of.balancers[0], runtime=paths, version=version)
    for given, shorter in times.items():
        assert f"{given}\n" in text, f"the product's configuration lacks {given!r}"
        text = text.replace(f"{given}\n", f"{shorter}\n")
    async with HAProxyEngine(paths, binary=executable, min_interval_s=0.0) as engine:
        await engine.apply(text)

        async def is_up() -> bool:
            with contextlib.suppress(MusterError):
                states = [s.status for s in await engine.runtime.servers() if not s.backend.endswith("_panic")]
                return len(states) == len(names) and set(states) == {"UP"}
            return False

        await until(is_up, "the broker's member is up")
        yield Balanced(engine, text, address, ports)


@pytest.mark.proof
async def test_a_silent_subscription_outlives_the_timeouts_of_other_services(site: Site, tmp_path: Path) -> None:
    short = f"{scale.SILENCE_S:.0f}s"
    times = {f"timeout {side} 60s": f"timeout {side} {short}" for side in ("client", "server")}
    async with balanced(site, tmp_path / "run", times) as it:
        with contextlib.ExitStack() as stack:
            clients = {
                name: stack.enter_context(site.subscribed(name[-4:], it.address, port))
                for name, port in it.ports.items()
            }
            for one in clients.values():
                await one.until_subscribed()
            await asyncio.sleep(1.5 * scale.SILENCE_S)
            site.tell(site.local.names[0], "after the silence")
            for name, one in clients.items():
                await one.until_heard("after the silence")
                cut = one.count("lost")
                say(f"{name}, silent for {1.5 * scale.SILENCE_S:g} s where others have {short}: cut {cut} times")
                # The same broker as a short call is cut: so it was silent, and for long enough.
                assert bool(cut) == name.startswith("short"), one.happened


@pytest.mark.proof
async def test_a_subscription_outlives_a_reload_until_the_old_worker_has_to_end(site: Site, tmp_path: Path) -> None:
    limit = f"{scale.OLD_WORKER_S:.0f}s"
    async with balanced(site, tmp_path / "run", {"hard-stop-after 15m": f"hard-stop-after {limit}"}) as it:
        with contextlib.ExitStack() as stack:
            clients = {k: stack.enter_context(site.subscribed(k, it.address, it.ports[k])) for k in KINDS}
            for one in clients.values():
                await one.until_subscribed()
            reloaded = time.monotonic()
            await it.engine.apply(it.text + "# changed\n")
            site.tell(site.local.names[0], "after the reload")
            for one in clients.values():
                await one.until_heard("after the reload")
                assert one.count("lost") == 0
            for kind, one in clients.items():
                await one.until(lambda one=one: one.count("lost") > 0, "the old worker ends", scale.OLD_WORKER_S + 30)
                shown(f"{kind}, reload with {limit} for old workers", one, reloaded, await one.until_subscribed(2))


def shown(what: str, client: Subscriber, since: float, back: float) -> None:
    """Print when the client was cut off, in which words it says so, and when it had subscribed again."""
    # Of a broker that ends in order mosquitto_sub says nothing: it connects again.
    lost = next(h for h in client.happened if h.what in ("lost", "ended", "connecting") and h.at >= since)
    refused = sum(h.what in ("refused", "ended") and h.at > lost.at + 0.1 for h in client.happened if h.at < back)
    words = lost.text or lost.said
    say(f"{what}: cut after {lost.at - since:.2f} s ({words}), subscribed again {back - lost.at:.2f} s later"
        f"{f', {refused} tries failed between' if refused else ''}")  # fmt: skip
