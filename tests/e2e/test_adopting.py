"""A hand-made cluster of Ruby Smart Proxies is adopted: its HAProxy's file is read, and ours takes its ports over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import yaml

from muster.balancer.haproxy import binary as binaries
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from tests.servers import ruby
from tests.servers.client import Place
from tests.servers.hand_made import haproxy_cfg, settings_of
from tests.servers.haproxy import free_ports
from tests.servers.local import say, until
from tests.servers.ruby import RubyProxy, feature

pytestmark = pytest.mark.anyio

MEMBERS = {"ruby01.example.net": "127.0.0.76", "ruby02.example.net": "127.0.0.77"}
BALANCER, ADDRESS, FOREMAN = "127.0.0.78", "rubies.example.net", "foreman.example.net"
PULP = '{"versions": [], "database_connection": {"connected": true}}'


@dataclass
class Site:
    """Two Ruby members and the HAProxy that somebody put in front of them.

    Attributes:
        old: that HAProxy's master process.
        answered: which member answered how often on which port.
        failed: new connections that got no answer, in their words.
    """

    home: Path
    ports: tuple[int, ...]
    foreman: BundlePaths
    old: subprocess.Popen[bytes]
    answered: Counter[tuple[int, str]] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def muster(self, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "muster", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def ask(self, port: int) -> str:
        """Ask over a new connection, and return which member answered."""
        context = ssl.create_default_context(cafile=str(self.home / "pki" / "ca.pem"))
        context.load_cert_chain(self.foreman.certificate, self.foreman.key)
        context.check_hostname = False
        with contextlib.closing(HTTPSConnection(BALANCER, port, timeout=10, context=context)) as connection:
            connection.request("GET", "/version")
            version: str = json.loads(connection.getresponse().read())["version"]
        return version

    @contextlib.contextmanager
    def clients(self) -> Iterator[None]:
        done = threading.Event()

        def keep_asking(port: int) -> None:
            while not done.is_set():
                try:
                    self.answered[port, self.ask(port)] += 1
                except (OSError, ValueError) as e:
                    self.failed.append(f"port {port}: {e!r}")

        threads = [threading.Thread(target=keep_asking, args=(port,)) for port in self.ports * 2]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    async def served(self, what: str) -> None:
        """Wait until every port had answers, from now on."""
        before = Counter(port for (port, _), n in self.answered.items() for _ in range(n))

        async def is_so() -> bool:
            now = Counter(port for (port, _), n in self.answered.items() for _ in range(n))
            return all(now[port] >= before[port] + 20 for port in self.ports)

        await until(is_so, what)


@pytest.fixture
def site(tmp_path: Path, needs: Callable[[str], None]) -> Iterator[Site]:
    needs("haproxy")
    now = datetime.now(UTC)
    ca = ClusterCA.create(tmp_path / "pki", "rubies", now=now)
    write(ca.issue(BundleRequest("balancer", "balancer"), now=now), tmp_path / "pki")
    foreman = write(ca.issue(BundleRequest("client", FOREMAN), now=now), tmp_path / "pki")
    listens, https_port, proxy_port = free_ports(BALANCER, 2), *free_ports(BALANCER, 2)
    rows = [
        ("https", listens[0], https_port, "source", False),
        ("smart-proxy", listens[1], proxy_port, "roundrobin", False),
    ]
    stats = f"{tmp_path}/old.sock mode 600 level admin expose-fd listeners"
    cfg = haproxy_cfg(rows, list(MEMBERS.values()), bind=BALANCER, stats=stats, account=False)
    (tmp_path / "haproxy.cfg").write_text(cfg)
    with contextlib.ExitStack() as stack:
        for name, address in MEMBERS.items():
            bundle = write(ca.issue(BundleRequest("member", name, (ADDRESS,)), now=now), tmp_path / "pki")
            proxy_yml = {":http_port:": "8000", ":https_port:": str(proxy_port)}
            settings_of(tmp_path / name, name, address=ADDRESS, foreman=FOREMAN, main=proxy_yml)
            for port in (https_port, proxy_port):
                proxy = RubyProxy(Place(address, port), FOREMAN, version=name)
                proxy.features = {"registration": feature()}
                proxy.raw = {"/pulp/api/v3/status/": (200, PULP)}
                stack.enter_context(ruby.running(proxy, bundle, tmp_path / "pki" / "ca.pem"))
        old = subprocess.Popen(
            [binaries.found(), "-W", "-db", "-f", tmp_path / "haproxy.cfg"], stderr=subprocess.DEVNULL
        )
        it = Site(tmp_path, tuple(listens), foreman, old)
        try:
            yield it
        finally:
            # A test may have put another in its place.
            it.old.terminate()
            it.old.wait(30)


def adopted(site: Site) -> dict[str, object]:
    named = [f"--member={name}={address}" for name, address in MEMBERS.items()]
    told = [f"--settings={name}={site.home / name}" for name in MEMBERS]
    code, said = site.muster(
        "adopt", "--haproxy", str(site.home / "haproxy.cfg"), *named, *told,
        "--store", f"sqlite:///{site.home}/store.db", "--output", str(site.home / "cluster.yaml"),
    )  # fmt: skip
    assert code == 0, said
    content: dict[str, object] = yaml.safe_load((site.home / "cluster.yaml").read_text())
    return content


async def test_the_ports_of_a_hand_made_haproxy_are_taken_over_and_no_new_connection_fails(site: Site) -> None:
    content = adopted(site)
    assert content["address"] == ADDRESS
    assert content["balancers"] == [{"name": "balancer", "address": BALANCER, "bind": BALANCER}]

    async def takes_connections() -> bool:
        return all(_connects(port) for port in site.ports)

    await until(takes_connections, "the old HAProxy listens")
    log = site.home / "balance.log"
    place = ["--cluster", str(site.home / "cluster.yaml"), "--run", str(site.home / "run")]
    with site.clients():
        await site.served("the old HAProxy serves")
        sockets = _listening(site.ports)
        with log.open("wb") as out:
            command = [sys.executable, "-m", "muster", "balance", *place, "--take-over", str(site.home / "old.sock")]
            ours = subprocess.Popen(command, stdout=out, stderr=out)
        try:

            async def runs() -> bool:
                return "Balancer runs" in log.read_text()

            await until(runs, "muster balance runs")
            await site.served("both serve")
            site.old.send_signal(signal.SIGUSR1)

            async def is_gone() -> bool:
                return site.old.poll() is not None

            await until(is_gone, "the old HAProxy has finished what it had")
            await site.served("muster balance serves alone")
            assert _listening(site.ports) == sockets, "they were handed over, with whoever waits in their queues"
            reloaded = (site.home / "cluster.yaml").read_text().replace("bind: ", "maxconn: 3000, bind: ")
            (site.home / "cluster.yaml").write_text(reloaded)
            os.kill(ours.pid, signal.SIGHUP)

            async def is_reloaded() -> bool:
                return "maxconn 3000" in (site.home / "run" / "haproxy.cfg").read_text()

            await until(is_reloaded, "the changed file is in force")
            await site.served("muster balance serves after a reload")
        finally:
            ours.terminate()
            # What ends it refuses connections, which is no matter of the switch.
            failed = list(site.failed)
            await asyncio.to_thread(ours.wait, 30)
    assert failed == []
    assert {name for (port, name) in site.answered if port == site.ports[1]} == set(MEMBERS)
    say(f"{sum(site.answered.values())} new connections over the switch and a reload, {len(failed)} failed")


def test_what_was_adopted_is_valid_and_is_not_replaced_unasked(site: Site) -> None:
    adopted(site)
    before = (site.home / "cluster.yaml").read_text()
    code, said = site.muster("config", "check", str(site.home / "cluster.yaml"))
    assert code == 0, said
    code, said = site.muster(
        "adopt", "--haproxy", str(site.home / "haproxy.cfg"), "--address", ADDRESS,
        *(f"--member={name}={address}" for name, address in MEMBERS.items()), "--output", str(site.home / "cluster.yaml"),
    )  # fmt: skip
    assert code == 4
    assert "--force replaces it" in said
    assert (site.home / "cluster.yaml").read_text() == before


async def test_an_haproxy_that_hands_nothing_over_keeps_its_ports(site: Site) -> None:
    adopted(site)
    site.old.send_signal(signal.SIGTERM)
    await asyncio.to_thread(site.old.wait, 30)
    file = site.home / "haproxy.cfg"
    file.write_text(file.read_text().replace(" expose-fd listeners", ""))
    site.old = subprocess.Popen([binaries.found(), "-W", "-db", "-f", file], stderr=subprocess.DEVNULL)

    async def serves() -> bool:
        return all(_connects(port) for port in site.ports)

    await until(serves, "the old HAProxy listens")
    sockets = _listening(site.ports)
    place = ["--cluster", str(site.home / "cluster.yaml"), "--run", str(site.home / "run")]
    for further, said in (
        (["--take-over", str(site.home / "old.sock")], "its stats socket needs expose-fd listeners"),
        ([], "it is in use by another program"),
    ):
        code, told = await asyncio.to_thread(site.muster, "balance", *place, *further)
        assert code != 0
        assert said in told
    assert _listening(site.ports) == sockets
    assert all(site.ask(port) in MEMBERS for port in site.ports)


def _listening(ports: tuple[int, ...]) -> set[tuple[int, str]]:
    """Return port and inode of every socket that listens on the balancer's address."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        address, port = local.split(":")
        if state == "0A" and address == f"{socket.inet_aton(BALANCER)[::-1].hex().upper()}" and int(port, 16) in ports:
            found.add((int(port, 16), inode))
    return found


def _connects(port: int) -> bool:
    try:
        socket.create_connection((BALANCER, port), timeout=1).close()
    except OSError:
        return False
    return True
