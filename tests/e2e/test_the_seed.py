"""The recipe of 2018, played on hosts of a network of their own: a balancer, three proxies, a client, nine ports.

What people wrote by hand is adopted; from then on everything comes out of the cluster file. The proxies are TLS servers of
our own that answer as the programs of a Ruby Smart Proxy's host do; HAProxy and curl are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers import ruby
from tests.servers.client import Place
from tests.servers.hand_made import FOUR, NINE, haproxy_cfg, settings_of
from tests.servers.local import until
from tests.servers.namespaces import Host, segment
from tests.servers.ruby import RubyProxy, feature

pytestmark = pytest.mark.anyio

ADDRESS, FOREMAN = "smartproxy.example.net", "foreman.example.net"
NAMES = tuple(f"proxy0{n}.example.net" for n in (1, 2, 3))
TLS_PORTS = (443, 9090, 5647, 8140, 8443, 5000)
PLAIN_PORTS = (80, 8000)
# What balancers ask the programs behind the ports, as these answer when they are well.
PROGRAMS = {
    "/pulp/api/v3/status/": (200, '{"versions": [], "database_connection": {"connected": true}}'),
    "/status/v1/simple": (200, "running"),
    "/status/v1/simple/ca": (200, "running"),
}


@contextlib.contextmanager
def plain(place: Place, name: str) -> Iterator[None]:
    """Answer everything over plain HTTP with the member's name."""

    class Talk(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"version": name, "modules": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(place, Talk) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Site:
    """The hosts, and what an administrator does on the balancer's."""

    home: Path
    balancer: Host
    proxies: Mapping[str, Host]
    client: Host
    running: Mapping[str, contextlib.ExitStack]

    def muster(self, *arguments: str) -> str:
        command = self.balancer.command(sys.executable, "-m", "muster", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, port: int, *, at: str = "", path: str = "/version") -> str:
        """Ask the cluster's name as the client does, and return which proxy answered; ``at`` is a line of its hosts file."""
        scheme = "http" if port in PLAIN_PORTS else "https"
        there = at or self.balancer.address
        command = self.client.command(
            "curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--resolve", f"{ADDRESS}:{port}:{there}",
            "--cacert", self.home / "pki" / "ca.pem", f"{scheme}://{ADDRESS}:{port}{path}",
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"port {port}: {done.stderr}"
        return str(json.loads(done.stdout)["version"])

    def adopted(self, rows: tuple[tuple[str, int, int, str, bool], ...], name: str) -> Path:
        hosts = [h.address for h in self.proxies.values()]
        stats = f"{self.home}/{name}.sock mode 600 level admin expose-fd listeners"
        by_hand = haproxy_cfg(rows, hosts, bind=self.balancer.address, stats=stats, account=False)
        (self.home / f"{name}.cfg").write_text(by_hand)
        file = self.home / f"{name}.yaml"
        self.muster(
            "adopt", "--haproxy", str(self.home / f"{name}.cfg"),
            *(f"--member={n}={h.address}" for n, h in self.proxies.items()),
            *(f"--settings={n}={self.home / n}" for n in self.proxies),
            "--store", f"sqlite:///{self.home}/store.db", "--output", str(file),
        )  # fmt: skip
        self.muster("config", "check", str(file))
        return file

    def ports(self, file: Path) -> dict[int, str]:
        table = json.loads(self.muster("render", "table", "--json", "--cluster", str(file)))
        return {s["listen_port"]: s["name"] for s in table["services"]}


@pytest.fixture
def site(tmp_path: Path, needs: Callable[[str], None]) -> Iterator[Site]:
    needs("haproxy")
    needs("namespaces")
    now = datetime.now(UTC)
    ca = ClusterCA.create(tmp_path / "pki", "seed", now=now)
    write(ca.issue(BundleRequest("balancer", "balancer"), now=now), tmp_path / "pki")
    with segment("lb", "p1", "p2", "p3", "client", network="10.231.9") as (balancer, *three, client):
        proxies = dict(zip(NAMES, three, strict=True))
        running: dict[str, contextlib.ExitStack] = {}
        with contextlib.ExitStack() as stack:
            for name, host in proxies.items():
                bundle = write(ca.issue(BundleRequest("member", name, (ADDRESS,)), now=now), tmp_path / "pki")
                settings_of(tmp_path / name, name, address=ADDRESS, foreman=FOREMAN)
                running[name] = one = stack.enter_context(contextlib.ExitStack())
                # Servers listen on the host that the thread is on that makes them.
                there = stack.enter_context(ThreadPoolExecutor(1))
                there.submit(host.enter).result()
                for port in TLS_PORTS:
                    proxy = RubyProxy(Place(host.address, port), FOREMAN, version=name, raw=dict(PROGRAMS))
                    proxy.features = {"registration": feature()}
                    there.submit(one.enter_context, ruby.running(proxy, bundle, tmp_path / "pki" / "ca.pem")).result()
                for port in PLAIN_PORTS:
                    there.submit(one.enter_context, plain(Place(host.address, port), name)).result()
            yield Site(tmp_path, balancer, proxies, client, running)


def test_both_files_of_old_are_adopted_with_the_services_they_have(site: Site) -> None:
    nine, four = site.adopted(NINE, "nine"), site.adopted(FOUR, "four")
    assert site.ports(nine) == {
        80: "http", 8000: "anaconda", 443: "https", 8443: "rhsm", 5647: "amqp", 8140: "puppet", 8141: "puppetca",
        9090: "smartproxy", 5000: "docker",
    }  # fmt: skip
    assert site.ports(four) == {80: "http", 8000: "anaconda", 443: "https", 9090: "smartproxy"}


async def test_clients_know_one_name_and_nine_ports_and_a_proxy_may_die(site: Site) -> None:
    file = site.adopted(NINE, "nine")
    place = ["--cluster", str(file), "--run", str(site.home / "run")]
    log = site.home / "balance.log"
    with log.open("wb") as out:
        command = site.balancer.command(sys.executable, "-m", "muster", "balance", *place)
        balance = subprocess.Popen(command, stdout=out, stderr=out)
    try:

        async def is_up() -> bool:
            if "Balancer runs" not in log.read_text():
                return False
            status = site.balancer.command(sys.executable, "-m", "muster", "status", *place)
            return (await asyncio.to_thread(subprocess.run, status, capture_output=True)).returncode == 0

        await until(is_up, "every proxy is ready for every service")
        # Round robin: all of them, each port; 443 by source: one, whichever; 8141: the first, always.
        for port in (8443, 9090, 8140, 5000, 5647, 80, 8000):
            assert {site.ask(port) for _ in range(9)} == set(NAMES), port
        (kept,) = {site.ask(443) for _ in range(9)}
        assert {site.ask(8141) for _ in range(4)} == {NAMES[0]}
        # The way past the balancer, as the recipe has people look for what is wrong.
        for name, host in site.proxies.items():
            line = site.muster("render", "hosts", "--member", name, "--cluster", str(file))
            assert f"{host.address} {ADDRESS}" in " ".join(line.split())
            assert site.ask(9090, at=host.address) == name
        # What clients are told.
        said = site.muster("render", "puppet-conf", "--cluster", str(file))
        assert "ca_port = 8141" in said
        assert "port = 8443" in site.muster("render", "rhsm-conf", "--cluster", str(file))

        site.running[kept].close()

        async def is_out() -> bool:
            with contextlib.suppress(AssertionError):
                return site.ask(443) != kept
            return False

        await until(is_out, "clients of 443 are led to another proxy")
        others = set(NAMES) - {kept}
        for port in (8443, 9090, 80):
            assert {site.ask(port) for _ in range(9)} == others
    finally:
        balance.terminate()
        await asyncio.to_thread(balance.wait, 30)
