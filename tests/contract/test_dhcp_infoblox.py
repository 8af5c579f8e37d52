"""What provider ``infoblox`` asks and understands, of a stand-in made from documentation: no Infoblox is to be had.

The contract's questions are asked here, since that suite is for servers that are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from muster.edge import wapi
from muster.features.dhcp import checks
from muster.features.dhcp.contract import Lease, Reservation
from muster.features.dhcp.providers import infoblox
from muster.features.dhcp.providers.infoblox import InfobloxDHCP
from muster.features.dhcp.settings import DHCPSettings, InfobloxSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import MACAddress
from tests.servers import infoblox_stand_in
from tests.servers.infoblox_stand_in import PASSWORD, USERNAME, Grid

pytestmark = pytest.mark.anyio

NETWORK = IPv4Network("192.168.120.0/24")
STATIC = MACAddress.parse("00:11:22:33:44:01")
LEASED = MACAddress.parse("52:54:00:00:00:20")


@pytest.fixture
def grid() -> Iterator[Grid]:
    with infoblox_stand_in.running() as grid:
        routers = {"name": "routers", "num": 3, "use_option": True, "value": "192.168.120.1", "vendor_class": "DHCP"}
        unused = {"name": "domain-name", "num": 15, "use_option": False, "value": "no.example.com"}
        grid.add("network", network=str(NETWORK), options=[routers, unused])
        grid.add("network", network="192.168.122.0/30", options=[])
        grid.add("network", network="10.0.0.0/24", network_view="other", options=[])
        grid.add("range", network=str(NETWORK), start_addr="192.168.120.10", end_addr="192.168.120.100")
        grid.add("lease", address="192.168.120.20", hardware=str(LEASED), binding_state="ACTIVE", never_ends=True, starts=1,
                 network=str(NETWORK), client_hostname="guest")  # fmt: skip
        grid.add(
            "lease", address="192.168.120.21", hardware="52:54:00:00:00:21", binding_state="FREE", network=str(NETWORK)
        )
        yield grid


@asynccontextmanager
async def _member(grid: Grid, **change: Any) -> AsyncIterator[InfobloxDHCP]:
    given = {"url": grid.url, "username": USERNAME, "password": PASSWORD, "timeout_s": 2, **change}
    async with infoblox.opened(InfobloxSettings.model_validate(given)) as provider:
        yield provider


async def _fresh(provider: InfobloxDHCP, number: int, **change: Any) -> Reservation:
    subnet = (await provider.subnets())[0]
    name = f"host{number}.example.com"
    options = {"hostname": name, "filename": "grub2/grubx64.efi", "nextServer": "192.0.2.7"}
    mac = MACAddress.parse(f"52:54:00:bb:00:{number:02x}")
    return replace(Reservation(name, NETWORK[150 + number], mac, subnet, options), **change)


async def test_networks_of_the_view_are_told_with_what_they_send(grid: Grid) -> None:
    async with _member(grid) as provider:
        found = await provider.subnets()
    assert [(str(s.network), dict(s.options)) for s in found] == [
        (str(NETWORK), {"routers": ["192.168.120.1"], "range": ["192.168.120.10", "192.168.120.100"]}),
        ("192.168.122.0/30", {}),
    ]


@pytest.mark.parametrize("record_type", ["fixedaddress", "host"])
async def test_a_reservation_is_made_found_and_removed(grid: Grid, record_type: str) -> None:
    async with _member(grid, record_type=record_type) as provider:
        ones = [await _fresh(provider, number) for number in range(1, 6)]
        for one in ones:
            assert await provider.as_kept(one) == one
            await provider.add(one)
            await provider.add(one)
        one = ones[0]
        # Read in pages of two.
        records = await provider.records(one.subnet)
        assert [r.ip for r in records.reservations] == [o.ip for o in ones]
        held = await provider.of(one.subnet, one.mac)
        assert isinstance(held, Reservation)
        assert [held] == list(await provider.at(one.subnet, one.ip))
        assert (held.name, held.options["filename"], held.options["nextServer"], held.deletable) == (
            one.name, "grub2/grubx64.efi", "192.0.2.7", True,
        )  # fmt: skip
        assert set(await provider.taken(one.subnet, [one.ip, NETWORK[9]])) == {one.ip}
        await provider.remove(one)
        assert await provider.of(one.subnet, one.mac) is None
        assert not await provider.at(one.subnet, one.ip)
        assert not await provider.taken(one.subnet, [one.ip])
        with pytest.raises(NotFound):
            await provider.remove(one)
        # Each change was made to count, also one whose restart may have been lost.
        assert grid.restarts == 11


async def test_against_another_value_nothing_is_changed(grid: Grid) -> None:
    async with _member(grid) as provider:
        one, other = await _fresh(provider, 1), await _fresh(provider, 2)
        await provider.add(one)
        odd = replace(one, options={**one.options, "filename": "other.0"})
        for second in (replace(other, ip=one.ip), replace(other, mac=one.mac), odd):
            with pytest.raises(Conflict):
                await provider.add(second)
        await provider.add(replace(other, ip=one.ip), related=[one.mac])
        assert len(grid.objects["fixedaddress"]) == 2


async def test_what_others_made_is_seen_and_only_what_is_ours_to_remove_goes(grid: Grid) -> None:
    grid.add("record:host", name="static.example.com", ipv4addrs=[{"ipv4addr": "192.168.120.150", "mac": str(STATIC)}])
    two = [{"ipv4addr": f"192.168.120.{n}", "mac": f"00:11:22:33:44:{n}"} for n in (51, 52)]
    grid.add("record:host", name="two.example.com", ipv4addrs=two)
    grid.add("fixedaddress", ipv4addr="192.168.120.60", match_client="RESERVED", mac="", name="kept")
    async with _member(grid) as provider:
        subnet = (await provider.subnets())[0]
        static, leased = await provider.of(subnet, STATIC), await provider.of(subnet, LEASED)
        assert isinstance(static, Reservation)
        assert (static.name, static.deletable) == ("static.example.com", False)
        assert isinstance(leased, Lease)
        assert (str(leased.ip), leased.state, f"{leased.ends:%Y}", leased.options["client_hostname"]) == (
            "192.168.120.20", "active", "2038", "guest",
        )  # fmt: skip
        with pytest.raises(Rejected, match="is static"):
            await provider.remove(static)
        among = [NETWORK[n] for n in (0, 20, 21, 60, 61, 150)]
        assert set(await provider.taken(subnet, among)) == {among[0], among[1], among[3], among[5]}
    async with _member(grid, record_type="host") as provider:
        one = await provider.of(subnet, MACAddress.parse("00:11:22:33:44:51"))
        assert isinstance(one, Reservation)
        with pytest.raises(Rejected, match="one of several addresses"):
            await provider.remove(one)
        # Infoblox itself has one record of a name.
        with pytest.raises(Conflict, match="already exists"):
            await provider.add(await _fresh(provider, 1, name="two.example.com"))


async def test_nothing_is_offered_that_nobody_keeps(grid: Grid) -> None:
    async with _member(grid) as provider:
        subnet = (await provider.subnets())[0]
        with pytest.raises(Unsupported):
            await provider.offered(subnet, NETWORK[1], NETWORK[9])
        odd = await _fresh(provider, 1, mac=MACAddress.parse(":".join(f"{n:02x}" for n in range(20))))
        with pytest.raises(Rejected, match="6 octets"):
            await provider.as_kept(odd)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b"{}", Unavailable),
        (503, b"<html>", Unavailable),
        (200, b"<html>", Unavailable),
        (200, b'{"result": 1}', Unavailable),
        (200, b'{"result": [1]}', Unavailable),
        (200, b"[" * 100_000, Unavailable),
        (302, b"{}", Unavailable),
        (200, b" " * (17 << 20), Unavailable),
        (401, b"", Misconfigured),
        (403, b"{}", Misconfigured),
        (400, b'{"text": "Unknown object type", "code": "Client.Ibap.Proto"}', Rejected),
    ],
)
async def test_what_is_no_answer_is_a_named_failure(
    grid: Grid, status: int, body: bytes, error: type[Exception]
) -> None:
    async with _member(grid) as provider:
        one = await _fresh(provider, 1)
        grid.broken = (status, body)
        for call in (provider.reached(), provider.subnets(), provider.of(one.subnet, one.mac), provider.add(one)):
            with pytest.raises(error) as found:
                await call
            assert PASSWORD not in str(found.value)


async def test_a_list_without_an_end_is_let_go(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wapi, "_MOST_PAGES", 5)
    async with _member(grid) as provider:
        grid.broken = (200, b'{"result": [], "next_page_id": "again"}')
        with pytest.raises(Unavailable, match="has more than"):
            await provider.subnets()


async def test_a_grid_that_is_slow_or_gone_is_unavailable(grid: Grid) -> None:
    async with _member(grid, timeout_s=0.3) as provider:
        grid.slow_s = 1.0
        with pytest.raises(Unavailable, match="no answer in time"):
            await provider.reached()
        grid.slow_s = 0.0
        await provider.reached()
    async with _member(grid, url="http://127.0.0.1:1") as provider:
        with pytest.raises(Unavailable):
            await provider.reached()


async def test_a_change_that_does_not_count_yet_is_no_success(grid: Grid) -> None:
    async with _member(grid) as provider:
        one = await _fresh(provider, 1)
        made = asyncio.Event()
        create = provider._grid.create

        async def then_broken(kind: str, content: Any) -> str:
            done = await create(kind, content)
            grid.broken = (503, b"{}")
            made.set()
            return done

        provider._grid.create = then_broken  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="does not count yet"):
            await provider.add(one)
        assert made.is_set()
        grid.broken = None
        await provider.add(one)
        assert (grid.restarts, len(grid.objects["fixedaddress"])) == (1, 1)


async def test_a_password_may_stand_in_a_file_and_nowhere_else(grid: Grid, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\nmore\n")
    async with _member(grid, password=None, password_file=str(file)) as provider:
        await provider.reached()
    for odd in ("\n", ""):
        file.write_text(odd)
        with pytest.raises(Misconfigured, match="no password"):
            async with _member(grid, password=None, password_file=str(file)):
                pass
    assert PASSWORD not in repr(
        InfobloxSettings.model_validate({"url": grid.url, "username": "a", "password": PASSWORD})
    )


async def test_the_doctor_says_that_it_is_unproven_and_what_is_wrong(grid: Grid, tmp_path: Path) -> None:
    async def found(*subnets: str, **change: Any) -> dict[str, str]:
        settings = {"url": grid.url, "username": USERNAME, "password": PASSWORD, "timeout_s": 1, **change}
        given = {"use_provider": "dhcp_infoblox", "infoblox": settings, "subnets": subnets, "ping_free_ip": False}
        asked = checks.checks(DHCPSettings.model_validate(given), lambda: None)
        return {f.code: f.sentence for check in asked for f in await check.run()}

    assert list(await found(str(NETWORK))) == ["DHCP-UNPROVEN"]
    assert "10.0.0.0/8" in (await found("10.0.0.0/8"))["DHCP-SUBNET-UNKNOWN"]
    assert "refused" in (await found(password="wrong"))["DHCP-KEY"]
    assert "Reading the CA" in (await found(ca=str(tmp_path / "no")))["DHCP-KEY"]
    assert "DHCP-DOWN" in await found(url="http://127.0.0.1:1")


async def test_an_address_that_is_asked_for_is_the_one_that_is_told(grid: Grid) -> None:
    async with _member(grid) as provider:
        one = await _fresh(provider, 1)
        await provider.add(one)
        queries = [query for method, kind, query in grid.asked if (method, kind) == ("GET", "fixedaddress")]
        assert all("network_view" in q or "_page_id" in q for q in queries)
        assert await provider.at(one.subnet, IPv4Address("192.168.120.3")) == []
