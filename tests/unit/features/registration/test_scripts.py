from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.content.handed import Said
from muster.edge.params import from_query
from muster.features.registration import scripts
from muster.features.registration.claims import Claim, Sealed
from muster.features.registration.scripts import Key, Scripts
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

FOREMAN, URL, TOKEN = "https://foreman.test", "https://proxy.test:9090", f"Bearer {'t0ken' * 10}"
SCRIPT = Said(200, "text/plain", b"#!/bin/sh\n")


def key(query: bytes = b"a=1&b=2", proof: str = TOKEN, *, url: str = URL, foreman: str = FOREMAN) -> Key:
    return Key.of(foreman, url, from_query(query), proof)


class Foreman:
    """Answers when it is let."""

    def __init__(self, said: Said | Exception = SCRIPT) -> None:
        self.said = said
        self.times = 0
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self) -> Said:
        self.times += 1
        await self.may.wait()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class Claims:
    """The store of one test: what stands there, and what was done."""

    def __init__(self, *standing: Sealed | Claim | Exception | None) -> None:
        self.standings = list(standing)
        self.done: list[tuple[str, str, bytes]] = []
        self.error: Exception | None = None

    async def standing(self, id: str) -> Sealed | Claim | None:
        one = self.standings.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    async def keep(self, claim: Claim, script: bytes) -> None:
        if self.error:
            raise self.error
        self.done.append(("keep", claim.holder, script))

    async def release(self, claim: Claim) -> None:
        self.done.append(("release", claim.holder, b""))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def alone(clock: Callable[[], float] = lambda: 0.0, *, claims: Any = None, kept_s: float = 300, **more: Any) -> Scripts:
    return Scripts(FOREMAN, claims, kept_s=kept_s, asked_within_s=120, monotonic=clock, **more)


async def together(*asked: Awaitable[Said]) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


def test_what_may_change_an_answer_is_the_key() -> None:
    others = [
        key(b"a=1&b=3"), key(b"a=1"), key(proof="Bearer other"), key(proof=""), key(url="https://other.test"),
        key(foreman="https://other.test"), key(b"a=1&b=2&c"), key(b"b[]=2&b[]=1&a=1"), key(b"b[]=1&b[]=2&a=1"),
        key(b"r[][x]=1&r[][y]=2&r[][x]=3"), key(b"r[][x]=1&r[][x]=3&r[][y]=2"),
    ]  # fmt: skip
    assert len({k.id for k in (key(), *others)}) == len(others) + 1
    assert len({k.cipher for k in (key(), *others)}) == len(others) + 1
    assert key() == key(b"b=2&a=1"), "the order of parameters is none of Foreman's matters"


def test_a_key_shows_nothing_of_what_it_is_made() -> None:
    found = key()
    assert TOKEN not in repr(found)
    assert found.cipher.hex() not in repr(found)
    assert found.id != found.cipher.hex()


@pytest.mark.parametrize("proof", ["", "Basic YWRtaW46Y2hhbmdlbWU=", "Bearer short", "Bearer " + "x y" * 20, "x" * 50])
def test_what_may_be_guessed_is_kept_from_the_store(proof: str) -> None:
    assert not key(proof=proof).is_shared
    assert key(proof=TOKEN).is_shared
    assert key(proof=TOKEN.replace("B", "b", 1)).is_shared


def test_only_who_has_the_token_can_read_what_is_kept() -> None:
    sealed = key().sealed(b"script")
    assert b"script" not in sealed
    assert sealed != key().sealed(b"script")
    assert key().opened(sealed) == b"script"
    moved = Key("f" * 64, key().cipher, is_shared=True)
    for other, given in (
        (key(proof="Bearer x"), sealed), (moved, sealed), (key(), sealed[:-1]), (key(), b""), (key(), b"0" * 40),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match="none that a member put there"):
            other.opened(given)


async def test_all_who_come_meanwhile_share_one_question_and_later_ones_what_came_of_it() -> None:
    foreman, clock = Foreman(), Clock()
    kept = alone(clock)
    found = await together(*(kept.script(key(), foreman) for _ in range(200)))
    assert found == [SCRIPT] * 200
    assert foreman.times == 1
    clock.now += 299
    assert await kept.script(key(), foreman) == SCRIPT
    assert foreman.times == 1
    await kept.script(key(proof=f"{TOKEN}x"), foreman)
    assert foreman.times == 2, "another token is another question"
    clock.now += 2
    await kept.script(key(), foreman)
    assert foreman.times == 3


@pytest.mark.parametrize("said", [Said(401, "text/plain", b"no"), Said(201, "text/plain", b"x"), Unavailable("away")])
async def test_another_answer_is_for_those_who_waited_and_is_not_kept(said: Said | Exception) -> None:
    foreman, kept = Foreman(said), alone()
    assert await together(*(kept.script(key(), foreman) for _ in range(5))) == [said] * 5
    assert foreman.times == 1
    await together(kept.script(key(), foreman))
    assert foreman.times == 2


async def test_a_script_that_is_too_long_is_not_kept() -> None:
    foreman = Foreman(Said(200, "text/plain", b"x" * (scripts.LONGEST_BYTES + 1)))
    kept = alone()
    for times in (1, 2):
        await kept.script(key(), foreman)
        assert foreman.times == times


async def test_nothing_is_kept_where_that_is_wished() -> None:
    foreman, claims = Foreman(), Claims()
    kept = alone(kept_s=0, claims=claims)
    await kept.script(key(), foreman)
    await kept.script(key(), foreman)
    assert foreman.times == 2
    assert not claims.done


