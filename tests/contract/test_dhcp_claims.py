"""What members know of each other's addresses (``features/dhcp/claims.py``), on both databases."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Any

import pytest

from muster.features.dhcp import claims as under_test
from muster.features.dhcp.claims import Claims, new_holder
from muster.kernel.errors import Unavailable
from muster.kernel.names import MACAddress
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change

pytestmark = pytest.mark.anyio

FIRST = IPv4Address("192.0.2.1")
MAC, OTHER = MACAddress.parse("52:54:00:aa:00:01"), MACAddress.parse("52:54:00:aa:00:02")


def addresses(count: int, start: int = 0) -> list[IPv4Address]:
    return [FIRST + start + n for n in range(count)]


def of_a_member(store: Store, *, held_s: float = 1800, fresh_s: float = 60) -> Claims:
    return Claims(store, held_s=held_s, fresh_s=fresh_s)


async def states(claims: Claims) -> dict[str, str]:
    live = await claims.live(FIRST, FIRST + 200)
    return {str(a).rpartition(".")[2]: c.state for a, c in live.items()}


async def reserved_for(claims: Claims, address: IPv4Address) -> str | None:
    claim = (await claims.live(address, address)).get(address)
    return claim.mac if claim is not None and claim.state == "reserved" else None


async def passed(store: Store, seconds: float) -> None:
    """Let everything that stands there be older, as when so long had passed."""
    async with store.write() as uow:
        await uow.changed(Change("UPDATE dhcp_claims SET at = at - :s, until = until - :s"), {"s": seconds})
        await uow.changed(Change("UPDATE dhcp_changes SET until = until - :s"), {"s": seconds})


async def test_what_one_probes_no_other_does_and_what_is_silent_is_everybodys(store: Store) -> None:
    one, other = of_a_member(store), of_a_member(store)
    mine, yours = new_holder(), new_holder()
    assert await one.probing(addresses(4), mine) == addresses(4)
    assert await other.probing(addresses(4, 2), yours) == addresses(2, 4)
    await one.probed(mine, silent=addresses(3), answered=addresses(1, 3))
    # What another probes is not this one's to settle.
    await one.probed(mine, silent=addresses(2, 4), answered=())
    assert await states(other) == {
        "1": "free",
        "2": "free",
        "3": "free",
        "4": "answered",
        "5": "probing",
        "6": "probing",
    }
    assert await other.promise(FIRST, str(MAC), yours)
    assert not await one.promise(FIRST, str(OTHER), mine)
    live = await one.live(FIRST, FIRST)
    assert (live[FIRST].state, live[FIRST].mac) == ("promised", str(MAC))


async def test_of_many_at_once_one_is_promised_each_address(store: Store) -> None:
    holder = new_holder()
    members = [of_a_member(store) for _ in range(3)]
    await members[0].probing(addresses(8), holder)
    await members[0].probed(holder, silent=addresses(8), answered=())
    given = await asyncio.gather(
        *(members[n % 3].promise(a, "", new_holder()) for a in addresses(8) for n in range(6))
    )  # fmt: skip
    assert sum(given) == 8


async def test_of_many_that_take_the_same_addresses_each_is_taken_once(store: Store) -> None:
    taken = await asyncio.gather(*(of_a_member(store).probing(addresses(16), new_holder()) for _ in range(12)))
    assert sorted(a for some in taken for a in some) == addresses(16)


async def test_whoever_probes_may_promise_what_it_probes_and_nobody_else(store: Store) -> None:
    one, mine = of_a_member(store), new_holder()
    await one.probing(addresses(1), mine)
    assert not await of_a_member(store).promise(FIRST, "", new_holder())
    assert await one.promise(FIRST, "", mine)
    assert not await one.promise(FIRST, "", mine)


async def test_what_a_dead_member_probed_is_free_again_and_its_promise_stands(store: Store) -> None:
    dead, other = of_a_member(store), of_a_member(store)
    holder = new_holder()
    await dead.probing(addresses(2), holder)
    assert await dead.promise(FIRST, "", holder)
    await passed(store, under_test.PROBED_WITHIN_S + 1)
    assert await states(other) == {"1": "promised"}
    assert await other.probing(addresses(2), new_holder()) == addresses(1, 1)
    # It was only slow: what it says now counts no more.
    await dead.probed(holder, silent=addresses(1, 1), answered=())
    assert not await dead.promise(FIRST + 1, "", holder)
    await passed(store, 1800)
    assert await states(other) == {}


async def test_minutes_are_minutes(store: Store) -> None:
    one, holder = of_a_member(store, held_s=30 * 60), new_holder()
    await one.probing(addresses(1), holder)
    await one.promise(FIRST, "", holder)
    await passed(store, 29 * 60)
    assert await states(one) == {"1": "promised"}
    await passed(store, 61)
    assert await states(one) == {}


async def test_what_was_found_free_is_free_for_a_while(store: Store) -> None:
    one, holder = of_a_member(store, fresh_s=60), new_holder()
    await one.probing(addresses(1), holder)
    await one.probed(holder, silent=addresses(1), answered=())
    await passed(store, 61)
    assert not await one.promise(FIRST, "", new_holder())
    assert await states(one) == {}


async def test_what_a_server_offered_is_promised_unless_it_is_claimed(store: Store) -> None:
    one = of_a_member(store)
    assert await one.promised_as_offered(FIRST, str(MAC))
    assert not await of_a_member(store).promised_as_offered(FIRST, str(OTHER))
    await one.probing(addresses(1, 1), new_holder())
    assert not await one.promised_as_offered(FIRST + 1, str(MAC))
    assert (await one.live(FIRST, FIRST))[FIRST].mac == str(MAC)


async def test_ended_rows_are_dropped_after_a_while(store: Store) -> None:
    one = of_a_member(store, held_s=10)
    assert await one.promised_as_offered(FIRST, "")
    assert await one.promised_as_offered(FIRST + 1, "")
    await passed(store, 30)
    assert await one.promised_as_offered(FIRST + 2, "")
    await passed(store, 41)
    await one.forget()
    async with store.read() as uow:
        left = await uow.rows(Query("SELECT address FROM dhcp_claims"))
    assert [IPv4Address(row["address"]) for row in left] == [FIRST + 2]


# Changes


async def test_one_call_at_a_time_changes_an_address_or_a_hardware_address(store: Store) -> None:
    inside: list[str] = []
    at_once: list[int] = []

    async def changed(name: str, ip: IPv4Address, mac: MACAddress) -> None:
        async with of_a_member(store).changing(ip, mac):
            inside.append(name)
            at_once.append(len(inside))
            await asyncio.sleep(0.02)
            inside.remove(name)

    await asyncio.gather(
        *(changed(f"{n}", FIRST, MAC) for n in range(3)), *(changed(f"m{n}", FIRST + n, MAC) for n in range(3))
    )
    assert max(at_once) == 1


async def test_calls_about_others_do_not_wait(store: Store) -> None:
    async with of_a_member(store).changing(FIRST, MAC):
        async with asyncio.timeout(5):
            async with of_a_member(store).changing(FIRST + 1, OTHER):
                pass


async def test_whoever_waits_for_too_long_is_told_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_WAITED_S", 0.2)
    async with of_a_member(store).changing(FIRST, MAC):
        with pytest.raises(
            Unavailable, match=r"^192.0.2.1, 52:54:00:aa:00:02: another call changes the same reservation"
        ):
            async with of_a_member(store).changing(FIRST, OTHER):
                pytest.fail("it was held")


async def test_what_a_dead_member_was_changing_is_not_held_for_ever(store: Store) -> None:
    dead = of_a_member(store).changing(FIRST, MAC)
    await dead.__aenter__()
    await passed(store, under_test.HELD_S + 1)
    async with asyncio.timeout(5):
        async with of_a_member(store).changing(FIRST, MAC) as change:
            await change.reserve(FIRST, MAC)


async def test_a_reservation_is_known_to_all_before_their_servers_show_it(store: Store) -> None:
    one, other = of_a_member(store), of_a_member(store)
    async with one.changing(FIRST, MAC) as change:
        await change.reserve(FIRST, MAC)
    assert await reserved_for(other, FIRST) == str(MAC)
    assert await reserved_for(other, FIRST + 1) is None
    # Nor is it offered.
    assert await other.probing(addresses(2), new_holder()) == addresses(1, 1)
    async with other.changing(FIRST, MAC) as change:
        change.refused(FIRST, MAC)
    assert await reserved_for(one, FIRST) is None


async def test_that_an_address_was_promised_is_forgotten_with_its_reservation(store: Store) -> None:
    one = of_a_member(store)
    assert await one.promised_as_offered(FIRST, str(MAC))
    async with one.changing(FIRST, MAC) as change:
        await change.reserve(FIRST, MAC)
    await passed(store, under_test.SETTLED_S + 1)
    assert await states(one) == {}


async def test_a_change_that_failed_leaves_nothing(store: Store) -> None:
    one = of_a_member(store)
    with pytest.raises(RuntimeError):
        async with one.changing(FIRST, MAC):
            raise RuntimeError
    async with store.read() as uow:
        rows: list[dict[str, Any]] = await uow.rows(Query("SELECT key FROM dhcp_changes"))
    assert rows == []
    assert await states(one) == {}


async def test_whoever_took_too_long_may_not_go_on(store: Store) -> None:
    one, other = of_a_member(store), of_a_member(store)
    async with one.changing(FIRST, MAC) as change:
        await passed(store, under_test.HELD_S + 1)
        async with other.changing(FIRST, MAC) as theirs:
            await theirs.reserve(FIRST, MAC)
            with pytest.raises(
                Unavailable, match=r"^Changing the reservation of 192.0.2.1 took too long; nothing was changed"
            ):
                await change.reserve(FIRST, OTHER)
    assert await reserved_for(one, FIRST) == str(MAC)


async def test_a_change_has_an_end_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "CHANGED_WITHIN_S", 0.1)
    one = of_a_member(store)

    async def slow() -> None:
        async with one.changing(FIRST, MAC) as change:
            await change.reserve(FIRST, MAC)
            await asyncio.sleep(10)

    with pytest.raises(Unavailable, match=r"took longer than 0\.1 s; whether it was changed is unknown"):
        await slow()
    # Nobody knows what the DHCP server did: others keep off.
    assert await reserved_for(one, FIRST) == str(MAC)


async def test_a_call_that_is_cancelled_anywhere_holds_nothing(store: Store) -> None:
    one = of_a_member(store)

    async def changed() -> None:
        async with one.changing(FIRST, MAC) as change:
            await change.reserve(FIRST, MAC)
            change.refused(FIRST, MAC)

    for n in range(40):
        task = asyncio.create_task(changed())
        await asyncio.sleep(n * 0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):
        while True:
            async with store.read() as uow:
                if not await uow.rows(Query("SELECT key FROM dhcp_changes")):
                    break
            await asyncio.sleep(0.05)


async def test_what_one_port_of_a_bond_leaves_the_other_has_still(store: Store) -> None:
    one = of_a_member(store)
    for mac in (MAC, OTHER):
        async with one.changing(FIRST, mac) as change:
            await change.reserve(FIRST, mac)
    async with one.changing(FIRST, MAC) as change:
        change.refused(FIRST, MAC)
    assert await reserved_for(one, FIRST) == str(OTHER)


async def test_a_lock_from_before_the_clock_was_set_back_is_void(store: Store) -> None:
    dead = of_a_member(store).changing(FIRST, MAC)
    await dead.__aenter__()
    await passed(store, -3600)
    async with asyncio.timeout(5), of_a_member(store).changing(FIRST, MAC):
        pass


async def test_a_lock_holds_when_the_clock_goes_back_a_little(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_WAITED_S", 0.1)
    async with of_a_member(store).changing(FIRST, MAC):
        await passed(store, -5)
        with pytest.raises(Unavailable):
            async with of_a_member(store).changing(FIRST, MAC):
                pytest.fail("two change it at once")


async def test_a_machine_keeps_what_nobody_else_was_told(store: Store) -> None:
    one, other = of_a_member(store), of_a_member(store)
    assert await one.keep(FIRST, MAC)
    assert await other.keep(FIRST, MAC)
    assert not await other.keep(FIRST, OTHER)
    assert not await other.promised_as_offered(FIRST, "")
    assert await other.promised_as_offered(FIRST + 1, "")
    assert not await one.keep(FIRST + 1, MAC)
    async with one.changing(FIRST + 2, MAC) as change:
        await change.reserve(FIRST + 2, MAC)
    assert await other.keep(FIRST + 2, MAC)
    assert not await other.keep(FIRST + 2, OTHER)


async def test_dropping_what_ended_and_taking_it_again_do_not_hinder_each_other(store: Store) -> None:
    one = of_a_member(store)
    await one.probing(addresses(200), new_holder())
    for _ in range(5):
        await passed(store, 3600)
        await asyncio.gather(
            *(of_a_member(store).probing(addresses(24, 8 * n), new_holder()) for n in range(22)),
            *(of_a_member(store).forget() for _ in range(3)),
        )


async def test_whoever_changes_an_address_is_told_for_whom_it_was_reserved(store: Store) -> None:
    one, other = of_a_member(store), of_a_member(store)
    async with one.changing(FIRST, MAC) as change:
        assert change.reserved_for is None
        await change.reserve(FIRST, MAC)
    async with other.changing(FIRST, OTHER) as change:
        assert change.reserved_for == str(MAC)
    await passed(store, under_test.SETTLED_S + 1)
    async with other.changing(FIRST, OTHER) as change:
        assert change.reserved_for is None
