"""Turns of members that change hosts of a realm (``features/realm/turns.py``), on both stores."""

from __future__ import annotations

import asyncio

import pytest

from muster.features.realm import turns
from muster.features.realm.active_directory.directory import NotConnected
from muster.features.realm.contract import Account, Wanted
from muster.features.realm.kerberos import KDCSilent
from muster.features.realm.providers.memory import MemoryRealm
from muster.features.realm.service import Realm
from muster.features.realm.turns import Turns
from muster.kernel.errors import Conflict, Rejected, Unavailable
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

pytestmark = pytest.mark.anyio
WEB, DB = FQDN("web01.example.com"), FQDN("db01.example.com")


def members(store: Store) -> tuple[Turns, Turns]:
    return Turns(Leases(store), "proxy01.example.com", 25), Turns(Leases(store), "proxy02.example.com", 25)


async def test_whoever_wants_a_password_while_another_member_makes_one_is_refused(store: Store) -> None:
    one, other = members(store)
    async with one.turn(WEB, is_patient=False):
        with pytest.raises(Conflict, match="Another call changes WEB01"):
            async with other.turn(FQDN("WEB01.example.com"), is_patient=False):
                raise AssertionError("it was let in")
    async with other.turn(WEB, is_patient=False):
        pass


async def test_of_two_members_asked_for_one_host_at_once_the_one_that_answers_tells_what_counts(store: Store) -> None:
    begun, refused = asyncio.Event(), asyncio.Event()

    class Slow(MemoryRealm):
        """Makes a password, and answers when another call was refused."""

        counts: Secret | None = None

        async def enrol(self, wanted: Wanted) -> Account:
            account = await super().enrol(wanted)
            self.counts = account.password
            begun.set()
            await refused.wait()
            return account

    kept = Slow()
    one, other = (Realm(kept, "EXAMPLE.COM", turn) for turn in members(store))
    first = asyncio.create_task(one.enrol("EXAMPLE.COM", WEB, None, is_rebuilt=True, is_update=False))
    await begun.wait()
    with pytest.raises(Conflict):
        await other.enrol("EXAMPLE.COM", WEB, None, is_rebuilt=True, is_update=False)
    refused.set()
    told = await first
    assert kept.counts is not None
    assert told["randompassword"] == kept.counts.reveal()
    again = await other.enrol("EXAMPLE.COM", WEB, None, is_rebuilt=True, is_update=False)
    assert again["randompassword"] == kept.counts.reveal()


async def test_within_one_member_it_is_the_same(store: Store) -> None:
    one, _ = members(store)
    async with one.turn(WEB, is_patient=False):
        with pytest.raises(Conflict):
            async with one.turn(WEB, is_patient=False):
                raise AssertionError("it was let in")


async def test_whoever_removes_a_host_waits_for_another_member(store: Store) -> None:
    one, other = members(store)
    order: list[str] = []

    async def remove() -> None:
        async with other.turn(WEB, is_patient=True):
            order.append("removed")

    async with one.turn(WEB, is_patient=False):
        removing = asyncio.create_task(remove())
        await asyncio.sleep(0.3)
        order.append("made")
    await removing
    assert order == ["made", "removed"]


async def test_hosts_that_share_a_lease_wait_for_each_other_and_are_not_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_NAMES", 1)
    one, other = members(store)
    begun = asyncio.Event()

    async def second() -> None:
        begun.set()
        async with other.turn(DB, is_patient=False):
            pass

    async with one.turn(WEB, is_patient=False):
        waiting = asyncio.create_task(second())
        await begun.wait()
        await asyncio.sleep(0.2)
        assert not waiting.done()
    await waiting


async def test_whoever_waits_too_long_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_WAITED_S", 0.2)
    one, other = members(store)
    async with one.turn(WEB, is_patient=False):
        with pytest.raises(Unavailable, match="nothing was changed"):
            async with other.turn(WEB, is_patient=True):
                raise AssertionError("it was let in")


async def test_the_turn_of_a_member_that_died_ends_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SETTLED_S", -24.5)
    one, other = members(store)
    turn = one.turn(WEB, is_patient=False)
    await turn.__aenter__()
    async with other.turn(WEB, is_patient=True):
        pass
    # What comes back to life gives back nothing of the other's.
    await turn.__aexit__(None, None, None)


async def test_a_store_that_is_away_stops_nobody(store: Store) -> None:
    class Away(Leases):
        async def acquire(self, name: str, holder: str, ttl_s: float) -> None:
            raise Unavailable("the store does not answer")

    async with Turns(Away(store), "proxy01.example.com", 25).turn(WEB, is_patient=False):
        pass


class Silent(MemoryRealm):
    """Answers what it was told to, with no password."""

    async def enrol(self, wanted: Wanted) -> Account:
        raise self.said

    async def remove(self, realm: str, host: FQDN) -> None:
        raise self.said

    def __init__(self, said: BaseException) -> None:
        super().__init__()
        self.said = said


@pytest.mark.parametrize("said", [Unavailable("it timed out"), asyncio.CancelledError()])
async def test_what_was_not_answered_may_be_done_yet_so_no_password_is_told_after_it(
    store: Store, said: BaseException
) -> None:
    one, other = members(store)
    silent = Realm(Silent(said), "EXAMPLE.COM", one)
    with pytest.raises(type(said)):
        await silent.enrol("EXAMPLE.COM", WEB, None, is_rebuilt=True, is_update=False)
    with pytest.raises(Conflict, match="was not answered"):
        await Realm(MemoryRealm(), "EXAMPLE.COM", other).enrol(
            "EXAMPLE.COM", WEB, None, is_rebuilt=True, is_update=False
        )


@pytest.mark.parametrize("said", [NotConnected("nobody there"), KDCSilent("nobody there"), Rejected("no")])
async def test_what_changed_nothing_stands_in_nobodys_way(store: Store, said: BaseException) -> None:
    one, other = members(store)
    with pytest.raises(type(said)):
        await Realm(Silent(said), "EXAMPLE.COM", one).remove("EXAMPLE.COM", WEB)
    async with other.turn(WEB, is_patient=False):
        pass


async def test_a_turn_lasts_longer_than_the_longest_change(store: Store) -> None:
    leases: list[float] = []

    class Seen(Leases):
        async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
            leases.append(ttl_s)
            return await super().acquire(name, holder, ttl_s)

    turn = Turns(Seen(store), "proxy01.example.com", 600)
    async with turn.turn(WEB, is_patient=False):
        pass
    assert leases[0] > 600
