"""Scripts that register hosts, as members have them in common in the store: one asks, all get it, nobody reads it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from muster.content.handed import Said
from muster.features.registration.claims import Claim, Claims, Sealed
from muster.features.registration.scripts import Scripts
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.reading import Query
from muster.store.writing import Change

pytestmark = pytest.mark.anyio

ALL = Query("SELECT id, holder, claimed_until, ends_at, script FROM registration_scripts ORDER BY id")
URL, TOKEN = "https://proxy.test:9090", f"Bearer {'t0ken' * 10}"
SCRIPT = Said(200, "text/plain", b"#!/bin/sh\n" + b"x" * 100_000)


def claims(store: Store, *, kept_s: float = 300, within_s: float = 120, most: int = 1000) -> Claims:
    return Claims(store, kept_s=kept_s, within_s=within_s, most=most)


def member(store: Store, *, within_s: float = 120, kept_s: float = 300) -> Scripts:
    shared = claims(store, kept_s=kept_s, within_s=within_s)
    return Scripts("https://foreman.test", shared, kept_s=kept_s, asked_within_s=within_s)


async def rows(store: Store) -> list[dict[str, Any]]:
    async with store.read() as uow:
        return await uow.rows(ALL)


async def moved(store: Store, seconds: float) -> None:
    """Let everything that stands there be older, as when so long had passed."""
    async with store.write() as uow:
        await uow.changed(
            Change("UPDATE registration_scripts SET ends_at = ends_at - :s, claimed_until = claimed_until - :s"),
            {"s": seconds},
        )


class Foreman:
    def __init__(self, said: Said = SCRIPT) -> None:
        self.said, self.times, self.may = said, 0, asyncio.Event()

    async def __call__(self) -> Said:
        self.times += 1
        await self.may.wait()
        return self.said


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_one_has_the_claim_until_the_script_stands_there(store: Store) -> None:
    ours = claims(store)
    claim = await ours.standing("k")
    assert isinstance(claim, Claim)
    assert await ours.standing("k") is None
    assert isinstance(await ours.standing("other"), Claim)
    await ours.keep(claim, b"\x00\xffsealed")
    found = await ours.standing("k")
    assert isinstance(found, Sealed)
    assert found.script == b"\x00\xffsealed"
    assert 290 < found.left_s <= 300


async def test_of_many_at_once_one_has_the_claim(store: Store) -> None:
    found = await asyncio.gather(*(claims(store).standing("k") for _ in range(8)))
    assert sum(isinstance(one, Claim) for one in found) == 1
    assert found.count(None) == 7


async def test_a_claim_that_is_released_or_has_ended_is_another_s(store: Store) -> None:
    ours = claims(store)
    first = await ours.standing("k")
    assert isinstance(first, Claim)
    await ours.release(first)
    assert await rows(store) == []
    second = await ours.standing("k")
    assert isinstance(second, Claim)
    await moved(store, 121)
    third = await ours.standing("k")
    assert isinstance(third, Claim)
    # Who was away for so long changes nothing any more.
    await ours.release(second)
    await ours.keep(second, b"late")
    assert await ours.standing("k") is None
    await ours.keep(third, b"in time")
    await ours.release(third)
    found = await ours.standing("k")
    assert isinstance(found, Sealed)
    assert found.script == b"in time"


async def test_a_script_ends_and_so_does_what_is_from_the_future(store: Store) -> None:
    ours = claims(store)
    for seconds in (301, -200):
        claim = await ours.standing("k")
        assert isinstance(claim, Claim), seconds
        await ours.keep(claim, b"x")
        await moved(store, seconds)
    assert isinstance(await ours.standing("k"), Claim), "the store's clock was set back since"
    await moved(store, -200)
    assert isinstance(await ours.standing("k"), Claim)


async def test_what_has_ended_goes_and_of_too_many_those_that_end_first(store: Store) -> None:
    ours = claims(store, most=3)
    for id in ("old", "dead"):
        claim = await ours.standing(id)
        assert isinstance(claim, Claim)
        if id == "old":
            await ours.keep(claim, b"x")
    await moved(store, 310)
    asking = await ours.standing("asking")
    for id in "abcd":
        claim = await ours.standing(id)
        assert isinstance(claim, Claim)
        await ours.keep(claim, b"x")
        await moved(store, 1)
    assert [row["id"] for row in await rows(store)] == ["asking", "b", "c", "d"]
    assert isinstance(asking, Claim)


async def test_members_ask_foreman_once_and_the_store_tells_nothing(store: Store) -> None:
    foreman, members = Foreman(), [member(store) for _ in range(3)]
    given = {"activation_keys": "secret-key"}
    asking = [
        asyncio.ensure_future(one.script(one.key(URL, given, TOKEN), foreman)) for one in members for _ in range(70)
    ]
    await until(lambda: foreman.times == 1)
    await asyncio.sleep(0.3)
    foreman.may.set()
    assert set(await asyncio.gather(*asking)) == {SCRIPT}
    assert foreman.times == 1
    later = member(store)
    assert await later.script(later.key(URL, given, TOKEN), foreman) == SCRIPT
    assert foreman.times == 1
    await later.script(later.key(URL, given, f"{TOKEN}x"), foreman)
    assert foreman.times == 2
    stands = repr(await rows(store)).lower()
    assert not [word for word in ("secret-key", "t0ken", "bin/sh", "proxy.test") if word in stands]


async def test_a_member_that_dies_while_it_asks_is_followed(store: Store) -> None:
    dead, other, foreman, hung = member(store, within_s=1), member(store, within_s=1), Foreman(), Foreman()
    foreman.may.set()
    task = asyncio.ensure_future(dead.script(dead.key(URL, {}, TOKEN), hung))
    await until(lambda: hung.times == 1)
    assert await other.script(other.key(URL, {}, TOKEN), foreman) == SCRIPT
    assert foreman.times == 1
    hung.may.set()
    assert await task == SCRIPT


async def test_another_answer_makes_the_next_member_ask_and_stands_nowhere(store: Store) -> None:
    foreman, members = Foreman(Said(401, "text/plain", b"no")), [member(store) for _ in range(3)]
    foreman.may.set()
    found = await asyncio.gather(*(m.script(m.key(URL, {}, TOKEN), foreman) for m in members for _ in range(30)))
    assert {said.status for said in found} == {401}
    assert foreman.times <= 3
    assert await rows(store) == []


async def test_hosts_with_a_password_make_no_row(store: Store) -> None:
    one, foreman = member(store), Foreman()
    foreman.may.set()
    await one.script(one.key(URL, {}, "Basic YWRtaW46Y2hhbmdlbWU="), foreman)
    assert await rows(store) == []


async def test_without_a_store_each_member_asks_for_itself() -> None:
    # Nothing listens there.
    async with opened(Secret("postgresql://nobody@127.0.0.1:1/none")) as away:
        with pytest.raises(Unavailable):
            await away.ping()
        foreman, members = Foreman(), [member(away) for _ in range(2)]
        foreman.may.set()
        found = await asyncio.gather(*(m.script(m.key(URL, {}, TOKEN), foreman) for m in members for _ in range(50)))
    assert set(found) == {SCRIPT}
    assert foreman.times == 2