async def test_so_many_scripts_are_kept_and_no_more() -> None:
    foreman, kept = Foreman(), alone()
    for n in range(70):
        await kept.script(key(b"n=%d" % n), foreman)
    await kept.script(key(b"n=69"), foreman)
    assert foreman.times == 70
    await kept.script(key(b"n=0"), foreman)
    assert foreman.times == 71


async def test_a_host_that_leaves_takes_the_answer_from_nobody() -> None:
    foreman, kept = Foreman(), alone()
    foreman.may.clear()
    first, second = (asyncio.ensure_future(kept.script(key(), foreman)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    foreman.may.set()
    assert await second == SCRIPT
    assert foreman.times == 1
    assert first.cancelled()


async def test_what_another_member_fetched_is_given_for_as_long_as_it_is_good() -> None:
    foreman, clock = Foreman(), Clock()
    claims = Claims(Sealed(key().sealed(b"theirs"), 10.0), Claim("id", "me"))
    kept = alone(clock, claims=claims)
    assert (await kept.script(key(), foreman)).body == b"theirs"
    assert not foreman.times
    clock.now += 9
    assert (await kept.script(key(), foreman)).body == b"theirs"
    assert not foreman.times
    clock.now += 2
    assert (await kept.script(key(), foreman), claims.standings) == (SCRIPT, [])


async def test_who_has_the_claim_asks_and_tells_the_others() -> None:
    foreman, claims = Foreman(), Claims(Claim("id", "me"))
    await alone(claims=claims).script(key(), foreman)
    ((what, holder, sealed),) = claims.done
    assert (what, holder, key().opened(sealed)) == ("keep", "me", SCRIPT.body)


@pytest.mark.parametrize("said", [Said(401, "text/plain", b"no"), Unavailable("away")])
async def test_who_got_no_script_lets_others_ask(said: Said | Exception) -> None:
    claims = Claims(Claim("id", "me"))
    assert await together(alone(claims=claims).script(key(), Foreman(said))) == [said]
    assert claims.done == [("release", "me", b"")]


async def test_the_others_look_again_ever_less_often_and_each_member_once() -> None:
    foreman, clock = Foreman(), Clock()
    claims = Claims(*[None] * 9, Sealed(key().sealed(b"theirs"), 10.0))
    kept = alone(clock, claims=claims, pause=clock.pause)
    found = await together(*(kept.script(key(), foreman) for _ in range(50)))
    assert {s.body for s in found} == {b"theirs"}
    assert not foreman.times
    assert not claims.standings
    assert clock.pauses[0] == 0.15
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[-1] == 1.0


async def test_nobody_waits_longer_than_a_claim_is_good_for() -> None:
    foreman, clock = Foreman(), Clock()
    kept = alone(clock, claims=Claims(*[None] * 1000), pause=clock.pause)
    assert await kept.script(key(), foreman) == SCRIPT
    assert foreman.times == 1
    assert 120 < clock.now - 1000 < 130


@pytest.mark.parametrize("trouble", [Unavailable("the store is away"), TimeoutError(), Sealed(b"damaged" * 9, 10.0)])
async def test_without_the_store_foreman_is_asked_at_once(trouble: Any) -> None:
    foreman, clock = Foreman(), Clock()
    claims = Claims(trouble, Claim("id", "me"))
    kept = alone(clock, claims=claims)
    assert await kept.script(key(), foreman) == SCRIPT
    assert foreman.times == 1
    await kept.script(key(b"n=1"), foreman)
    assert (foreman.times, len(claims.standings)) == (2, 1), "a store that was away is left alone for a while"
    clock.now += 6
    await kept.script(key(b"n=2"), foreman)
    assert not claims.standings


async def test_a_store_that_takes_nothing_costs_nobody_a_script() -> None:
    foreman, claims = Foreman(), Claims(Claim("id", "me"))
    claims.error = Unavailable("the store is away")
    assert await alone(claims=claims).script(key(), foreman) == SCRIPT


async def test_many_questions_at_once_do_not_make_the_store_busy() -> None:
    foreman = Foreman()
    foreman.may.clear()
    claims = Claims(*(Claim("id", str(n)) for n in range(100)))
    kept = alone(claims=claims)
    asking = [asyncio.ensure_future(kept.script(key(b"n=%d" % n), foreman)) for n in range(100)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert foreman.times == 100
    assert len(claims.standings) == 68
    foreman.may.set()
    assert await together(*asking) == [SCRIPT] * 100


async def test_what_still_runs_is_ended_and_lets_others_ask() -> None:
    foreman, claims = Foreman(), Claims(Claim("id", "me"))
    foreman.may.clear()
    kept = alone(claims=claims)
    asking = asyncio.ensure_future(kept.script(key(), foreman))
    while not foreman.times:
        await asyncio.sleep(0)
    await kept.aclose()
    assert claims.done == [("release", "me", b"")]
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_that_the_store_is_away_is_said_once_by_all_who_found_it() -> None:
    kept = alone(claims=Claims(*[Unavailable("the store is away")] * 20))
    waiting = asyncio.Event()

    async def standing(id: str) -> None:
        await waiting.wait()
        raise Unavailable("the store is away")

    kept._claims.standing = standing  # type: ignore[union-attr, method-assign]
    with capture_logs() as said:
        asking = [asyncio.ensure_future(kept.script(key(b"n=%d" % n), Foreman())) for n in range(20)]
        for _ in range(10):
            await asyncio.sleep(0)
        waiting.set()
        assert await together(*asking) == [SCRIPT] * 20
    assert ["asked by this member alone" in one["event"] for one in said] == [True]
