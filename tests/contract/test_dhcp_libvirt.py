"""What provider ``libvirt`` promises beyond the contract, on the real libvirtd, by machines on its network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from muster.features.dhcp import checks
from muster.features.dhcp.contract import Lease, Reservation
from muster.features.dhcp.providers import libvirt
from muster.features.dhcp.providers.libvirt import LibvirtDHCP
from muster.features.dhcp.settings import DHCPSettings, LibvirtSettings
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.names import MACAddress
from tests.servers import libvirtd
from tests.servers.libvirtd import Libvirtd
from tests.servers.machines import Told

pytestmark = pytest.mark.anyio

NETWORK = IPv4Network("192.168.120.0/24")
DEFINITION = """
<network>
  <name>muster</name>
  <bridge name='virbr9' stp='off' delay='0'/>
  <domain name='example.com'/>
  <dns enable='no'/>
  <ip address='192.168.120.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.120.10' end='192.168.120.100'/><bootp file='network.0' server='192.0.2.9'/></dhcp>
  </ip>
</network>
"""


@pytest.fixture(scope="module")
def server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    needs("libvirtd")
    needs("namespaces")
    with libvirtd.running(tmp_path_factory.mktemp("libvirtd"), DEFINITION) as it:
        yield it


def _member(server: Libvirtd, **change: Any) -> Any:
    return libvirt.opened(LibvirtSettings.model_validate({**server.settings, **change}))


async def _fresh(provider: LibvirtDHCP, number: int) -> Reservation:
    (subnet,) = await provider.subnets()
    name = f"host{number}.example.com"
    mac = MACAddress.parse(f"52:54:00:bb:00:{number:02x}")
    return Reservation(name, NETWORK[150 + number], mac, subnet, {"hostname": name})


def _soon(server: Libvirtd, one: Reservation, *, is_its: bool = True) -> Told | None:
    """Return what the machine is offered once that is, or is not, what is reserved: libvirt signals its dnsmasq."""
    limit = time.monotonic() + 5
    while True:
        told = server.asked(one.mac)
        if (told is not None and (told.ip == one.ip) == is_its) or time.monotonic() > limit:
            return told
        time.sleep(0.1)


async def test_a_machine_is_given_what_is_reserved_for_it_until_that_is_removed(server: Libvirtd) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        boots = replace(one, options={**one.options, "filename": "a.0", "nextServer": "192.0.2.7"})
        # The network's own boot loader is all there is.
        assert await provider.as_kept(boots) == one
        await provider.add(one)
        told = _soon(server, one)
        assert told is not None
        assert (told.ip, told.filename, str(told.next_server)) == (one.ip, "network.0", "192.0.2.9")
        # It is in force, and kept.
        assert str(one.mac) in server.virsh("net-dumpxml", libvirtd.NETWORK, "--inactive").stdout
        await provider.remove(one)
        told = _soon(server, one, is_its=False)
        assert told is not None
        assert told.ip != one.ip
        assert str(one.mac) not in server.virsh("net-dumpxml", libvirtd.NETWORK, "--inactive").stdout


async def test_a_real_lease_is_seen_until_it_ends(server: Libvirtd) -> None:
    async with _member(server) as provider:
        (subnet,) = await provider.subnets()
        mac = MACAddress.parse("52:54:00:dd:00:01")
        # A machine that hears nothing asks again.
        told = next((t for _ in range(3) if (t := server.asked(mac, takes=True)) is not None), None)
        assert told is not None
        leased = await provider.of(subnet, mac)
        assert isinstance(leased, Lease)
        assert leased.ip == told.ip
        assert 3500 < leased.ends.timestamp() - time.time() < 3700
        assert set(await provider.taken(subnet, [told.ip, NETWORK[1], NETWORK[99]])) == {told.ip, NETWORK[1]}


async def test_of_two_members_that_want_one_address_one_gets_it(server: Libvirtd) -> None:
    async with _member(server) as first, _member(server) as second:
        one = await _fresh(first, 20)
        other = replace(await _fresh(second, 21), ip=one.ip)
        done = await asyncio.gather(first.add(one), second.add(other), return_exceptions=True)
        assert sorted(type(d).__name__ for d in done) == ["Conflict", "NoneType"], done
        assert len(await first.at(one.subnet, one.ip)) == 1
        same = await _fresh(first, 22)
        await asyncio.gather(first.add(same), second.add(same))
        assert len(await first.at(same.subnet, same.ip)) == 1


async def test_what_is_wrong_with_libvirt_is_named(server: Libvirtd) -> None:
    async def found(**change: Any) -> str:
        given = {"provider": "libvirt", "libvirt": {**server.settings, **change}, "ping_free_ip": False}
        asked = checks.checks(DHCPSettings.model_validate(given), lambda: None)
        return "\n".join([f"{f.code} {f.sentence}" for check in asked for f in await check.run()])

    assert await found() == ""
    assert "Network not found" in await found(network="nowhere")
    assert "Failed to connect socket" in await found(url="qemu:///system?socket=/nowhere")
    with pytest.raises(Misconfigured, match="Network not found"):
        async with _member(server, network="nowhere"):
            pass
    server.virsh("net-destroy", libvirtd.NETWORK)
    try:
        async with _member(server) as provider:
            for call in (provider.reached(), provider.add(await _fresh(provider, 30))):
                with pytest.raises(Unavailable, match=r"not (?:active|running)"):
                    await call
    finally:
        server.virsh("net-start", libvirtd.NETWORK)


async def test_no_virsh_is_named(server: Libvirtd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="virsh"):
        async with _member(server):
            pass
