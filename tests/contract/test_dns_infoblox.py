"""What only a grid of Infoblox has, of a stand-in: host records beside DNS' own, an account, views."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from muster.features.dns import checks
from muster.features.dns.contract import Record, RecordType
from muster.features.dns.providers import infoblox
from muster.features.dns.providers.infoblox import InfobloxDNS
from muster.features.dns.settings import DNSSettings, InfobloxSettings
from muster.kernel.errors import Conflict, Misconfigured, Rejected, Unavailable
from muster.kernel.names import FQDN
from tests.servers import infoblox_stand_in
from tests.servers.infoblox_stand_in import PASSWORD, USERNAME, Grid

pytestmark = pytest.mark.anyio


@pytest.fixture
def grid() -> Iterator[Grid]:
    with infoblox_stand_in.running() as grid:
        grid.add("zone_auth", fqdn="example.com")
        yield grid


def given(grid: Grid, **change: Any) -> dict[str, Any]:
    return {"url": grid.url, "username": USERNAME, "password": PASSWORD, "timeout_s": 5, **change}


@asynccontextmanager
async def opened(grid: Grid, **change: Any) -> AsyncIterator[InfobloxDNS]:
    async with infoblox.opened(InfobloxSettings.model_validate(given(grid, **change)), 300, None) as provider:
        yield provider


def a(name: str, address: str = "192.0.2.10") -> Record:
    return Record(FQDN.parse(name), RecordType.A, ip_address(address))


async def codes(grid: Grid, **change: Any) -> list[str]:
    """Return what the doctor calls it."""
    settings = DNSSettings.model_validate({"provider": "infoblox", "infoblox": given(grid, **change)})
    return [f.code for check in checks.checks(settings, (), lambda: None) for f in await check.run()]


async def test_a_record_is_made_in_the_view_with_its_time_to_live(grid: Grid) -> None:
    grid.add("view", name="inside")
    async with opened(grid, dns_view="inside") as dns:
        await dns.add(a("Web.example.com"))
    (made,) = grid.objects["record:a"]
    assert {k: v for k, v in made.items() if k != "_ref"} == {
        "name": "web.example.com", "view": "inside", "ttl": 300, "use_ttl": True, "ipv4addr": "192.0.2.10",
    }  # fmt: skip


async def test_another_view_is_not_looked_at(grid: Grid) -> None:
    grid.add("record:a", name="web.example.com", view="outside", ipv4addr="198.51.100.1")
    async with opened(grid) as dns:
        await dns.add(a("web.example.com"))
        await dns.remove(FQDN.parse("web.example.com"), RecordType.A)
    assert [one["view"] for one in grid.objects["record:a"]] == ["outside"]


async def test_an_address_of_a_host_record_is_there_and_stays(grid: Grid) -> None:
    grid.add("record:host", name="web.example.com", view="default", ipv4addrs=[{"ipv4addr": "192.0.2.10"}])
    web = FQDN.parse("web.example.com")
    async with opened(grid) as dns:
        await dns.add(a("web.example.com"))
        assert grid.objects.get("record:a", []) == []
        assert await dns.lookup(web, RecordType.A) == {ip_address("192.0.2.10")}
        with pytest.raises(Conflict, match=r"holds A 192\.0\.2\.10"):
            await dns.add(a("web.example.com", "192.0.2.11"))
        with pytest.raises(Conflict, match="a CNAME stands alone"):
            await dns.add(Record(web, RecordType.CNAME, FQDN.parse("other.example.com")))
        with pytest.raises(Rejected, match=r"from a host record of .* it stays"):
            await dns.remove(web, RecordType.A)


async def test_a_host_record_for_dhcp_alone_is_none_of_dns(grid: Grid) -> None:
    addresses = [{"ipv4addr": "192.0.2.10"}]
    grid.add("record:host", name="web.example.com", view="default", configure_for_dns=False, ipv4addrs=addresses)
    async with opened(grid) as dns:
        await dns.add(a("web.example.com", "192.0.2.11"))
        assert await dns.lookup(FQDN.parse("web.example.com"), RecordType.A) == {ip_address("192.0.2.11")}


async def test_what_others_added_is_there_already(grid: Grid) -> None:
    async with opened(grid) as dns:
        grid.add("record:a", name="web.example.com", ipv4addr="192.0.2.10", view="default", ttl=300, use_ttl=True)
        await dns.add(a("web.example.com"))
    assert len(grid.objects["record:a"]) == 1


async def test_a_password_it_refuses_is_said_and_not_shown(grid: Grid) -> None:
    async with opened(grid, password="hunter2hunter2") as dns:
        with pytest.raises(Misconfigured, match="the name or the password is refused") as caught:
            await dns.reached()
    assert "hunter2" not in f"{caught.value} {caught.value!r}"
    assert await codes(grid, password="hunter2hunter2") == ["DNS-UNPROVEN", "DNS-API-KEY"]


async def test_the_doctor_says_that_it_is_unproven_and_what_is_wrong(grid: Grid) -> None:
    assert await codes(grid) == ["DNS-UNPROVEN"]
    assert await codes(grid, dns_view="nowhere") == ["DNS-UNPROVEN", "DNS-DOWN"]
    grid.broken = (200, b'{"result": [3]}')
    async with opened(grid) as dns:
        with pytest.raises(Unavailable, match="answered no list"):
            await dns.add(a("web.example.com"))


async def test_where_no_grid_is_nothing_is_taken_for_gone(grid: Grid) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"error": "none"}')
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening, opened(grid, url=f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as dns:
        with pytest.raises(Unavailable, match="is a grid there"):
            await dns.remove(FQDN.parse("web.example.com"), RecordType.A)
