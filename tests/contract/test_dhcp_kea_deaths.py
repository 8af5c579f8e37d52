"""What is kept by Kea when somebody dies, or is cut off, between two of its commands; on real ones."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from muster.features.dhcp.contract import Subnet, Unreached
from muster.features.dhcp.kea import commands
from muster.features.dhcp.kea.commands import Kea
from muster.features.dhcp.kea.unwritten import Unwritten
from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected, Unavailable
from muster.store.engine import Store
from muster.store.writing import Change, Writing
from tests.contract.test_dhcp_kea import (
    BOTH,
    SUBNET,
    holds,
    hosts_database,
    meanwhile,
    member,
    one,
    one_that_is_set,
    release,
    reserved,
)
from tests.servers import kea as keas
from tests.servers.available import KEA3
from tests.servers.kea import KeaServer
from tests.servers.postgresql import PostgreSQL

__all__ = ["one_that_is_set", "release"]

pytestmark = pytest.mark.anyio


def written(server: KeaServer) -> set[str]:
    """Return which addresses are reserved in Kea's file."""
    return {r["ip-address"] for s in server.written()["subnet4"] for r in s.get("reservations", ())}


def fails(monkeypatch: pytest.MonkeyPatch, command: str, error: MusterError) -> list[MusterError]:
    """Let a command fail once in place of being asked; the list is empty when it has."""
    left, ask = [error], Kea.ask

    async def asked(self: Kea, name: str, arguments: Any = None) -> Any:
        if name == command and left:
            raise left.pop()
        return await ask(self, name, arguments)

    monkeypatch.setattr(Kea, "ask", asked)
    return left


@pytest.mark.parametrize("error", [Unavailable("not answered"), Unreached("refused"), Misconfigured("401")])
async def test_what_was_in_force_and_not_written_is_written_before_it_is_acknowledged(
    release: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: MusterError
) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path) as provider:
            left = fails(monkeypatch, "config-write", error)
            with pytest.raises(Unavailable) as raised:
                await provider.add(one(1))
            assert not left
            # It is in force, so nobody may take it for refused.
            assert not isinstance(raised.value, Unreached)
            assert reserved(server) == {str(one(1).ip)}
        async with member(server, tmp_path, "b") as provider:
            await provider.add(one(1))
            server.stop(signal.SIGKILL)
            server.start()
            assert await holds(provider, one(1))


async def test_what_was_removed_and_not_written_does_not_come_back(
    release: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path) as provider:
            await provider.add(one(1))
            fails(monkeypatch, "config-write", Unavailable("not answered"))
            with pytest.raises(Unavailable):
                await provider.remove(one(1))
        assert written(server) == {str(one(1).ip)}
        async with member(server, tmp_path, "b") as provider:
            # Whoever looks and finds nothing takes it for removed.
            assert await provider.of(one(1).subnet, one(1).mac) is None
            server.stop(signal.SIGKILL)
            server.start()
            assert await provider.of(one(1).subnet, one(1).mac) is None


