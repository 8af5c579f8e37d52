"""What Kea is asked and told (``features/dhcp/kea/``), on real ones: Debian 12's, a newer one with and without host_cmds."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.features.dhcp import checks, service
from muster.features.dhcp.contract import Lease, Reservation, Subnet, Unreached
from muster.features.dhcp.kea import commands
from muster.features.dhcp.kea.commands import Kea
from muster.features.dhcp.kea.writer import ROLE
from muster.features.dhcp.providers import kea
from muster.features.dhcp.providers.kea import KeaDHCP
from muster.features.dhcp.settings import DHCPSettings, KeaSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.names import MACAddress
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics
from muster.store import engine
from muster.store.engine import Store
from muster.store.leases import Leases
from tests.servers import kea as keas
from tests.servers import relay
from tests.servers.available import KEA3
from tests.servers.certificates import CA, NOW, named
from tests.servers.kea import HOST_CMDS, LEASE_CMDS, KeaServer
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio

NETWORK = IPv4Network("192.0.2.0/24")
BOTH = [LEASE_CMDS, HOST_CMDS]
SUBNET = {"id": 1, "subnet": str(NETWORK), "pools": [{"pool": "192.0.2.10 - 192.0.2.50"}]}
# Debian 12's, a newer one that tells the hash of its configuration, and one with its library of hosts.
RELEASES: dict[str, tuple[str, dict[str, Any]]] = {
    "2": ("kea", {}),
    "3-configuration": ("kea3", {"root": KEA3}),
    "3-hosts": ("kea3", {"root": KEA3, "libraries": BOTH}),
}


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, needs: Callable[[str], None]) -> dict[str, Any]:
    """Which Kea is to run, as arguments."""
    needed, found = RELEASES[request.param]
    needs(needed)
    return found


@pytest.fixture(params=["2", "3-configuration"])
def one_that_is_set(request: pytest.FixtureRequest, needs: Callable[[str], None]) -> Iterator[KeaServer]:
    """A Kea whose configuration is set."""
    needed, found = RELEASES[request.param]
    needs(needed)
    with keas.running(subnets=[SUBNET], **found) as server:
        yield server


@contextlib.asynccontextmanager
async def member(server: KeaServer, directory: Path, name: str = "a", **settings: Any) -> AsyncIterator[KeaDHCP]:
    """A member; those with one directory have one store."""
    async with (
        engine.opened(Secret(f"sqlite:///{directory}/store.db")) as store,
        with_store(server, store, name, **settings) as provider,
    ):
        yield provider


@contextlib.asynccontextmanager
async def with_store(server: KeaServer, store: Store, name: str = "a", **settings: Any) -> AsyncIterator[KeaDHCP]:
    given = KeaSettings.model_validate({**server.settings, "timeout_s": 3, **settings})
    file = Path("unused")
    around = Surroundings(name, OperationMetrics(CollectorRegistry()), file, file, file, store=store)
    async with kea.opened(given, around) as provider:
        yield provider


def one(number: int, **change: Any) -> Reservation:
    name = f"h{number}.example.com"
    options = {"hostname": name, "filename": "grub2/grubx64.efi", "nextServer": "192.0.2.1"}
    mac = MACAddress.parse(f"52:54:00:bb:00:{number:02x}")
    return replace(Reservation(name, NETWORK[100 + number], mac, Subnet(NETWORK), options), **change)


async def holds(provider: KeaDHCP, wanted: Reservation) -> bool:
    found = await provider.of(wanted.subnet, wanted.mac)
    return isinstance(found, Reservation) and (found.ip, found.name) == (wanted.ip, wanted.name)


def set_by_hand(server: KeaServer, *reservations: dict[str, Any]) -> None:
    """Add reservations as an administrator or another program does it."""
    content = server.done("config-get")["Dhcp4"]
    subnet = next(s for s in content["subnet4"] if s["id"] == 1)
    subnet["reservations"] += reservations
    server.done("config-set", {"Dhcp4": content})


def by_hand(number: int) -> dict[str, Any]:
    return {
        "hw-address": f"52:54:00:cc:00:{number:02x}",
        "ip-address": str(NETWORK[200 + number]),
        "hostname": f"x{number}",
    }


def reserved(server: KeaServer) -> set[str]:
    content = server.done("config-get")["Dhcp4"]
    return {r["ip-address"] for s in content["subnet4"] for r in s["reservations"]}


@contextlib.contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, command: str, do: Callable[[], Any]) -> Iterator[None]:
    """Do something once, right after a command was answered."""
    left, ask = [do], Kea.ask

    async def asked(self: Kea, name: str, arguments: Any = None) -> Any:
        answer = await ask(self, name, arguments)
        if name == command and left:
            done = left.pop()()
            if asyncio.iscoroutine(done):
                await done
        return answer

    monkeypatch.setattr(Kea, "ask", asked)
    yield
    monkeypatch.setattr(Kea, "ask", ask)
    assert not left


# What is promised


async def test_a_machine_gets_what_is_reserved_and_its_lease_is_seen(release: dict[str, Any], tmp_path: Path) -> None:
    ours = Subnet(IPv4Network("10.231.8.0/24"))
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path) as provider:
            booting = one(1, ip=IPv4Address("10.231.8.77"), subnet=ours)
            await provider.add(booting)
            answer = await asyncio.to_thread(server.given, str(booting.mac))
            assert answer == ("10.231.8.77", "grub2/grubx64.efi", "192.0.2.1")
            stranger = MACAddress.parse("52:54:00:dd:00:01")
            address, _, _ = await asyncio.to_thread(server.given, str(stranger))
            lease = await provider.of(ours, stranger)
            assert isinstance(lease, Lease)
            assert (str(lease.ip), lease.state, lease.name) == (address, "active", "lease-525400dd0001")
            assert list(await provider.at(ours, lease.ip)) == [lease]
            assert {lease.ip, booting.ip} == set(await provider.taken(ours, [lease.ip, booting.ip, lease.ip + 1]))
            records = await provider.records(ours)
            assert {one.ip for one in records.leases} == {lease.ip, booting.ip}
            assert [one.name for one in records.reservations] == [booting.name]
            # Once it is reserved elsewhere Kea lets it have its old address no more.
            await provider.add(one(2, ip=IPv4Address("10.231.8.78"), mac=stranger, subnet=ours))
            assert (await asyncio.to_thread(server.given, str(stranger)))[0] == "10.231.8.78"


async def test_a_kea_that_is_killed_has_them_again(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path) as provider:
            await provider.add(one(1))
            await provider.add(one(2))
            await provider.remove(one(1))
            server.stop(signal.SIGKILL)
            server.start()
            assert await holds(provider, one(2))
            assert not await holds(provider, one(1))
            assert {str(ip) for ip in await provider.taken(one(1).subnet, [one(1).ip, one(2).ip])} == {"192.0.2.102"}


async def test_members_that_change_at_once_lose_nothing(one_that_is_set: KeaServer, url: str) -> None:
    async with (
        engine.opened(Secret(url)) as first,
        engine.opened(Secret(url)) as second,
        with_store(one_that_is_set, first, "a") as a,
        with_store(one_that_is_set, second, "b") as b,
    ):
        wanted = [one(n) for n in range(1, 41)]
        await asyncio.gather(*((a, b)[n % 2].add(r) for n, r in enumerate(wanted)))
        assert reserved(one_that_is_set) == {str(r.ip) for r in wanted}
        gone = wanted[::2]
        await asyncio.gather(*((b, a)[n % 2].remove(r) for n, r in enumerate(gone)))
        assert reserved(one_that_is_set) == {str(r.ip) for r in wanted[1::2]}
    assert {r["ip-address"] for r in one_that_is_set.written()["subnet4"][0]["reservations"]} == {
        str(r.ip) for r in wanted[1::2]
    }


async def test_one_bad_change_spoils_no_other(one_that_is_set: KeaServer, tmp_path: Path) -> None:
    async with member(one_that_is_set, tmp_path) as provider:
        # Kea refuses any configuration that has it.
        bad = one(2, options={"filename": "a" * 200})
        found = await asyncio.gather(*(provider.add(r) for r in (one(1), bad, one(3))), return_exceptions=True)
        assert [type(e) for e in found] == [type(None), Rejected, type(None)]
        assert "must not exceed" in str(found[1])
        assert reserved(one_that_is_set) == {str(one(1).ip), str(one(3).ip)}


async def test_what_others_set_is_seen_and_stays(one_that_is_set: KeaServer, tmp_path: Path) -> None:
    server = one_that_is_set
    async with member(server, tmp_path) as provider:
        await provider.add(one(1))
        set_by_hand(server, by_hand(1))
        found = await provider.of(one(1).subnet, MACAddress.parse(by_hand(1)["hw-address"]))
        assert isinstance(found, Reservation)
        with pytest.raises(Rejected, match="static - unable to delete"):
            await provider.remove(found)
        content = server.done("config-get")["Dhcp4"]
        content["subnet4"][0]["reservations"].append(by_hand(2))
        server.conf.write_text(json.dumps({"Dhcp4": content}))
        server.done("config-reload")
        with pytest.raises(Conflict):
            await provider.add(one(5, ip=IPv4Address(by_hand(2)["ip-address"])))
        await provider.add(one(2))
        wanted = {str(one(1).ip), str(one(2).ip), by_hand(1)["ip-address"], by_hand(2)["ip-address"]}
        assert reserved(server) == wanted
        server.stop(signal.SIGKILL)
        server.start()
        assert reserved(server) == wanted


async def test_what_others_set_between_is_not_overwritten(
    one_that_is_set: KeaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(one_that_is_set, tmp_path) as provider:
        with meanwhile(monkeypatch, "config-test", lambda: set_by_hand(one_that_is_set, by_hand(1))):
            await provider.add(one(1))
    assert reserved(one_that_is_set) == {str(one(1).ip), by_hand(1)["ip-address"]}


async def test_a_member_that_is_the_writer_no_more_sets_nothing(
    one_that_is_set: KeaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        engine.opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store,
        with_store(one_that_is_set, store) as provider,
    ):

        async def taken_over() -> None:
            leases = Leases(store)
            held = await leases.held(ROLE)
            assert held is not None
            await leases.release(held)
            assert await leases.acquire(ROLE, "another", 2) is not None

        with (
            meanwhile(monkeypatch, "config-test", taken_over),
            pytest.raises(Unreached, match="nothing was changed"),
        ):
            await provider.add(one(1))
        assert reserved(one_that_is_set) == set()
        # The other one gives it back by dying.
        await provider.add(one(1))
        assert reserved(one_that_is_set) == {str(one(1).ip)}


async def test_what_kea_cannot_write_is_undone(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path) as provider:
            await provider.add(one(1))
            server.conf.unlink()
            server.conf.mkdir()
            with pytest.raises(Misconfigured, match="cannot write its configuration"):
                await provider.add(one(2))
            with pytest.raises(Misconfigured, match="cannot write its configuration"):
                await provider.remove(one(1))
            assert reserved(server) == {str(one(1).ip)}
            server.conf.rmdir()
            await provider.add(one(2))
            assert reserved(server) == {str(one(1).ip), str(one(2).ip)}


def hosts_database(server: PostgreSQL) -> dict[str, Any]:
    """Return how Kea finds a database of hosts that is empty."""
    place = urlsplit(server.fresh_database())
    tables = KEA3 / "usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql"
    command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tables), place.geturl()]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return {
        "type": "postgresql", "host": place.hostname, "port": place.port, "name": place.path.strip("/"),
        "user": place.username, "password": place.password or "",
    }  # fmt: skip


async def test_hosts_in_a_database_are_seen_and_kept_there(
    needs: Callable[[str], None], postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    needs("kea3")
    database = hosts_database(postgresql_server)
    subnet = {**SUBNET, "reservations": [by_hand(9)]}
    given: dict[str, Any] = {"subnets": [subnet], "root": KEA3, "alone": True, "hosts_database": database}
    with keas.running(**given, libraries=[*BOTH, keas.PGSQL]) as server:
        others = {**by_hand(1), "subnet-id": 1}
        server.done("reservation-add", {"reservation": others})
        async with member(server, tmp_path) as provider:
            at = one(1).subnet
            await asyncio.gather(*(provider.add(one(n)) for n in range(1, 9)))
            await provider.add(one(9, ip=one(1).ip), related=[one(1).mac])
            assert await holds(provider, one(1))
            with pytest.raises(Conflict):
                await provider.add(one(10, ip=one(1).ip))
            with pytest.raises(Conflict):
                await provider.add(one(10, ip=IPv4Address(others["ip-address"])))
            with pytest.raises(Rejected, match="Entry already exists"):
                await provider.add(one(10, name=one(1).name))
            wanted = {one(n).ip for n in range(1, 9)} | {IPv4Address(by_hand(n)["ip-address"]) for n in (1, 9)}
            assert {r.ip for r in (await provider.records(at)).reservations} == wanted
            assert set(await provider.taken(at, list(NETWORK.hosts()))) == wanted
            assert reserved(server) == {by_hand(9)["ip-address"]}
            server.stop(signal.SIGKILL)
            server.start()
            assert await holds(provider, one(1))
            for gone in (one(1), one(9, ip=one(1).ip)):
                await provider.remove(gone)
            # What others keep in the database is no administrator's writing.
            for address, removed in ((others["ip-address"], True), (by_hand(9)["ip-address"], False)):
                (found,) = await provider.at(at, IPv4Address(address))
                assert isinstance(found, Reservation)
                with contextlib.nullcontext() if removed else pytest.raises(Rejected, match="static"):
                    await provider.remove(found)
            assert {r.ip for r in (await provider.records(at)).reservations} == wanted - {
                one(1).ip,
                IPv4Address(others["ip-address"]),
            }
    with keas.running(**given, libraries=[LEASE_CMDS, keas.PGSQL]) as server:
        async with member(server, tmp_path) as provider:
            with pytest.raises(Misconfigured, match=r"add libdhcp_host_cmds\.so of Kea 3\.0"):
                await provider.reached()
        assert list(await found_by_the_doctor(server)) == ["DHCP-KEA-LACKS"]


async def test_foremans_calls_have_their_answers(release: dict[str, Any], store: Store) -> None:
    file = Path("unused")
    around = Surroundings("a", OperationMetrics(CollectorRegistry()), file, file, file, store=store)
    with keas.running(subnets=[{**SUBNET, "reservations": [by_hand(1)]}], **release) as server:
        given = {"provider": "kea", "kea": server.settings, "ping_free_ip": False, "subnets": [str(NETWORK)]}
        async with service.opened(DHCPSettings.model_validate(given), around) as dhcp:
            assert [str(s) for s in await dhcp.subnets()] == ["192.0.2.0/255.255.255.0"]
            free = await dhcp.unused("192.0.2.0", None, "192.0.2.100", "192.0.2.110")
            assert free is not None
            wanted = {
                "name": "web01.example.com", "hostname": "web01", "ip": str(free), "mac": "52:54:00:bb:00:01",
                "nextServer": "192.0.2.1", "filename": "pxelinux.0",
            }  # fmt: skip
            await asyncio.gather(*(dhcp.create("192.0.2.0", wanted) for _ in range(3)))
            assert await dhcp.unused("192.0.2.0", wanted["mac"], "192.0.2.100", "192.0.2.110") == free
            (found,) = await dhcp.at("192.0.2.0", str(free))
            assert (found.name, dict(found.options)) == (
                "web01.example.com",
                {"hostname": "web01", "hardware_type": "ethernet", "filename": "pxelinux.0", "nextServer": "192.0.2.1"},
            )
            for change in ({"mac": "52:54:00:bb:00:02"}, {"ip": "192.0.2.111"}, {"filename": "other"}):
                with pytest.raises(Conflict):
                    await dhcp.create("192.0.2.0", {**wanted, **change})
            with pytest.raises(Rejected, match="Vendor Options"):
                await dhcp.create("192.0.2.0", {**wanted, "mac": "52:54:00:bb:00:03", "<Sun>root_path_name": "/x"})
            with pytest.raises(Rejected, match="static"):
                await dhcp.delete_at("192.0.2.0", by_hand(1)["ip-address"])
            await dhcp.delete_of("192.0.2.0", wanted["mac"])
            await dhcp.delete_of("192.0.2.0", wanted["mac"])
            with pytest.raises(NotFound):
                await dhcp.at("192.0.2.0", str(free))


# What else takes an address


async def test_whatever_holds_an_address_is_seen(release: dict[str, Any], tmp_path: Path) -> None:
    known = [
        {"client-id": "01:11:22:33:44:02", "ip-address": "192.0.2.151"},
        {"flex-id": "'abc'", "ip-address": "192.0.2.152"},
        {"duid": "01:02:03:04:05:06:07:08", "ip-address": "192.0.2.153"},
        {"hw-address": "52:54:00:cc:00:09", "hostname": "noaddress.example.com"},
    ]
    of_all = [{"hw-address": "52:54:00:cc:00:08", "ip-address": "192.0.2.154", "hostname": "of-all.example.com"}]
    subnet = {**SUBNET, "reservations": known}
    with keas.running(
        subnets=[subnet], reservations=of_all, host_reservation_identifiers=["hw-address", "client-id", "flex-id", "duid"],
        **release,
    ) as server:  # fmt: skip
        declined = {"ip-address": "192.0.2.30", "hw-address": "", "valid-lft": 3600, "state": 1}
        unknown = {"ip-address": "192.0.2.31", "hw-address": "01:02:03", "valid-lft": 3600}
        given_back = {"ip-address": "192.0.2.32", "hw-address": "52:54:00:cc:00:32", "valid-lft": 3600, "state": 2}
        for lease in (declined | {"hw-address": "52:54:00:cc:00:30"}, unknown, given_back):
            server.done("lease4-add", lease)
        async with member(server, tmp_path) as provider:
            at = one(1).subnet
            wanted = {IPv4Address(f"192.0.2.{n}") for n in (30, 31, 151, 152, 153, 154)}
            assert set(await provider.taken(at, list(NETWORK.hosts()))) == wanted
            assert set(await provider.taken(at, [*sorted(wanted)[:6], NETWORK[32], NETWORK[33]])) == wanted
            for number in (151, 152, 153, 154):
                with pytest.raises(Conflict):
                    await provider.add(one(1, ip=NETWORK[number]))
            with pytest.raises(Conflict):
                await provider.add(one(1, mac=MACAddress.parse("52:54:00:cc:00:09")))
            assert [r.ip for r in await provider.at(at, NETWORK[154])] == [NETWORK[154]]
            assert [r.ip for r in (await provider.records(at)).reservations] == [NETWORK[154]]
            of_all_of_them = await provider.of(at, MACAddress.parse("52:54:00:cc:00:08"))
            assert isinstance(of_all_of_them, Reservation)
            with pytest.raises(Rejected, match="static"):
                await provider.remove(of_all_of_them)
            with pytest.raises(NotFound):
                await provider.remove(one(7))


async def test_leases_are_told_page_by_page(release: dict[str, Any], tmp_path: Path) -> None:
    large = Subnet(IPv4Network("10.0.0.0/16"))
    others = [{"id": 1, "subnet": "10.0.0.0/16"}, {"id": 2, "subnet": "10.1.0.0/16"}, {"id": 3, "subnet": "9.0.0.0/8"}]
    with keas.running(subnets=others, **release) as server:
        wanted = [large.network[n] for n in range(1, 2104)]
        for n, ip in enumerate(
            [IPv4Address("9.255.255.255"), *wanted, IPv4Address("10.1.0.0"), IPv4Address("10.1.0.1")]
        ):
            mac = f"52:54:00:dd:{n // 256:02x}:{n % 256:02x}"
            server.done("lease4-add", {"ip-address": str(ip), "hw-address": mac, "valid-lft": 3600})
        async with member(server, tmp_path) as provider:
            assert [one.ip for one in (await provider.records(large)).leases] == wanted
            assert len(await provider.taken(large, [*wanted, *(large.network[n] for n in range(3000, 3100))])) == 2103


async def test_without_lease_cmds_no_address_is_free(release: dict[str, Any], tmp_path: Path) -> None:
    libraries = [name for name in release.get("libraries", ()) if name != LEASE_CMDS]
    with keas.running(subnets=[SUBNET], **{**release, "libraries": libraries}) as server:
        async with member(server, tmp_path) as provider:
            await provider.add(one(1))
            assert await holds(provider, one(1))
            with pytest.raises(Misconfigured, match=r"add libdhcp_lease_cmds\.so to its hooks-libraries"):
                await provider.taken(one(1).subnet, [one(1).ip])
        assert list(await found_by_the_doctor(server)) == ["DHCP-KEA-LACKS"]


async def test_a_kea_that_keeps_one_host_an_address_says_so(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], ip_reservations_unique=True, **release) as server:
        async with member(server, tmp_path) as provider:
            await provider.add(one(1))
            with pytest.raises(Rejected, match="set ip-reservations-unique to false"):
                await provider.add(one(2, ip=one(1).ip), related=[one(1).mac])
            with pytest.raises(Conflict):
                await provider.add(one(2, ip=one(1).ip))


async def test_what_kea_cannot_keep_is_dropped_or_refused(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path) as provider:
            given = one(
                1, options={**one(1).options, "nextServer": "localhost", "ztp_vendor": "huawei", "filename": "a" * 127}
            )
            kept = await provider.as_kept(given)
            assert kept.options == {
                "hostname": "h1.example.com", "hardware_type": "ethernet", "filename": "a" * 127, "nextServer": "127.0.0.1",
            }  # fmt: skip
            await provider.add(kept)
            assert await provider.of(kept.subnet, kept.mac) == replace(kept, subnet=kept.subnet)
            with pytest.raises(Rejected, match="up to 127"):
                await provider.as_kept(one(2, options={"filename": "a" * 128}))
            # Which the service refuses, because the provider has no options of vendors.
            sun = await provider.as_kept(one(3, options={"<Sun>root_path_name": "/x"}))
            assert "<Sun>root_path_name" in sun.options
            assert not provider.has_vendor_options


# How it is asked


async def test_a_kea_that_hangs_is_unavailable_and_loses_nothing(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path, timeout_s=0.5) as provider:
            await provider.add(one(1))
            with server.hung():
                with pytest.raises(Unavailable, match=r"not answered within 0\.5 s"):
                    await provider.add(one(2))
                with pytest.raises(Unavailable):
                    await provider.taken(one(1).subnet, [one(1).ip])
            assert await holds(provider, one(1))
            await provider.add(one(2))
            assert await holds(provider, one(2))


async def test_a_socket_of_another_account_is_said(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with commands.opened(f"unix:{server.control}") as asked:
            groups = os.getgroups()
            os.setgroups([])
            os.setegid(65534)
            os.seteuid(65534)
            try:
                with pytest.raises(Misconfigured, match="may not be opened by the account"):
                    await asked.ask("version-get")
            finally:
                os.seteuid(0)
                os.setegid(0)
                os.setgroups(groups)


async def test_the_control_agent_passes_everything_on(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("kea")
    password = tmp_path / "password"
    password.write_text("geheim\n")
    with keas.running(subnets=[SUBNET]) as server, keas.control_agent(server, user="muster", password="geheim") as url:
        settings = {"url": url, "user": "muster", "password_file": str(password)}
        async with member(server, tmp_path, **settings) as provider:
            await provider.add(one(1))
            assert await holds(provider, one(1))
            assert await provider.taken(one(1).subnet, [one(1).ip, one(2).ip]) == {one(1).ip}
            await provider.remove(one(1))
            assert not await holds(provider, one(1))
            with pytest.raises(Rejected, match="must not exceed"):
                await provider.add(one(2, options={"filename": "a" * 200}))
            assert await found_by_the_doctor(server, **settings) == {}
            password.write_text("another\n")
            found = await found_by_the_doctor(server, **settings)
            assert "compare user and password_file" in found["DHCP-KEA-DENIED"]
            assert "geheim" not in str(found) + repr(provider) + repr(settings)
            server.stop()
            with pytest.raises(Unavailable, match="unable to forward command"):
                await provider.subnets()


async def test_a_newer_kea_takes_commands_over_https_itself(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("kea3")
    ca = CA("ca.example.com")
    for file, content in {"ca.pem": ca.pem, **pair(ca, "server"), **pair(ca, "client")}.items():
        (tmp_path / file).write_bytes(content)
    client = {"certificate_file": str(tmp_path / "client.pem"), "key_file": str(tmp_path / "client.key")}
    with keas.running(subnets=[SUBNET], root=KEA3, libraries=BOTH) as server:
        for file in ("ca.pem", "server.pem", "server.key"):
            (server.directory / file).write_bytes((tmp_path / file).read_bytes())
        assert server.host is not None
        content = server.done("config-get")["Dhcp4"]
        https = {
            "socket-type": "https", "socket-address": server.host.address, "socket-port": 8004, "cert-required": True,
            "trust-anchor": str(server.inside / "ca.pem"), "cert-file": str(server.inside / "server.pem"),
            "key-file": str(server.inside / "server.key"),
            "authentication": {"type": "basic", "realm": "kea", "clients": [{"user": "muster", "password": "geheim"}]},
        }  # fmt: skip
        content["control-sockets"].append(https)
        server.done("config-set", {"Dhcp4": content})
        (tmp_path / "password").write_text("geheim\n")
        with relay.running(server.host, 8004, keas.ADDRESS) as port:
            settings = {
                "url": f"https://{keas.ADDRESS}:{port}", "ca_file": str(tmp_path / "ca.pem"), "user": "muster",
                "password_file": str(tmp_path / "password"), **client,
            }  # fmt: skip
            async with member(server, tmp_path, **settings) as provider:
                await provider.add(one(1))
                assert await holds(provider, one(1))
                assert await found_by_the_doctor(server, **settings) == {}
                # What it writes has the password still, which it has to know when it starts again.
                assert "geheim" in json.dumps(server.written()["control-sockets"])
            other = CA("other.example.com")
            for file, given in pair(other, "client").items():
                (tmp_path / file).write_bytes(given)
            found = await found_by_the_doctor(server, **settings)
            assert list(found) in (["DHCP-KEA-DENIED"], ["DHCP-KEA-DOWN"])


def pair(ca: CA, name: str) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    address = x509.IPAddress(ipaddress.ip_address(keas.ADDRESS))
    certificate = (
        x509.CertificateBuilder().subject_name(named(name)).issuer_name(ca.name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(ca.key, hashes.SHA256())
    )  # fmt: skip
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {f"{name}.pem": certificate.public_bytes(Encoding.PEM), f"{name}.key": plain}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b'{"result": 0, "text": "' + b"x" * 4096, "more than 1024 bytes"),
        (b'{"result": 0, "te', "no whole JSON"),
        (b"[]", "no answer of Kea's"),
        (b"[" * 1000, "no whole JSON"),
        (b"", "the connection ended"),
        (b'{"result": 1, "text": "no\\nsense"}', r"no\\nsense"),
        (None, "not answered within"),
    ],
)
async def test_whatever_answers_in_keas_place_is_bounded(said: bytes | None, words: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        with contextlib.suppress(OSError):
            while said is None:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(said)
            await writer.drain()
            writer.close()

    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        async with (
            await asyncio.start_unix_server(answer, path),
            commands.opened(f"unix:{path}", timeout_s=0.5, answer_limit_bytes=1024) as asked,
        ):
            with pytest.raises((Unavailable, Rejected), match=words):
                await asked.ask("config-get")
    async with commands.opened(f"unix:{path}") as asked:
        with pytest.raises(Unreached, match="is kea-dhcp4 running"):
            await asked.ask("config-get")


# The doctor


async def found_by_the_doctor(server: KeaServer, subnets: Any = (), **kea: Any) -> dict[str, str]:
    given = {"provider": "kea", "kea": {**server.settings, **kea}, "subnets": subnets, "ping_free_ip": False}
    asked = checks.checks(DHCPSettings.model_validate(given), lambda: None)
    return {f.code: f.sentence for check in asked for f in await check.run()}


async def test_the_doctor_names_what_is_wrong_with_kea(release: dict[str, Any]) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        assert await found_by_the_doctor(server, (str(NETWORK),)) == {}
        assert "no subnet 10.0.0.0/8" in (await found_by_the_doctor(server, ("10.0.0.0/8",)))["DHCP-SUBNET-UNKNOWN"]
        absent = await found_by_the_doctor(server, password_file=None, url="unix:/nowhere/kea.sock")
        assert "cannot be reached" in absent["DHCP-KEA-DOWN"]
        server.stop()
        assert list(await found_by_the_doctor(server)) == ["DHCP-KEA-DOWN"]
