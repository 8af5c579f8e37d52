"""What provider ``dnsmasq`` promises beyond the contract, asked of the real dnsmasq by machines that want an address."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from muster.features.dhcp import checks
from muster.features.dhcp.contract import Lease, Reservation
from muster.features.dhcp.dnsmasq import held
from muster.features.dhcp.providers import dnsmasq as provider_of_dnsmasq
from muster.features.dhcp.providers.dnsmasq import DnsmasqDHCP
from muster.features.dhcp.settings import DHCPSettings, DnsmasqSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.names import MACAddress
from tests.servers import dnsmasq
from tests.servers.dnsmasq import Dnsmasq

pytestmark = pytest.mark.anyio

NETWORK = IPv4Network(f"{dnsmasq.NETWORK}.0/24")
POOL = range(100, 111)
# What reads its files drops its rights, as in every distribution.
ACCOUNT = "nobody"


@pytest.fixture
def server(needs: Callable[[str], None]) -> Iterator[Dnsmasq]:
    needs("dnsmasq")
    needs("namespaces")
    # Not in pytest's directory, which every other run of pytest closes to all accounts but one.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with dnsmasq.running(directory, user=ACCOUNT, conf="dhcp-boot=tag:!muster,global.0,here,192.0.2.9") as it:
            yield it


@asynccontextmanager
async def _member(server: Dnsmasq, **settings: Any) -> AsyncIterator[DnsmasqDHCP]:
    given = {**server.settings, "timeout_s": 3, **settings}
    async with provider_of_dnsmasq.opened(DnsmasqSettings.model_validate(given)) as provider:
        yield provider


async def _restarted(server: Dnsmasq) -> None:
    """Return when its unit has started it anew."""
    limit = time.monotonic() + 10
    while server.restarts == 0 and time.monotonic() < limit:
        await asyncio.sleep(0.05)
    assert server.restarts


async def _fresh(provider: DnsmasqDHCP, number: int, **change: Any) -> Reservation:
    (subnet,) = await provider.subnets()
    name = f"host{number}.example.com"
    options = {"hostname": name, "filename": "grub2/grubx64.efi", "nextServer": "192.0.2.7"}
    mac = MACAddress.parse(f"52:54:00:bb:00:{number:02x}")
    return replace(Reservation(name, NETWORK[150 + number], mac, subnet, options), **change)


async def test_a_machine_is_given_what_is_reserved_for_it_and_told_where_to_boot_from(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        await provider.add(one)
        told = server.asked(one.mac)
    assert told is not None
    assert (told.ip, str(told.next_server), told.filename) == (one.ip, "192.0.2.7", "grub2/grubx64.efi")
    assert told.hostname == "host1"
    # Nothing was started anew for it.
    assert server.restarts == 0
    stranger = server.asked("52:54:00:00:00:99")
    assert stranger is not None
    assert (str(stranger.next_server), stranger.filename) == ("192.0.2.9", "global.0")


@pytest.mark.parametrize(
    "filename",
    ["10", "192.0.2.1", "ab:cd:ef", "a b", "it's", "tag:muster", "option:x", "http://h/x?mac=$net0&a=(b);c", "%s", "*", "-",
     "12h", "0x0a", "x" * 127],
)  # fmt: skip
async def test_a_boot_loader_is_told_whole_whatever_it_looks_like(server: Dnsmasq, filename: str) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        one = replace(one, options={**one.options, "filename": filename})
        assert await provider.as_kept(one) == one
        await provider.add(one)
        told = server.asked(one.mac)
    assert told is not None
    assert told.filename == filename


async def test_what_was_removed_is_forgotten_when_that_is_acknowledged(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one, other = await _fresh(provider, 1), await _fresh(provider, 2)
        await provider.add(one)
        await provider.remove(one)
        told = server.asked(one.mac)
        assert told is not None
        assert (int(told.ip.packed[3]) in POOL, told.filename) == (True, "global.0")
        again = replace(other, ip=one.ip, options={**other.options, "filename": "other.0"})
        await provider.add(again)
        told = server.asked(again.mac)
        assert told is not None
        assert (told.ip, told.filename) == (one.ip, "other.0")
        with pytest.raises(NotFound):
            await provider.remove(one)
    assert [p.name for p in server.options.iterdir()] == [str(one.ip)]


async def test_a_dnsmasq_that_was_killed_comes_back_with_everything(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        await provider.add(one)
        server.stop(signal.SIGKILL)
        with pytest.raises(Unavailable, match="dnsmasq is not there"):
            await provider.reached()
        with pytest.raises(Unavailable):
            await provider.add(await _fresh(provider, 2))
        assert await provider.of(one.subnet, one.mac) is not None
        server.start()
        await provider.reached()
        told = server.asked(one.mac)
        assert told is not None
        assert (told.ip, told.filename) == (one.ip, "grub2/grubx64.efi")
        # What was refused left nothing behind.
        assert await provider.of(one.subnet, (await _fresh(provider, 2)).mac) is None


async def test_of_two_members_that_want_one_address_one_gets_it(server: Dnsmasq) -> None:
    async with _member(server) as first, _member(server) as second:
        for number in range(1, 6):
            one = await _fresh(first, number)
            other = replace(await _fresh(second, number + 50), ip=one.ip)
            done = await asyncio.gather(first.add(one), second.add(other), return_exceptions=True)
            assert sorted(type(d).__name__ for d in done) == ["Conflict", "NoneType"], done
            winner = one if done[0] is None else other
            for member in (first, second):
                assert [r.mac for r in await member.at(one.subnet, one.ip)] == [winner.mac]
            told = server.asked(winner.mac)
            assert told is not None
            assert told.ip == one.ip


async def test_many_of_two_members_are_all_served(server: Dnsmasq) -> None:
    async with _member(server) as first, _member(server) as second:
        ones = [await _fresh(first, number) for number in range(1, 31)]
        await asyncio.gather(*((first if n % 2 else second).add(one) for n, one in enumerate(ones)))
        records = await first.records(ones[0].subnet)
        assert {r.ip for r in records.reservations} == {one.ip for one in ones}
        for one in ones[::7]:
            told = server.asked(one.mac)
            assert told is not None
            assert told.ip == one.ip
    assert b"duplicate" not in server.log.read_bytes()


async def test_what_a_hung_dnsmasq_has_not_read_is_no_success_and_may_be_asked_again(server: Dnsmasq) -> None:
    async with _member(server, timeout_s=0.5) as provider:
        one = await _fresh(provider, 1)
        with server.hung(), pytest.raises(Unavailable, match="has not read"):
            await provider.add(one)
        await provider.add(one)
        told = server.asked(one.mac)
    assert told is not None
    assert told.ip == one.ip


async def test_a_removal_that_nobody_reloads_dnsmasq_for_is_no_success(server: Dnsmasq) -> None:
    async with _member(server, timeout_s=1) as provider:
        one = await _fresh(provider, 1)
        await provider.add(one)
        with server.without_its_unit():
            with pytest.raises(Unavailable, match="does a unit of this host start it anew"):
                await provider.remove(one)
            # dnsmasq has it still, so it is told as long, and its address is nobody else's.
            told, held_still = server.asked(one.mac), await provider.of(one.subnet, one.mac)
            assert told is not None
            assert told.ip == one.ip
            assert isinstance(held_still, Reservation)
            assert held_still.options["filename"] == "grub2/grubx64.efi"
            with pytest.raises(Conflict):
                await provider.add(replace(await _fresh(provider, 2), ip=one.ip))
            # Wanted again, it stays, also when dnsmasq starts anew.
            await provider.add(one)
        # The unit does now what it was asked.
        await _restarted(server)
        told = server.asked(one.mac)
        assert told is not None
        assert told.ip == one.ip
        await provider.remove(one)
        assert await provider.of(one.subnet, one.mac) is None


async def test_a_request_that_the_unit_missed_is_made_again(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        await provider.add(one)
        server.misses = 1
        await provider.remove(one)
        assert server.misses == 0
        await _restarted(server)


async def test_ports_of_one_bond_are_all_given_its_address_and_go_one_by_one(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one, other = await _fresh(provider, 1), await _fresh(provider, 2)
        other = replace(other, ip=one.ip)
        await provider.add(one)
        odd = replace(other, options={**other.options, "filename": "other.0"})
        with pytest.raises(Conflict):
            await provider.add(odd, related=[one.mac])
        await provider.add(other, related=[one.mac])
        await provider.add(other, related=[one.mac])
        # Both names and host names are told as they were given.
        found = await provider.at(one.subnet, one.ip)
        assert [(r.name, r.options["hostname"]) for r in found] == [
            (r.name, r.options["hostname"]) for r in (one, other)
        ]
        for port in (one, other):
            told = server.asked(port.mac)
            assert told is not None
            assert (told.ip, told.filename) == (one.ip, "grub2/grubx64.efi")
        await provider.remove(one)
        told = server.asked(other.mac)
        assert told is not None
        assert (told.ip, told.hostname) == (one.ip, "host2")
        assert await provider.of(one.subnet, one.mac) is None
        gone = server.asked(one.mac)
        assert gone is not None
        assert gone.ip != one.ip


async def test_a_port_of_a_bond_is_told_as_long_as_dnsmasq_has_it(server: Dnsmasq) -> None:
    async with _member(server, timeout_s=1) as provider:
        one, other = await _fresh(provider, 1), await _fresh(provider, 2)
        other = replace(other, ip=one.ip)
        await provider.add(one)
        with server.without_its_unit():
            with pytest.raises(Unavailable):
                await provider.add(other, related=[one.mac])
            # Again it is no success either: dnsmasq has the line as it was.
            with pytest.raises(Unavailable):
                await provider.add(other, related=[one.mac])
        await provider.add(other, related=[one.mac])
        told = server.asked(other.mac)
        assert told is not None
        assert told.ip == one.ip
        with server.without_its_unit():
            with pytest.raises(Unavailable):
                await provider.remove(one)
            assert {r.mac for r in await provider.at(one.subnet, one.ip)} == {one.mac, other.mac}
        await provider.remove(one)
        assert [r.mac for r in await provider.at(one.subnet, one.ip)] == [other.mac]
        assert [p.name for p in server.hosts.iterdir() if p.name != held.SENTINEL] == [str(one.ip)]
        gone = server.asked(one.mac)
        assert gone is not None
        assert gone.ip != one.ip


async def test_what_others_wrote_for_dnsmasq_is_seen_and_stays(server: Dnsmasq) -> None:
    written = {
        server.hosts / "52_54_00_cc_00_01.conf": f"52:54:00:cc:00:01,set:bf_1,{NETWORK[180]},ruby.example.com\n",
        server.options
        / "dhcpopts.conf": "tag:bf_1,option:bootfile-name,pxelinux.0\ntag:bf_1,option:tftp-server,192.0.2.5\n",
        server.hosts / "by-hand": f"id:01:aa:bb,{NETWORK[181]}\n# nothing\n52:54:00:cc:00:*,{NETWORK[182]},any\n",
    }
    for path, text in written.items():
        path.write_text(text)
    async with _member(server) as provider:
        (subnet,) = await provider.subnets()
        ruby = await provider.of(subnet, MACAddress.parse("52:54:00:cc:00:01"))
        assert isinstance(ruby, Reservation)
        assert (ruby.name, ruby.ip, ruby.deletable) == ("ruby.example.com", NETWORK[180], False)
        assert (ruby.options["filename"], ruby.options["nextServer"]) == ("pxelinux.0", "192.0.2.5")
        with pytest.raises(Rejected, match="is static - unable to delete"):
            await provider.remove(ruby)
        among = [NETWORK[n] for n in (180, 181, 182, 183)]
        assert set(await provider.taken(subnet, among)) == set(among[:3])
        for ip in among[:3]:
            with pytest.raises(Conflict):
                await provider.add(await _fresh(provider, 1, ip=ip))
        # Edited in its place, as editors may, it is seen as well.
        path = server.hosts / "by-hand"
        path.write_text(f"52:54:00:cc:00:09,{NETWORK[183]},other\n")
        await asyncio.sleep(1.1)
        assert set(await provider.taken(subnet, among)) == {NETWORK[180], NETWORK[183]}


async def test_a_real_lease_is_seen_until_it_ends(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        (subnet,) = await provider.subnets()
        mac = MACAddress.parse("52:54:00:dd:00:01")
        told = server.asked(mac, takes=True)
        assert told is not None
        leased = await provider.of(subnet, mac)
        assert isinstance(leased, Lease)
        assert (leased.ip, leased.state) == (told.ip, "active")
        assert 3500 < leased.ends.timestamp() - time.time() < 3700
        assert set(await provider.taken(subnet, [told.ip])) == {told.ip}
        # A machine that has taken what is reserved for it is told of once.
        one = await _fresh(provider, 1)
        await provider.add(one)
        taken = server.asked(one.mac, takes=True)
        assert taken is not None
        assert taken.ip == one.ip
        assert str(one.ip) in server.leases.read_text()
        assert [type(r) for r in await provider.at(subnet, one.ip)] == [Reservation]


async def test_what_an_unknown_machine_has_a_lease_of_is_reserved_for_nobody(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        with server.leases.open("a") as f:
            f.write(f"{int(time.time()) + 600} 01:02:03:04:05:06:07:08 {one.ip} * *\n")
        with pytest.raises(Conflict, match="without a hardware address"):
            await provider.add(one)
        await provider.add(await _fresh(provider, 2))


async def test_by_signal_it_forgets_without_being_started_anew(server: Dnsmasq) -> None:
    async with _member(server, reload="signal", boot="dnsmasq") as provider:
        one = await provider.as_kept(await _fresh(provider, 1))
        # Its own rules say where machines boot from.
        assert dict(one.options) == {"hostname": one.name}
        await provider.add(one)
        told = server.asked(one.mac)
        assert told is not None
        assert (told.ip, told.filename) == (one.ip, "global.0")
        await provider.remove(one)
        told = server.asked(one.mac)
        assert told is not None
        assert told.ip != one.ip
    assert server.restarts == 0


async def test_no_other_program_is_signalled(server: Dnsmasq, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{os.getpid()}\n")
    async with _member(server, reload="signal", boot="dnsmasq", pid_file=str(pid_file)) as provider:
        one = await provider.as_kept(await _fresh(provider, 1))
        for call in (provider.reached(), provider.add(one), provider.remove(one)):
            with pytest.raises(Misconfigured, match="not dnsmasq"):
                await call
        for odd in ("", "-1\n", "0", "1", "99999999999999999999", "12 34"):
            pid_file.write_text(odd)
            with pytest.raises(Unavailable, match="no number of a process"):
                await provider.reached()


async def test_what_a_member_left_that_died_between_two_files_does_no_harm(server: Dnsmasq) -> None:
    async with _member(server) as provider:
        one = await _fresh(provider, 1)
        left = f"tag:muster-{int(one.ip):08x},option:bootfile-name,left.0\n"
        (server.options / str(one.ip)).write_text(left)
        await asyncio.sleep(0.1)
        await provider.add(one)
        told = server.asked(one.mac)
    assert told is not None
    assert told.filename == "grub2/grubx64.efi"


async def test_a_directory_that_dnsmasq_does_not_read_is_named(server: Dnsmasq, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("dhcphosts", "dhcpopts"):
        (elsewhere / name).mkdir(parents=True)
    async with _member(server, target_dir=str(elsewhere), timeout_s=0.5) as provider:
        with pytest.raises(Unavailable, match="is this directory one of its dhcp-hostsdir"):
            await provider.add(await _fresh(provider, 1))
    with pytest.raises(Misconfigured, match="There is no directory"):
        async with _member(server, target_dir=str(tmp_path / "nowhere")):
            pass


async def test_the_doctor_names_what_is_wrong_with_dnsmasq(server: Dnsmasq, tmp_path: Path) -> None:
    may_ping = tmp_path / "ping_group_range"
    may_ping.write_text("0\t2147483647\n")

    async def found(*subnets: str, **change: Any) -> dict[str, str]:
        given = {"provider": "dnsmasq", "dnsmasq": {**server.settings, **change}, "subnets": subnets}
        asked = checks.checks(DHCPSettings.model_validate(given), lambda: None, may_ping=may_ping)
        said: dict[str, str] = {}
        for one in [f for check in asked for f in await check.run()]:
            said[one.code] = f"{said.get(one.code, '')}{one.sentence}\n"
        return said

    assert await found(str(NETWORK)) == {}
    assert "has no subnet 10.0.0.0/8" in (await found("10.0.0.0/8"))["DHCP-SUBNET-UNKNOWN"]
    assert "no pid file" in (await found(pid_file=str(tmp_path / "no")))["DHCP-DOWN"]
    assert "There is no configuration" in (await found(config=str(tmp_path / "no")))["DHCP-FILES-ABSENT"]
    elsewhere = tmp_path / "elsewhere"
    assert "dhcp-hostsdir" in (await found(target_dir=str(elsewhere)))["DHCP-DIRECTORY"]
    odd = tmp_path / "dnsmasq.conf"
    odd.write_text(server.conf.read_text() + "\ndhcp-boot=pxelinux.0\n")
    assert "dhcp-boot=pxelinux.0" in (await found(config=str(odd)))["DHCP-BOOT"]
    assert "DHCP-BOOT" not in await found(config=str(odd), boot="dnsmasq")
    odd.write_text(server.conf.read_text() + "\nconf-file=/nowhere/at/all.conf\n")
    assert "/nowhere/at/all.conf" in (await found(config=str(odd)))["DHCP-CONF"]


async def test_where_dnsmasq_sends_everybody_elsewhere_no_boot_loader_is_promised(
    needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("dnsmasq")
    with dnsmasq.running(tmp_path / "dnsmasq", conf="dhcp-boot=everybody.0") as server:
        async with _member(server) as provider:
            one = await _fresh(provider, 1)
            with pytest.raises(Misconfigured, match=r"dhcp-boot=everybody\.0"):
                await provider.add(one)
            bare = replace(one, options={"hostname": one.name})
            await provider.add(bare)
        # Why: written by hand, the same is not what a machine is told.
        (server.hosts / "by-hand").write_text(f"52:54:00:cc:00:01,set:mine,{NETWORK[190]},mine\n")
        (server.options / "by-hand").write_text("tag:mine,option:bootfile-name,mine.0\n")
        server.restart()
        told = server.asked("52:54:00:cc:00:01")
        assert told is not None
        assert (told.ip, told.filename) == (NETWORK[190], "everybody.0")


async def test_ten_thousand_reservations_are_read_once(tmp_path: Path) -> None:
    # No dnsmasq: what is counted is ours.
    hosts, options = tmp_path / "dhcphosts", tmp_path / "dhcpopts"
    hosts.mkdir()
    options.mkdir()
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text("dhcp-range=10.0.0.0,static,255.255.0.0\n")
    for n in range(10_000):
        ip, mac = IPv4Address("10.0.1.0") + n, f"52:54:00:00:{n // 256:02x}:{n % 256:02x}"
        (hosts / str(ip)).write_text(f"{mac},{ip},host{n}\n")
    await asyncio.sleep(0.1)
    reader = held.Reader(held.Places([conf], tmp_path / "leases", hosts, options), poll_s=60)
    found = reader.read()
    assert len(found.reservations) == 10_000
    assert all(reader.read() is found for _ in range(100))
    # One more is seen at once.
    (hosts / "10.0.0.9").write_text("52:54:00:01:00:00,10.0.0.9,one\n")
    assert len(reader.read().reservations) == 10_001