async def test_a_kea_that_starts_again_between_two_commands_has_not_acknowledged(
    release: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:

        def again() -> None:
            server.stop(signal.SIGKILL)
            server.start()

        changing = "reservation-add" if "libraries" in release else "config-set"
        async with member(server, tmp_path) as provider:
            with meanwhile(monkeypatch, changing, again), pytest.raises(Unavailable):
                await provider.add(one(1))
            await provider.add(one(1))
            changing = "reservation-del" if "libraries" in release else "config-set"
            with meanwhile(monkeypatch, changing, again), pytest.raises(Unavailable):
                await provider.remove(one(1))
            assert await holds(provider, one(1))


async def test_a_removal_whose_caller_has_gone_is_over_when_the_call_is(
    release: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path, "a") as a, member(server, tmp_path, "b") as b:
            await a.add(one(1))
            tested, go = asyncio.Event(), asyncio.Event()

            async def wait() -> None:
                tested.set()
                await go.wait()

            before = "reservation-get-by-id" if "libraries" in release else "config-test"
            with meanwhile(monkeypatch, before, wait):
                removing = asyncio.create_task(a.remove(one(1)))
                await tested.wait()
                removing.cancel()
                asyncio.get_running_loop().call_later(0.2, go.set)
                await asyncio.wait([removing])
            # Its claim has ended with it, so another member is told to make it again.
            await b.add(one(1))
            await asyncio.sleep(1)
            assert await holds(b, one(1))


async def test_an_address_that_an_unknown_machine_has_a_lease_of_is_reserved_for_nobody(
    release: dict[str, Any], tmp_path: Path
) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        unknown = {"ip-address": "192.0.2.31", "hw-address": "01:02:03", "valid-lft": 3600}
        declined = {"ip-address": "192.0.2.30", "hw-address": "", "valid-lft": 3600, "state": 1}
        server.done("lease4-add", unknown)
        answer = server.ask("lease4-add", declined)
        async with member(server, tmp_path) as provider:
            for lease in (unknown, *([declined] if answer["result"] == 0 else [])):
                with pytest.raises(Conflict):
                    await provider.add(one(1, ip=IPv4Address(str(lease["ip-address"]))))


@pytest.mark.parametrize(
    "settings",
    [
        {"host_reservation_identifiers": ["client-id", "duid"]},
        {"reservations_in_subnet": False},
        {"reservations_global": True, "reservations_in_subnet": False},
    ],
)
async def test_a_kea_that_would_not_heed_a_reservation_says_so(
    release: dict[str, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    with keas.running(subnets=[SUBNET], **settings, **release) as server:
        async with member(server, tmp_path) as provider:
            with pytest.raises(Misconfigured):
                await provider.add(one(1))


async def test_one_odd_thing_in_the_configuration_hides_no_subnet(release: dict[str, Any], tmp_path: Path) -> None:
    odd = {**SUBNET, "subnet": "192.0.2.7/24", "option-data": [{"name": "interface-mtu", "data": "0x5dc"}]}
    with keas.running(subnets=[odd], **release) as server:
        async with member(server, tmp_path) as provider:
            assert one(1).subnet.network in [s.network for s in await provider.subnets()]
            await provider.add(one(1))
            assert await holds(provider, one(1))


async def test_all_that_wait_for_a_kea_that_hangs_hear_so_in_time(release: dict[str, Any], tmp_path: Path) -> None:
    with keas.running(subnets=[SUBNET], **release) as server:
        async with member(server, tmp_path, timeout_s=0.3) as provider:
            await provider.reached()
            with server.hung():
                async with asyncio.timeout(1.5):
                    found = await asyncio.gather(*(provider.reached() for _ in range(30)), return_exceptions=True)
            assert all(isinstance(e, Unavailable) for e in found)


async def test_a_host_is_removed_where_it_is(
    needs: Callable[[str], None], postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    needs("kea3")
    given: dict[str, Any] = {"root": KEA3, "alone": True, "libraries": [*BOTH, keas.PGSQL]}
    with keas.running(subnets=[SUBNET], **given) as server:
        async with member(server, tmp_path) as provider:
            await provider.add(one(1))
            # It is given a database, and other numbers.
            content = server.done("config-get")["Dhcp4"]
            content["hosts-database"] = hosts_database(postgresql_server)
            server.done("config-set", {"Dhcp4": content})
            await provider.add(one(2))
            content = server.done("config-get")["Dhcp4"]
            content["subnet4"][0]["id"] = 7
            server.done("config-set", {"Dhcp4": content})
            for gone in (one(1), one(2)):
                await provider.remove(gone)
                assert await provider.of(gone.subnet, gone.mac) is None
            server.stop(signal.SIGKILL)


async def test_a_reservation_in_a_pool_is_refused_where_kea_looks_for_none_there(
    release: dict[str, Any], tmp_path: Path
) -> None:
    ours = Subnet(IPv4Network("10.231.8.0/24"))
    with keas.running(subnets=[SUBNET], reservations_out_of_pool=True, **release) as server:
        async with member(server, tmp_path) as provider:
            outside = one(1, ip=IPv4Address("10.231.8.77"), subnet=ours)
            await provider.add(outside)
            assert (await asyncio.to_thread(server.given, str(outside.mac)))[0] == "10.231.8.77"
            with pytest.raises(Rejected, match="out-of-pool"):
                await provider.add(one(2, ip=IPv4Address("10.231.8.105"), subnet=ours))


async def test_marks_of_the_dead_are_cleared_once_kea_has_written(store: Store, one_that_is_set: KeaServer) -> None:
    async def put(uow: Writing) -> None:
        change = Change("INSERT INTO dhcp_changes (key, holder, until) VALUES (:key, '', {now} + :for_s)")
        await uow.change(
            change, [{"key": "kea unwritten a", "for_s": 86000.0}, {"key": "kea unwritten b", "for_s": 86400.0}]
        )

    await store.carry_out("test", put)
    async with commands.opened(f"unix:{one_that_is_set.control}") as asked:
        unwritten = Unwritten(asked, store)
        assert len(await unwritten.marks(own=False)) == 2
        await unwritten.settled(own=False)
        # Of the other one something may come yet.
        assert await unwritten.marks(own=False) == ["kea unwritten b"]
        async with unwritten.marked():
            assert len(await unwritten.marks(own=False)) == 1
            assert len(await unwritten.marks(own=True)) == 2
        with pytest.raises(Unavailable):
            async with unwritten.marked():
                raise Unavailable("nobody knows")
        assert len(await unwritten.marks(own=False)) == 2
