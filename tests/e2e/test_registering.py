"""Hosts join and register through a real HAProxy and three members on a real PostgreSQL; a stand-in for Foreman counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.cli.local.plan import ADDRESS
from tests.servers import foreman_for_hosts, joining, postgresql
from tests.servers import local as clusters
from tests.servers.client import Answer, Connection, Place, ask, request, tls_client
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.joining import JoiningHost
from tests.servers.local import Local, say, until
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio

SCRIPT = (200, b"#!/bin/sh\n# registration script GET\n")
HOSTS = 5
# A claim holds 15 s longer.
TIMEOUT_S = 3
TOKEN = "eyJhbGciOiJIUzI1NiJ9.c2VzYW1l.x-Y_z"  # nobody's
FEATURES = {"templates": {"foreman_timeout_s": TIMEOUT_S}, "registration": {"foreman_timeout_s": TIMEOUT_S}}


@dataclass(frozen=True)
class Site:
    cluster: Local
    foreman: ForemanForHosts
    server: PostgreSQL
    https: int

    def register(self, query: str, number: int = 0, *, word: str = "good", member: int | None = None) -> Answer:
        """Ask as the host of that number does, from an address of its own; through the balancer, or of one member."""
        place = Place("127.0.0.1" if member is None else f"127.0.0.{10 + member}", self.cluster.ports["smartproxy"])
        proof = {"Authorization": f"Bearer {word * 10}"}
        tls = tls_client(self.cluster.pki / "ca.pem")
        source = f"127.0.1.{number + 1}"
        with Connection(place, tls=tls, server_name=ADDRESS, source=source, timeout_s=30) as connection:
            connection.send(request("GET", f"/register?{query}", {"Connection": "close", **proof}))
            return connection.answer()

    def asked(self) -> int:
        return self.foreman.counted()["GET /register"]


@pytest.fixture(scope="module")
def site(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs("haproxy")
    needs("postgresql")
    directory = tmp_path_factory.mktemp("registering")
    with (
        postgresql.running() as server,
        foreman_for_hosts.running(directory / "foreman") as foreman,
        clusters.running(store_url=server.fresh_database()) as cluster,
    ):
        foreman.believe(cluster.pki / "ca.pem")
        document: dict[str, Any] = yaml.safe_load(cluster.cluster_file.read_text())
        # A local cluster has no Foreman.
        document["foreman"] |= {"url": foreman.url, "ca_file": str(foreman.ca_file)}
        document["features"] |= FEATURES
        # Hosts fetch there what they join with.
        port = clusters.free_ports(cluster.members, ("https",))["https"]
        document["services"]["https"] = {"listen_port": port, "member_port": port}
        document["content"] = {"services": ["https"], "pulp_content_url": None, "pulp_api_url": None}
        cluster.cluster_file.write_text(yaml.safe_dump(document))
        for name in cluster.names:
            os.kill(_pid(cluster, name), signal.SIGTERM)
        yield Site(cluster, foreman, server, port)


def _pid(cluster: Local, name: str) -> int:
    pid = cluster.pid_of(name)
    assert pid is not None, f"{name} does not run"
    return pid


@pytest.fixture
async def well(site: Site) -> Site:
    """Every member serves registrations."""

    await until(lambda: site.cluster.serves("registration"), "every member is ready and has the feature")
    site.foreman.may_answer.set()
    site.foreman.asked.clear()
    return site


def found(futures: list[Future[Answer]]) -> set[tuple[int, bytes]]:
    return {(f.result().status, f.result().body) for f in futures}


async def test_two_hundred_hosts_at_once_reach_foreman_once(well: Site) -> None:
    well.foreman.may_answer.clear()
    began = time.monotonic()
    with ThreadPoolExecutor(200) as threads:
        asking = [threads.submit(well.register, "storm&keys=a,b", n) for n in range(200)]
        await until(_true(lambda: well.asked() == 1), "somebody asks Foreman")
        await asyncio.sleep(1)
        well.foreman.may_answer.set()
        assert await asyncio.to_thread(found, asking) == {SCRIPT}
    say(
        f"200 registrations at once: {well.asked()} reached Foreman, {time.monotonic() - began:.1f} s, 1 s of it Foreman's"
    )
    assert well.asked() == 1
    answered = {n for n in well.cluster.names if "GET /register with 200" in well.cluster.log(n)}
    assert len(answered) > 1, "one member had all hosts"
    other = await asyncio.to_thread(well.register, "storm&keys=a,b", word="other")
    assert (other.status, well.asked()) == (200, 2)


async def test_foreman_hears_from_where_a_host_really_asks(well: Site) -> None:
    place = Place("127.0.0.1", well.cluster.ports["anaconda"])
    forged = {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66"}
    got = await asyncio.to_thread(
        ask, place, "GET", "/unattended/provision?token=x", source="127.0.1.77", headers=forged
    )
    assert got.status == 200
    (one,) = well.foreman.asked
    assert one.headers["x-forwarded-for"] == "127.0.1.77"
    assert one.headers["host"] == well.foreman.url.removeprefix("https://")
    assert one.client in well.cluster.names
    assert ("url", f"http://{ADDRESS}:{place.port}") in one.query
    assert "forwarded" not in one.headers


async def test_hosts_are_served_when_the_member_that_asks_is_killed(well: Site) -> None:
    well.foreman.may_answer.clear()
    with ThreadPoolExecutor(40) as threads:
        lost = threads.submit(well.register, "killed", member=1)
        await until(_true(lambda: well.asked() == 1), "the first member asks Foreman")
        asking = [threads.submit(well.register, "killed", n, member=2 + n % 2) for n in range(39)]
        await asyncio.sleep(0.5)
        os.kill(_pid(well.cluster, well.cluster.names[0]), signal.SIGKILL)
        well.foreman.may_answer.set()
        assert await asyncio.to_thread(found, asking) == {SCRIPT}
        with pytest.raises(OSError):
            lost.result()
    assert well.asked() == 2


async def test_hosts_are_served_while_the_store_is_away(well: Site) -> None:
    well.server.stop()
    try:
        with ThreadPoolExecutor(100) as threads:
            asking = [threads.submit(well.register, "away", n) for n in range(100)]
            assert await asyncio.to_thread(found, asking) == {SCRIPT}
        assert 1 <= well.asked() <= 3, "once a member"
    finally:
        well.server.start()


async def test_hosts_join_and_register_by_muster_bootstrap(
    well: Site, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    """Several at once, with Foreman's script: it is fetched once, run on each, and the token is nowhere afterwards."""
    needs("namespaces")
    # At either port: a cluster without the section content has the Smart Proxy's alone.
    ports = (well.https, well.cluster.ports["smartproxy"])
    well.foreman.script = b"#!/bin/sh\necho registered >>/etc/registered\n"
    well.foreman.may_answer.clear()

    def believed(host: JoiningHost) -> Iterator[Path]:
        return (host.root / "usr/local/share/ca-certificates").glob(f"muster-{ADDRESS}-*.crt")

    def join(host: JoiningHost, port: int) -> joining.Said:
        return host.join(
            "--server", f"{ADDRESS}:{port}", "--ca-file", well.cluster.pki / "ca.pem", "--register", "--organization=1",
            "--location=2", "--activationkey=web", MUSTER_TOKEN=TOKEN,
        )  # fmt: skip

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(HOSTS) as threads:
        hosts = [
            stack.enter_context(joining.running(tmp_path / f"host{n}", {ADDRESS: "127.0.0.1"})) for n in range(HOSTS)
        ]
        asking = [threads.submit(join, host, ports[n % 2]) for n, host in enumerate(hosts)]
        await until(_true(lambda: well.asked() == 1), "somebody asks Foreman")
        well.foreman.may_answer.set()
        for host, said in zip(hosts, [await asyncio.to_thread(f.result) for f in asking], strict=True):
            assert said.code == 0, said
            assert (host.root / "etc/registered").read_text() == "registered\n"
            assert len(list(believed(host))) == 1
            assert TOKEN not in said.text
        (one,) = well.foreman.asked
        assert one.headers["authorization"] == f"Bearer {TOKEN}"
        # Foreman writes it into the script: the address, never the member that asked.
        given = dict(one.query)
        assert given.pop("url") == f"https://{ADDRESS}:{well.cluster.ports['smartproxy']}"
        assert given == {"organization_id": "1", "location_id": "2", "activation_keys": "web"}
        assert {n for n in well.cluster.names if TOKEN in well.cluster.log(n)} == set()
        assert hosts[0].join("--undo").code == 0
        assert list(believed(hosts[0])) == []


def _true(question: Callable[[], bool]) -> Callable[[], Any]:
    async def asked() -> bool:
        return question()

    return asked
