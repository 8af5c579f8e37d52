"""Reservations through a real HAProxy and three members into one real dhcpd; members and dhcpd come and go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.servers import dhcpd, postgresql
from tests.servers import local as clusters
from tests.servers.client import Answer
from tests.servers.dhcpd import DHCPServer
from tests.servers.local import Local, until

pytestmark = pytest.mark.anyio

NET = "192.168.120.0"
CONF = f"subnet {NET} netmask 255.255.255.0 {{ range 192.168.120.10 192.168.120.50; option routers 192.168.120.1; }}"


@dataclass(frozen=True)
class Site:
    cluster: Local
    server: DHCPServer

    def ask(self, method: str, path: str, *, member: int | None = None, **form: str) -> Answer:
        """Call as Foreman does: through the balancer, or one member."""
        return self.cluster.as_foreman(method, path, form, member=member, timeout_s=40)

    def reserve(self, number: int, ip: str, *, member: int | None = None) -> int:
        """Make a reservation for the machine of that number; return the status."""
        mac, name = f"52:54:00:dd:00:{number:02x}", f"host{number}.example.com"
        return self.ask(
            "POST", f"/dhcp/{NET}", member=member, name=name, hostname=name, mac=mac, ip=ip, nextServer="192.168.120.1",
            filename="grub2/grubx64.efi",
        ).status  # fmt: skip

    def seen(self, number: int, *, member: int) -> str | None:
        """Return the address that a member sees of the machine of that number."""
        answer = self.ask("GET", f"/dhcp/{NET}/mac/52:54:00:dd:00:{number:02x}", member=member)
        return str(json.loads(answer.body)["ip"]) if answer.status == 200 else None


@pytest.fixture(scope="module")
def site(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for need in ("haproxy", "postgresql", "dhcpd", "namespaces"):
        needs(need)
    with (
        dhcpd.running(tmp_path_factory.mktemp("dhcpd"), conf=CONF) as server,
        postgresql.running() as database,
        clusters.running(store_url=database.fresh_database()) as cluster,
    ):
        document: dict[str, Any] = yaml.safe_load(cluster.cluster_file.read_text())
        document["features"]["dhcp"] = {
            "isc": {**server.settings, "timeout_s": 3}, "subnets": [f"{NET}/24"], "ping_free_ip": False,
        }  # fmt: skip
        cluster.cluster_file.write_text(yaml.safe_dump(document))
        for name in cluster.names:
            pid = cluster.pid_of(name)
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
        yield Site(cluster, server)


@pytest.fixture
async def well(site: Site) -> Site:
    await until(lambda: site.cluster.serves("dhcp"), "every member is ready and has the feature")
    return site


async def test_what_one_member_made_every_other_sees_at_once(well: Site) -> None:
    def made() -> None:
        for n in range(12):
            ip = f"192.168.120.{100 + n}"
            assert well.reserve(n, ip, member=n % 3) == 200
            assert [well.seen(n, member=m) for m in range(3)] == [ip] * 3
            # The same again, of another member.
            assert well.reserve(n, ip, member=(n + 1) % 3) == 200
            assert well.reserve(n, f"192.168.120.{200 + n}", member=(n + 2) % 3) == 409

    await asyncio.to_thread(made)
    assert "supersede server.next-server = c0:a8:78:01;" in (well.server.host_in_leases("host0.example.com") or "")


async def test_of_three_members_that_reserve_one_address_at_once_one_does(well: Site) -> None:
    def raced() -> None:
        with ThreadPoolExecutor(9) as threads:
            for n in range(6):
                ip = f"192.168.120.{130 + n}"
                numbers = [40 + 9 * n + k for k in range(9)]
                asked = [threads.submit(well.reserve, k, ip, member=k % 3) for k in numbers]
                assert sorted(a.result() for a in asked) == [200, *[409] * 8]
                found = json.loads(well.ask("GET", f"/dhcp/{NET}/ip/{ip}").body)
                assert len([r for r in found if r["type"] == "reservation"]) == 1

    await asyncio.to_thread(raced)


async def test_without_dhcpd_members_tell_what_there_is_and_go_on_when_it_is_back(well: Site) -> None:
    assert await asyncio.to_thread(well.reserve, 20, "192.168.120.120") == 200
    well.server.stop()
    try:
        assert await asyncio.to_thread(well.reserve, 21, "192.168.120.121") == 503
        assert await asyncio.to_thread(well.seen, 20, member=1) == "192.168.120.120"
        told = await asyncio.to_thread(well.ask, "GET", f"/dhcp/{NET}/unused_ip", member=2)
        assert told.status == 200
    finally:
        well.server.start()
    # What was asked for in vain is asked for again, of whatever member.
    assert await asyncio.to_thread(well.reserve, 21, "192.168.120.121") == 200
    deleted = await asyncio.to_thread(well.ask, "DELETE", f"/dhcp/{NET}/ip/192.168.120.121")
    assert deleted.status == 200
    assert [await asyncio.to_thread(well.seen, 21, member=m) for m in range(3)] == [None] * 3


async def test_a_member_that_is_killed_takes_no_reservation_with_it(well: Site) -> None:
    pid = well.cluster.pid_of(well.cluster.names[0])
    assert pid is not None
    with ThreadPoolExecutor(4) as threads:
        asked = {n: threads.submit(_status, well, n) for n in range(150, 190)}
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        statuses = {n: await asyncio.wrap_future(future) for n, future in asked.items()}
    acknowledged = [n for n, status in statuses.items() if status == 200]
    assert len(acknowledged) > 20
    for n in acknowledged:
        assert await asyncio.to_thread(well.seen, n, member=1) == f"192.168.120.{n}"


def _status(site: Site, number: int) -> int:
    try:
        return site.reserve(number, f"192.168.120.{number}")
    except (OSError, ValueError):
        return 0
