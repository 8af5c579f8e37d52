"""Discovered machines tell their facts through a real HAProxy and two members; Foreman and the machines are stand-ins."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from muster.cli.local.plan import ADDRESS
from tests.servers import discovered, foreman_for_hosts
from tests.servers import local as clusters
from tests.servers.client import Answer, Connection, Place, request, tls_client
from tests.servers.discovered import FACTS, Machine
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.local import Local, until

pytestmark = pytest.mark.anyio

MACHINE = "127.0.0.93"
SENT = json.dumps({"facts": FACTS}).encode()
# Of each member, which is asked about as often as the other.
A_MINUTE = 3


@dataclass(frozen=True)
class Site:
    cluster: Local
    foreman: ForemanForHosts
    machine: Machine

    def tell(
        self, source: str, *, plain: bool = False, method: str = "POST", path: str = "/discovery/create",
        headers: Mapping[str, str] | None = None, body: bytes = SENT,
    ) -> Answer:  # fmt: skip
        """Call as the image does: without a certificate, from the machine's own address, through the balancer."""
        place = Place("127.0.0.1", self.cluster.ports["anaconda" if plain else "smartproxy"])
        tls, name = (None, None) if plain else (tls_client(self.cluster.pki / "ca.pem"), ADDRESS)
        sent = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
        with Connection(place, tls=tls, server_name=name, source=source, timeout_s=30) as connection:
            connection.send(request(method, path, sent, body))
            return connection.answer()


@pytest.fixture(scope="module")
def site(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs("haproxy")
    with (
        foreman_for_hosts.running(tmp_path_factory.mktemp("foreman")) as foreman,
        discovered.running(tmp_path_factory.mktemp("machine"), MACHINE) as machine,
        clusters.running(members=2) as cluster,
    ):
        foreman.believe(cluster.pki / "ca.pem")
        document: dict[str, Any] = yaml.safe_load(cluster.cluster_file.read_text())
        document["foreman"] |= {"url": foreman.url, "ca_file": str(foreman.ca_file)}
        document["features"]["discovery"] = {
            "enabled": True, "node_port": machine.place.port, "node_networks": [f"{MACHINE}/32"],
            "facts_per_minute": A_MINUTE,
        }  # fmt: skip
        cluster.cluster_file.write_text(yaml.safe_dump(document))
        for name in cluster.names:
            pid = cluster.pid_of(name)
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
        yield Site(cluster, foreman, machine)


@pytest.fixture
async def well(site: Site) -> Site:
    await until(lambda: site.cluster.serves("discovery"), "both members answer discovered machines and are up")
    site.foreman.asked.clear()
    site.machine.asked.clear()
    return site


@pytest.mark.parametrize("plain", [True, False], ids=["http", "https"])
async def test_a_machine_without_a_certificate_is_heard_through_the_balancer(well: Site, *, plain: bool) -> None:
    answer = well.tell(f"127.0.3.{1 + plain}", plain=plain, headers={"X-Forwarded-For": "192.0.2.66"})
    assert (answer.status, answer.body) == (201, b'{"id":7}')
    (one,) = well.foreman.asked
    assert (one.method, one.path, one.body) == ("POST", "/api/v2/discovered_hosts/facts", SENT)
    assert one.client in well.cluster.names
    assert not [name for name in one.headers if name.startswith(("x-", "forwarded"))]


@pytest.mark.parametrize("plain", [True, False], ids=["http", "https"])
async def test_who_comes_too_often_is_known_by_the_machine_s_address_and_by_no_header(
    well: Site, *, plain: bool
) -> None:
    """All reach members from the balancer's address: were it theirs, one machine would silence the others."""
    source, other = f"127.0.3.{11 + plain}", f"127.0.3.{21 + plain}"
    said = [
        well.tell(source, plain=plain, headers={"X-Forwarded-For": f"192.0.2.{n}", "Forwarded": f"for=192.0.2.{n}"})
        for n in range(4 * A_MINUTE)
    ]
    statuses = [a.status for a in said]
    assert statuses[0] == 201
    # Within the seconds of the test one or two more may be due at each member.
    assert statuses.count(429) >= 4 * A_MINUTE - 2 * A_MINUTE - 4
    assert set(statuses) == {201, 429}
    forged = {"X-Forwarded-For": source, "Forwarded": f"for={source}", "X-Real-IP": source}
    assert well.tell(other, plain=plain, headers=forged).status == 201


async def test_only_foreman_asks_machines_through_the_balancer(well: Site) -> None:
    path = f"/discovery/{MACHINE}/inventory/facter"
    for plain in (True, False):
        assert well.tell("127.0.3.31", plain=plain, method="GET", path=path, body=b"").status == 403
    assert not well.machine.asked
    answer = well.cluster.as_foreman("GET", path, {})
    assert (answer.status, json.loads(answer.body)) == (200, FACTS)
    assert well.cluster.as_foreman("PUT", f"/discovery/{MACHINE}/power/reboot", {}).status == 200
    assert [one.path for one in well.machine.asked] == ["/inventory/facter", "/power/reboot"]


async def test_facts_are_heard_while_a_member_is_away(well: Site) -> None:
    name = well.cluster.names[0]
    assert (await well.cluster.cli("drain", name)).code == 0
    try:
        for n in range(3):
            assert well.tell(f"127.0.3.{41 + n}").status == 201
    finally:
        assert (await well.cluster.cli("ready", name)).code == 0
