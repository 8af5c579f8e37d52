"""Repairs of groups, on both stores: nothing is made over what was asked for later, nor keeps up what it need not."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import update

from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.policy.groups import everywhere, journal
from muster.policy.groups import grouped as groups
from muster.policy.groups.everywhere import All
from muster.policy.groups.grouped import grouped
from muster.policy.groups.journal import Journal, Written, decided, repairs
from muster.policy.groups.leader import Agreement, Leader
from muster.store.engine import Store
from muster.store.tables import group_changes, group_leaders, group_repairs
from tests.contract.test_groups import DOWN, Book, InText, Pages, Site

pytestmark = pytest.mark.anyio

_HOUR_S = 3600.0


class Choosy(Book):
    """A provider that says something else of some names than of others."""

    def __init__(self) -> None:
        super().__init__()
        self.says: dict[str, Exception] = {}

    async def add(self, name: str, value: str) -> None:
        if name in self.says:
            raise self.says[name]
        await super().add(name, value)

    async def remove(self, name: str) -> None:
        if name in self.says:
            raise self.says[name]
        await super().remove(name)


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store, Choosy(), Choosy())


def says(book: Book) -> dict[str, Exception]:
    assert isinstance(book, Choosy)
    return book.says


async def of(site: Site) -> list[tuple[str, str, bool]]:
    return [(r.provider, r.written.operation, r.is_stuck) for r in await repairs(site.store)]


async def test_what_was_refused_long_ago_is_not_made_over_what_was_asked_for_since(site: Site) -> None:
    pages, _ = site.member()
    site.other.pages["a"] = "somebody's"
    await pages.add("a", "1")
    (refused,) = await repairs(site.store)
    del site.other.pages["a"]
    await pages.remove("a")
    # Whoever read the list before has it tried now.
    with contextlib.suppress(NotFound):
        await decided(site.store, refused.id, drop=False)
    await site.repaired()
    assert site.one.pages == site.other.pages == {}
    assert await repairs(site.store) == []


async def test_a_removal_that_was_refused_does_not_take_what_was_added_since(site: Site) -> None:
    pages, _ = site.member()
    await pages.add("a", "1")
    says(site.other)["a"] = Rejected("not by you")
    await pages.remove("a")
    del says(site.other)["a"]
    await pages.add("a", "2")
    # It comes behind the removal, and waits for a person with it.
    assert await of(site) == [("other", "remove", True), ("other", "add", True)]
    _, later = await repairs(site.store)
    await decided(site.store, later.id, drop=False)
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "2"}
    assert await repairs(site.store) == []


async def test_who_refused_is_asked_when_nobody_else_is_left(site: Site) -> None:
    pages, _ = site.member()
    await pages.add("a", "1")
    for book in (site.one, site.other):
        says(book)["a"] = Rejected("not by you")
    written = Written("a", "remove", ["a"])
    _, way = site.member(held_s=0)
    await way.journal.begin(written)
    await way.journal.recover()
    await site.repaired()
    assert await of(site) == [("one", "remove", True), ("other", "remove", True)]
    for book in (site.one, site.other):
        del says(book)["a"]
    with pytest.raises(Conflict):
        await pages.add("a", "2")
    await pages.add("a", "1")
    assert await repairs(site.store) == []


async def test_a_name_that_is_changed_all_the_time_makes_no_more_repairs_than_are_needed(site: Site) -> None:
    pages, _ = site.member()
    await pages.add("a", "0")
    site.other.away = DOWN
    for n in range(1, 6):
        await pages.remove("a")
        await pages.add("a", str(n))
    assert await of(site) == [("other", "remove", False), ("other", "add", False)]
    site.other.away = None
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "5"}


async def test_a_provider_that_returns_to_the_settings_brings_nothing_back(site: Site) -> None:
    pages, _ = site.member()
    site.other.away = DOWN
    await pages.add("a", "1")
    await pages.add("b", "1")
    # Only one and a third are in the settings for a year.
    third = Choosy()
    way = All("pages", ["one", "third"], Journal(site.store, "pages", ["one", "third"], InText()), InText())
    without: Pages = grouped(Pages, {"one": site.one, "third": third}, way)  # type: ignore[type-abstract]
    await without.remove("a")
    site.other.away = None
    await site.repaired()
    assert site.one.pages == site.other.pages == {"b": "1"}
    assert await repairs(site.store) == []


async def test_a_change_that_one_server_cannot_make_keeps_up_no_other_name(site: Site) -> None:
    pages, _ = site.member()
    # A zone that is ill there, while the server itself answers.
    says(site.other)["ill"] = Unavailable("SERVFAIL")
    await pages.add("ill", "1")
    await pages.add("well", "1")
    for _ in range(2):
        await site.repaired()
    assert site.other.pages == {"well": "1"}
    del says(site.other)["ill"]
    await site.repaired()
    assert site.one.pages == site.other.pages == {"ill": "1", "well": "1"}


async def test_what_nobody_can_make_does_not_keep_up_the_group(site: Site) -> None:
    for book in (site.one, site.other):
        says(book)["ill"] = Unavailable("SERVFAIL")
    _, dead = site.member(held_s=0)
    await dead.journal.begin(Written("ill", "add", ["ill", "1"]))
    await dead.journal.recover()
    await site.repaired()
    assert await of(site) == [("one", "add", False), ("other", "add", False)]
    pages, _ = site.member()
    await pages.add("well", "1")
    assert site.one.pages == site.other.pages == {"well": "1"}
    with pytest.raises(Unavailable, match="has to have earlier changes first"):
        await pages.remove("ill")


async def test_of_one_name_order_is_kept_whatever_fails(site: Site) -> None:
    pages, _ = site.member()
    await pages.add("a", "1")
    says(site.other)["a"] = Unavailable("SERVFAIL")
    await pages.remove("a")
    await pages.add("a", "2")
    await site.repaired()
    del says(site.other)["a"]
    # The removal is put off; the addition, which is due, does not go before it.
    _, way = site.member()
    first, _ = await repairs(site.store)
    await way.journal.again(first, "SERVFAIL")
    await way.repair(site.books)
    assert site.other.pages == {"a": "1"}
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "2"}


async def test_that_there_is_no_place_for_it_is_no_success_of_an_addition(site: Site) -> None:
    pages, _ = site.member()
    says(site.other)["a"] = NotFound("no such subnet")
    await pages.add("a", "1")
    assert await of(site) == [("other", "add", True)]
    (refused,) = await repairs(site.store)
    await decided(site.store, refused.id, drop=False)
    await site.repaired()
    assert await of(site) == [("other", "add", True)]
    says(site.one)["b"] = NotFound("no such subnet")
    with pytest.raises(NotFound):
        await pages.add("b", "1")
    assert site.other.pages == {}


async def test_repairing_ends_when_all_have_ended_also_when_one_breaks(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, way = site.member()
    _, dead = site.member(held_s=0)
    await dead.journal.begin(Written("d", "add", ["d", "1"]))
    await dead.journal.recover()
    for repair in await repairs(site.store):
        await decided(site.store, repair.id, drop=False)
    says(site.one)["d"] = DOWN

    async def away(*_: Any) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(way.journal, "again", away)
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    adding = site.other.add

    async def slowly(name: str, value: str) -> None:
        begun.set()
        await may_end.wait()
        await adding(name, value)
        ended.set()

    site.other.add = slowly  # type: ignore[method-assign]
    repairing = asyncio.create_task(way.repair(site.books))
    await begun.wait()
    for _ in range(200):
        await asyncio.sleep(0.001)
    assert not repairing.done()
    may_end.set()
    with pytest.raises(Unavailable, match="the store is away"):
        await repairing
    assert ended.is_set()


async def test_a_store_whose_clock_steps_back_keeps_nothing_up(site: Site) -> None:
    pages, way = site.member()
    site.other.away = DOWN
    await pages.add("a", "1")
    await way.journal.begin(Written("b", "add", ["b", "1"]))
    async with site.store.write("test") as unit:
        await unit.connection.execute(update(group_repairs).values(next_at=group_repairs.c.next_at + _HOUR_S))
        await unit.connection.execute(update(group_changes).values(until=group_changes.c.until + _HOUR_S))
    site.other.away = None
    assert await way.is_behind()
    await way.repair(site.books)
    assert site.other.pages["a"] == "1"
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "1", "b": "1"}
    agreement = Agreement(site.store, "pages")
    term = await agreement.current("one")
    async with site.store.write("test") as unit:
        await unit.connection.execute(update(group_leaders).values(since=group_leaders.c.since + _HOUR_S))
    assert await agreement.change(term, "other", "test")


async def test_a_store_that_is_away_when_a_change_ends_does_not_have_it_made_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everywhere, "_BETWEEN_S", 0.01, raising=False)
    pages, way = site.member()
    await pages.add("a", "1")
    ending, left = way.journal.end, [1, 1]

    async def away(*given: Any) -> None:
        if left:
            left.pop()
            raise Unavailable("the store is away")
        await ending(*given)

    monkeypatch.setattr(way.journal, "end", away)
    with pytest.raises(Conflict):
        await pages.add("a", "2")
    # As soon as it is back the same name can be changed, and nobody is given what was refused.
    await pages.remove("a")
    await asyncio.sleep(0)
    assert site.one.pages == site.other.pages == {}
    assert await repairs(site.store) == []


async def test_a_change_of_which_the_store_lost_the_begin_is_made_by_nobody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, way = site.member(held_s=0.2)
    beginning = way.journal.begin

    async def lost(*given: Any) -> Any:
        await beginning(*given)
        raise Unavailable("the answer to the commit was lost")

    monkeypatch.setattr(way.journal, "begin", lost)
    with pytest.raises(Unavailable, match="was lost"):
        await pages.add("a", "1")
    await asyncio.sleep(0.25)
    await way.journal.recover()
    await site.repaired()
    assert site.one.pages == site.other.pages == {}


async def test_a_repair_is_not_taken_up_again_while_its_name_is_being_changed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_WAITED_S", 0.1)
    pages, way = site.member()
    site.other.pages["a"] = "somebody's"
    await pages.add("a", "1")
    (refused,) = await repairs(site.store)
    written = Written("a", "remove", ["a"])
    holder = (await way.journal.begin(written)).holder
    with pytest.raises(Unavailable, match="is under way, and settles it perhaps; nothing was changed"):
        await decided(site.store, refused.id, drop=False)
    await way.journal.end(written, holder, [])
    assert await repairs(site.store) == []


async def test_a_dead_members_change_becomes_repairs_once_also_when_two_find_it(site: Site) -> None:
    _, way = site.member(held_s=0)
    await way.journal.begin(Written("a", "add", ["a", "1"]))
    await asyncio.gather(*(site.member()[1].journal.recover() for _ in range(5)))
    assert len(await repairs(site.store)) == 2


async def test_all_repairs_are_listed_however_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MOST", 2)
    pages, _ = site.member()
    site.other.away = DOWN
    for name in "abcde":
        await pages.add(name, "1")
    assert [r.written.key for r in await repairs(site.store)] == list("abcde")


class Hung(Book):
    """A provider whose host takes no packets any more."""

    async def reached(self) -> None:
        await asyncio.Event().wait()


async def answers(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "ANSWERS_WITHIN_S", 0.1, raising=False)
    # A limit for who waits for ever, no promise.
    async with asyncio.timeout(10):
        await pages.reached()


async def test_a_provider_that_hangs_does_not_keep_the_group_from_answering(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, way = Site(store, Book(), Hung()).member()
    await answers(pages, monkeypatch)
    assert [bool(s.why) for s in way.standings()] == [False, True]


async def test_a_leader_that_hangs_leads_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    books: Mapping[str, Book] = {"one": Hung(), "other": Book()}
    way = Leader("pages", ["one", "other"], Agreement(store, "pages", held_s=0))
    pages: Pages = grouped(Pages, books, way)  # type: ignore[type-abstract]
    await answers(pages, monkeypatch)
    await pages.add("a", "1")
    assert books["other"].pages == {"a": "1"}


async def test_questions_are_answered_by_those_that_have_had_everything(site: Site) -> None:
    pages, way = site.member()
    seen: list[tuple[set[str], set[str]]] = []

    def noted(said: Mapping[str, Any], behind: Any = ()) -> set[str]:
        seen.append((set(said), set(behind)))
        return set().union(*said.values())

    way.merges = {"names": noted}
    await pages.add("a", "1")
    site.other.away = DOWN
    await pages.remove("a")
    site.other.away = None
    # Asked through a member that knows of it by the store alone.
    another, its = site.member()
    its.merges = way.merges
    await another.names()
    assert seen == [({"one", "other"}, {"other"})]
    site.one.away = DOWN
    await another.names()
    # Nobody else knows better.
    assert seen[1:] == [({"other"}, set())]


async def test_a_member_that_does_not_reach_a_provider_leaves_it_to_others(site: Site) -> None:
    _, way = site.member()
    pages, _ = site.member()
    site.other.away = DOWN
    await pages.add("a", "1")
    for repair in await repairs(site.store):
        await decided(site.store, repair.id, drop=False)
    await way.repair(site.books)
    assert await way.is_behind()
    for repair in await repairs(site.store):
        await decided(site.store, repair.id, drop=False)
    # It is due, and for who has just failed at it not yet.
    assert not await way.has_work()
    _, another = site.member()
    assert await another.is_behind()
    assert await another.has_work()


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


@pytest.mark.usefixtures("disarmed")
async def test_a_member_that_was_paused_before_it_told_anybody_tells_nobody(site: Site) -> None:
    pages, _ = site.member(held_s=0.5)
    await site.store.ping()
    failpoints.arm({failpoints.VARIABLE: "group-begun.after-commit=sleep:0.6"})
    with pytest.raises(Unavailable, match="what came of it is unknown"):
        await pages.add("a", "1")
    assert site.one.asked == site.other.asked == []


@pytest.mark.usefixtures("disarmed")
async def test_an_old_leader_is_asked_by_nobody_who_was_paused(site: Site) -> None:
    agreement = Agreement(site.store, "pages", held_s=0, part_s=0.5)
    pages: Pages = grouped(Pages, site.books, Leader("pages", ["one", "other"], agreement))  # type: ignore[type-abstract]
    term = await agreement.current("one")
    failpoints.arm({failpoints.VARIABLE: "group-led-begun.after-commit=sleep:0.6@1"})
    with pytest.raises(Unavailable, match="took longer than"):
        await pages.add("a", "1")
    assert await agreement.change(term, "other", "test")
    assert site.one.asked == []
    await pages.add("a", "2")
    assert (site.one.pages, site.other.pages) == ({}, {"a": "2"})


async def test_a_member_that_was_paused_before_a_repair_makes_it_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everywhere, "LONGEST_REPAIR_S", 0.2)
    pages, way = site.member()
    site.other.away = DOWN
    await pages.add("a", "1")
    site.other.away = None
    site.other.asked.clear()
    for repair in await repairs(site.store):
        await decided(site.store, repair.id, drop=False)
    left = [True]

    async def still() -> bool:
        # The whole process.
        time.sleep(0.3)
        return bool(left and left.pop())

    await way.repair(site.books, still)
    assert site.other.asked == []
    assert [r.provider for r in await repairs(site.store)] == ["other"]


async def test_a_question_does_not_wait_for_one_that_hangs_each_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "ANSWERS_WITHIN_S", 0.1, raising=False)
    monkeypatch.setattr(everywhere, "ANSWERS_WITHIN_S", 0.1, raising=False)
    monkeypatch.setattr(everywhere, "_AWAY_WITHIN_S", 0.1, raising=False)
    pages, _ = site.member()
    await pages.add("a", "1")

    async def hang() -> Any:
        await asyncio.Event().wait()

    site.other.reached = site.other.names = hang  # type: ignore[method-assign]
    # A limit for who waits for ever, no promise.
    async with asyncio.timeout(10):
        await pages.reached()
        assert await pages.names() == {"a"}


class Moody(Choosy):
    """A provider that now and then is away, loses its answer, or refuses."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance, self.is_calm = chance, False

    def mood(self) -> None:
        n = 9 if self.is_calm else self.chance.randrange(10)
        self.away = {0: DOWN, 1: Misconfigured("the key is refused"), 2: Rejected("not now")}.get(n)
        self.is_lossy = n == 3

    async def add(self, name: str, value: str) -> None:
        self.mood()
        await super().add(name, value)

    async def remove(self, name: str) -> None:
        self.mood()
        await super().remove(name)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_a_provider_does_and_whenever_a_person_retries_the_last_word_counts(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    site = Site(store, Book(), Moody(chance))
    acknowledged: dict[str, str | None] = {}

    async def asking(number: int) -> None:
        pages, _ = site.member()
        for n in range(20):
            await asyncio.sleep(0.02)
            name = f"{number}-{chance.randrange(2)}"
            if acknowledged.get(name) is None:
                await pages.add(name, str(n))
                acknowledged[name] = str(n)
            else:
                await pages.remove(name)
                acknowledged[name] = None

    async def retrying() -> None:
        while True:
            for repair in await repairs(site.store):
                # Some people look at once, others only in the end.
                if repair.is_stuck and chance.random() < 0.1 * (seed % 2):
                    with contextlib.suppress(NotFound, Unavailable):
                        await decided(site.store, repair.id, drop=False)
            await site.repaired()
            await asyncio.sleep(0.005)

    meanwhile = asyncio.create_task(retrying())
    await asyncio.gather(*(asking(n) for n in range(2)))
    meanwhile.cancel()
    await asyncio.gather(meanwhile, return_exceptions=True)
    assert isinstance(site.other, Moody)
    site.other.is_calm = True
    for _ in range(20):
        for repair in await repairs(site.store):
            with contextlib.suppress(NotFound):
                await decided(site.store, repair.id, drop=False)
        await site.repaired()
    assert await repairs(site.store) == []
    assert site.one.pages == {n: v for n, v in acknowledged.items() if v is not None}
    assert site.other.pages == site.one.pages


async def test_a_mistake_of_ours_keeps_up_no_other_repair(site: Site) -> None:
    pages, _ = site.member()
    site.other.away = DOWN
    await pages.add("a", "1")
    await pages.add("b", "1")
    site.other.away = None
    says(site.other)["a"] = ZeroDivisionError("a mistake of ours")
    await site.repaired()
    assert site.other.pages == {"b": "1"}
    (left,) = await repairs(site.store)
    assert (left.written.key, left.attempts, left.is_stuck) == ("a", 1, False)
    assert left.why == "Muster failed at it, and its log says where: ZeroDivisionError"


async def test_whatever_a_server_says_is_written_down(site: Site) -> None:
    pages, _ = site.member()
    says(site.other)["a"] = Unavailable("no \0 answer \ud800")
    says(site.other)["b"] = Rejected("not \0 you \ud800")
    await pages.add("a", "1")
    await pages.add("b", "1")
    await site.repaired()
    assert {r.why for r in await repairs(site.store)} == {"no ? answer ?", "not ? you ?"}
    agreement = Agreement(site.store, "pages", held_s=0)
    assert await agreement.change(await agreement.current("one"), "other", "no \0 answer \ud800")
