"""Groups on both stores: what was asked of several providers is at all of them in the end, whoever was away or died."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from sqlalchemy import select, update

from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Unavailable, Unsupported
from muster.policy.groups import journal as journals
from muster.policy.groups import leader as leaders
from muster.policy.groups.everywhere import All
from muster.policy.groups.grouped import grouped
from muster.policy.groups.journal import Journal, Missed, Written, decided, repairs
from muster.policy.groups.leader import Agreement, Leader
from muster.policy.marks import Operation, change, query
from muster.store.engine import Store
from muster.store.tables import group_changes

pytestmark = pytest.mark.anyio

DOWN = Unavailable("no answer")


class Pages(Protocol):
    """Values by name."""

    @query
    async def reached(self) -> None:
        """Return when it answers."""

    @query
    async def lookup(self, name: str) -> str | None:
        """Return the value."""

    @query
    async def names(self) -> set[str]:
        """Return all names."""

    @change(repeatable=True)
    async def add(self, name: str, value: str) -> None:
        """Have the name this value; Conflict: it has another."""

    @change(repeatable=True)
    async def remove(self, name: str) -> None:
        """Have no such name; NotFound: there is none."""

    @change(repeatable=True)
    async def offered(self) -> str:
        """What no two can do together."""


@dataclass
class Book:
    """A provider, that can be away before or after a change."""

    pages: dict[str, str] = field(default_factory=dict)
    away: MusterError | None = None
    is_lossy: bool = False
    asked: list[str] = field(default_factory=list)

    async def reached(self) -> None:
        self._answer()

    async def lookup(self, name: str) -> str | None:
        self._answer()
        return self.pages.get(name)

    async def names(self) -> set[str]:
        self._answer()
        return set(self.pages)

    async def add(self, name: str, value: str) -> None:
        self.asked.append(f"add {name} {value}")
        self._answer()
        await asyncio.sleep(0)
        if self.pages.setdefault(name, value) != value:
            raise Conflict(f"{name} is {self.pages[name]}")
        self._lose()

    async def remove(self, name: str) -> None:
        self.asked.append(f"remove {name}")
        self._answer()
        await asyncio.sleep(0)
        if self.pages.pop(name, None) is None:
            raise NotFound(f"no {name}")
        self._lose()

    async def offered(self) -> str:
        return "x"

    def _answer(self) -> None:
        if self.away is not None:
            raise self.away

    def _lose(self) -> None:
        if self.is_lossy:
            raise Unavailable("the answer was lost")


class InText:
    def written(self, operation: Operation, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Written:
        assert not named
        return Written(arguments[0], operation.name, list(arguments))

    def read(self, written: Written) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        if not isinstance(written.arguments, list):
            raise ValueError("no list")
        return tuple(written.arguments), {}

    def touches(self, written: Written) -> frozenset[str]:
        return frozenset({written.key})

    def settles(self, later: Written, earlier: Written) -> bool:
        return later.key == earlier.key and (later.operation == "remove" or earlier.operation == "add")

    def follows(self, later: Written, earlier: Written) -> bool:
        return later.key == earlier.key and earlier.operation == "remove"


@dataclass
class Site:
    """Two members with a group of two each."""

    store: Store
    one: Book = field(default_factory=Book)
    other: Book = field(default_factory=Book)

    @property
    def books(self) -> dict[str, Book]:
        return {"one": self.one, "other": self.other}

    def member(self, *, held_s: float = 60.0) -> tuple[Pages, All]:
        journal = Journal(self.store, "pages", ["one", "other"], InText(), held_s=held_s)
        merges = {"names": lambda said, _: set().union(*said.values())}
        way = All("pages", ["one", "other"], journal, InText(), merges, frozenset({"offered"}))
        return grouped(Pages, self.books, way), way  # type: ignore[type-abstract]

    async def repaired(self) -> None:
        """Have all repairs made, whatever pauses there are."""
        _, way = self.member()
        for repair in await repairs(self.store):
            if not repair.is_stuck:
                # One that was under way when its task was ended may be done by now.
                with contextlib.suppress(NotFound):
                    await decided(self.store, repair.id, drop=False)
        await way.repair(self.books)


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store)


async def test_every_provider_has_every_change(site: Site) -> None:
    pages, _ = site.member()
    await pages.add("a", "1")
    assert site.one.pages == site.other.pages == {"a": "1"}
    assert await pages.lookup("a") == "1"
    await pages.remove("a")
    assert site.one.pages == site.other.pages == {}
    with pytest.raises(NotFound):
        await pages.remove("a")
    assert await repairs(site.store) == []


async def test_what_the_first_refuses_the_others_never_hear_of(site: Site) -> None:
    pages, _ = site.member()
    await pages.add("a", "1")
    with pytest.raises(Conflict, match="a is 1"):
        await pages.add("a", "2")
    assert site.other.asked == ["add a 1"]
    assert await repairs(site.store) == []


async def test_who_is_away_has_it_when_it_is_back_and_in_order(site: Site) -> None:
    pages, way = site.member()
    await pages.add("a", "1")
    site.other.away = DOWN
    await pages.remove("a")
    await pages.add("a", "2")
    await pages.add("b", "1")
    # What is asked of it comes behind: it is not asked out of turn.
    assert site.other.asked == ["add a 1", "remove a"]
    assert [(s.provider, s.pending) for s in way.standings()] == [("one", 0), ("other", 3)]
    assert (site.one.pages, site.other.pages) == ({"a": "2", "b": "1"}, {"a": "1"})
    site.other.away = None
    another, _ = site.member()
    await another.remove("b")
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "2"}
    assert await repairs(site.store) == []
    # From then on it is asked at once.
    await pages.add("c", "1")
    assert site.other.pages["c"] == "1"


async def test_the_first_one_may_be_away_as_well(site: Site) -> None:
    pages, _ = site.member()
    site.one.away = Misconfigured("the key is refused")
    await pages.add("a", "1")
    with pytest.raises(Conflict):
        await pages.add("a", "2")
    assert await pages.lookup("a") == "1"
    site.one.away = None
    await site.repaired()
    assert site.one.pages == {"a": "1"}


async def test_when_all_are_away_nothing_is_promised(site: Site) -> None:
    pages, _ = site.member()
    site.one.away = site.other.away = DOWN
    with pytest.raises(Unavailable, match="at every provider of the group: one: no answer; other: no answer"):
        await pages.add("a", "1")
    assert await repairs(site.store) == []
    with pytest.raises(Unavailable):
        await pages.reached()
    site.other.away = None
    await pages.reached()
    await pages.add("a", "1")
    site.other.away = DOWN
    with pytest.raises(Unavailable):
        await pages.remove("a")


async def test_an_answer_that_was_lost_is_asked_for_again(site: Site) -> None:
    pages, _ = site.member()
    site.other.is_lossy = True
    await pages.add("a", "1")
    await pages.remove("a")
    site.other.is_lossy = False
    await site.repaired()
    assert site.one.pages == site.other.pages == {}
    assert await repairs(site.store) == []


async def test_what_one_of_them_refuses_alone_is_shown_and_keeps_nothing_up(site: Site) -> None:
    pages, _ = site.member()
    site.other.pages["a"] = "somebody's"
    await pages.add("a", "1")
    await pages.add("b", "1")
    assert site.other.pages == {"a": "somebody's", "b": "1"}
    (repair,) = await repairs(site.store)
    assert (repair.provider, repair.is_stuck, repair.why) == ("other", True, "a is somebody's")
    del site.other.pages["a"]
    await decided(site.store, repair.id, drop=False)
    await site.repaired()
    assert site.other.pages == {"a": "1", "b": "1"}
    with pytest.raises(NotFound):
        await decided(site.store, repair.id, drop=True)


async def test_a_removal_reaches_all_although_the_first_has_nothing(site: Site) -> None:
    pages, _ = site.member()
    site.other.pages["a"] = "1"
    await pages.remove("a")
    assert site.other.pages == {}


async def test_what_a_member_had_begun_when_it_died_is_done_by_another(site: Site) -> None:
    _, way = site.member(held_s=0.2)
    await way.journal.begin(Written("a", "add", ["a", "1"]))
    await site.one.add("a", "1")
    pages, _ = site.member()
    # Another change of the same name waits until it is known dead.
    await pages.add("b", "1")
    with pytest.raises(Unavailable, match="every provider of the group has to have earlier changes first"):
        await pages.remove("a")
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "1", "b": "1"}


async def test_who_was_taken_for_dead_and_was_not_spoils_nothing(site: Site) -> None:
    _, way = site.member(held_s=0.05)
    written = Written("a", "add", ["a", "1"])
    holder = (await way.journal.begin(written)).holder
    await asyncio.sleep(0.1)
    await way.journal.recover()
    assert len(await repairs(site.store)) == 2
    await way.journal.end(written, holder, [])
    assert len(await repairs(site.store)) == 2
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "1"}


async def test_who_goes_away_while_it_is_done_takes_nothing_with_him(site: Site) -> None:
    pages, way = site.member()
    asking = asyncio.create_task(pages.add("a", "1"))
    while not site.one.asked:
        await asyncio.sleep(0)
    asking.cancel()
    await way.close()
    assert site.one.pages == site.other.pages == {"a": "1"}
    assert await repairs(site.store) == []


async def test_what_takes_longer_than_others_wait_for_is_given_up_and_done_by_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The member would be taken for dead while it tells a provider, and what comes later would be overtaken.
    pages, _ = site.member(held_s=0.4)
    # Its tables are made first.
    await site.store.ping()
    told, gone = asyncio.Event(), asyncio.Event()

    async def hang(*_: str) -> None:
        told.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    monkeypatch.setattr(site.other, "add", hang)
    with pytest.raises(Unavailable, match="what came of it is unknown, and each of them is given it later"):
        # A limit for a call that is not given up, no promise.
        async with asyncio.timeout(10):
            await pages.add("a", "1")
    assert told.is_set()
    assert gone.is_set()
    monkeypatch.undo()
    await asyncio.sleep(0.15)
    _, another = site.member()
    await another.journal.recover()
    await site.repaired()
    assert site.one.pages == site.other.pages == {"a": "1"}


async def test_who_repairs_no_longer_alone_stops(site: Site) -> None:
    pages, way = site.member()
    site.other.away = DOWN
    for name in "abc":
        await pages.add(name, "1")
    site.other.away = None
    for repair in await repairs(site.store):
        await decided(site.store, repair.id, drop=False)
    left = [True, False]

    async def still() -> bool:
        return left.pop(0)

    await way.repair(site.books, still)
    assert site.other.pages == {"a": "1"}
    assert [r.written.key for r in await repairs(site.store)] == ["b", "c"]


async def test_what_a_provider_that_left_the_settings_has_not_had_is_shown(site: Site) -> None:
    pages, _ = site.member()
    site.other.away = DOWN
    await pages.add("a", "1")
    way = All("pages", ["one", "third"], Journal(site.store, "pages", ["one", "third"]), InText())
    assert await way.is_behind()
    assert [(s.provider, s.role, s.pending) for s in way.standings()] == [
        ("one", "asked", 0), ("third", "asked", 0), ("other", "not in the settings", 1),
    ]  # fmt: skip


async def test_questions_go_to_who_knows_or_to_all(site: Site) -> None:
    pages, way = site.member()
    site.one.pages, site.other.pages = {"a": "1"}, {"b": "1"}
    assert await pages.names() == {"a", "b"}
    site.other.away = DOWN
    assert await pages.names() == {"a"}
    site.one.away = DOWN
    with pytest.raises(Unavailable):
        await pages.names()
    site.one.away = site.other.away = None
    # Who has not had everything is asked last.
    missed = Written("z", "add", ["z", "1"])
    await way.journal.end(missed, (await way.journal.begin(missed)).holder, [Missed("one", "no answer")])
    assert await pages.lookup("b") == "1"
    with pytest.raises(Unsupported):
        await pages.offered()


async def test_two_members_and_providers_that_come_and_go_end_alike(site: Site) -> None:
    chance = random.Random(11)
    members = [site.member()[0] for _ in range(2)]
    acknowledged: dict[str, str | None] = {}

    async def asking(number: int) -> None:
        for n in range(25):
            # Names of its own, so that what it was told last is what there is.
            name = f"{number}-{chance.randrange(3)}"
            try:
                if acknowledged.get(name) is None:
                    await members[number].add(name, str(n))
                    acknowledged[name] = str(n)
                else:
                    await members[number].remove(name)
                    acknowledged[name] = None
            except MusterError:
                # Nobody knows: it is asked for no more.
                acknowledged[name] = "unknown"
                return

    async def coming_and_going() -> None:
        while True:
            site.other.away = DOWN if chance.random() < 0.5 else None
            site.other.is_lossy = chance.random() < 0.3
            await asyncio.sleep(0.02)
            await site.repaired()

    meanwhile = asyncio.create_task(coming_and_going())
    await asyncio.gather(*(asking(n) for n in range(2)))
    meanwhile.cancel()
    await asyncio.gather(meanwhile, return_exceptions=True)
    site.other.away, site.other.is_lossy = None, False
    for _ in range(3):
        await site.repaired()
    assert site.one.pages == site.other.pages
    assert "unknown" not in acknowledged.values()
    assert site.one.pages == {n: v for n, v in acknowledged.items() if v is not None}
    assert await repairs(site.store) == []


async def test_all_members_ask_the_same_one_and_change_together(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def member() -> tuple[Pages, Leader]:
        way = Leader("pages", ["one", "other"], Agreement(site.store, "pages", held_s=0.3))
        return grouped(Pages, site.books, way), way  # type: ignore[type-abstract]

    (pages, _), (another, way) = member(), member()
    await pages.add("a", "1")
    await another.add("b", "1")
    assert (site.one.pages, site.other.pages) == ({"a": "1", "b": "1"}, {})
    site.one.away = DOWN
    with pytest.raises(Unavailable):
        await pages.add("c", "1")
    await pages.reached()
    await another.add("c", "1")
    assert site.other.pages == {"c": "1"}
    assert [(s.provider, s.role) for s in way.standings()] == [("one", "in reserve"), ("other", "asked")]
    # It comes back, and does not lead by that; and it leads for a while before it may change again.
    site.one.away, site.other.away = None, DOWN
    await pages.reached()
    with pytest.raises(Unavailable):
        await another.lookup("c")
    await asyncio.sleep(0.35)
    await pages.reached()
    assert await another.lookup("a") == "1"


async def test_a_change_at_one_that_leads_no_more_is_not_acknowledged(site: Site) -> None:
    agreement = Agreement(site.store, "pages", held_s=0)
    way = Leader("pages", ["one", "other"], agreement)
    pages: Pages = grouped(Pages, site.books, way)  # type: ignore[type-abstract]
    term = await agreement.current("one")

    async def while_it_changes(name: str, value: str) -> None:
        # It is taken for dead.
        async with site.store.write("test") as unit:
            await unit.connection.execute(update(group_changes).values(until=0))
        assert await agreement.change(term, "other", "test")
        assert not await agreement.change(term, "one", "of two that change it one does")

    site.one.add = while_it_changes  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="was made at one, and other leads the group pages by now"):
        await pages.add("a", "1")
    assert journals.HELD_S > leaders.HELD_S


async def test_a_leader_is_not_followed_before_its_last_change_has_ended(site: Site) -> None:
    agreement = Agreement(site.store, "pages", held_s=0)
    pages: Pages = grouped(Pages, site.books, Leader("pages", ["one", "other"], agreement))  # type: ignore[type-abstract]
    another: Pages = grouped(Pages, site.books, Leader("pages", ["one", "other"], agreement))  # type: ignore[type-abstract]
    term = await agreement.current("one")
    begun, may_end = asyncio.Event(), asyncio.Event()
    adding = site.one.add

    async def slowly(name: str, value: str) -> None:
        begun.set()
        await may_end.wait()
        await adding(name, value)

    site.one.add = slowly  # type: ignore[method-assign]
    asking = asyncio.create_task(pages.add("a", "1"))
    await begun.wait()
    assert not await agreement.change(term, "other", "test")
    # It is the last one.
    with pytest.raises(Unavailable, match="was not asked of one, in whose place another one is to lead pages"):
        await another.add("b", "1")
    assert await another.lookup("a") is None
    # Who wanted another one finds it there again.
    await agreement.go_on()
    adding_b = asyncio.create_task(another.add("b", "1"))
    while "add b 1" not in site.one.asked and not adding_b.done():
        await asyncio.sleep(0.01)
        may_end.set()
    await asyncio.gather(asking, adding_b)
    site.one.pages.pop("b")
    assert await agreement.change(term, "other", "test")
    await another.add("b", "1")
    assert (site.one.pages, site.other.pages) == ({"a": "1"}, {"b": "1"})
    async with site.store.read() as unit:
        assert (await unit.connection.execute(select(group_changes))).all() == []


async def test_a_leader_that_is_in_the_settings_no_more_leads_no_more(site: Site) -> None:
    agreement = Agreement(site.store, "pages", held_s=0)
    assert (await agreement.current("gone")).provider == "gone"
    pages: Pages = grouped(Pages, site.books, Leader("pages", ["one", "other"], agreement))  # type: ignore[type-abstract]
    await pages.add("a", "1")
    assert site.one.pages == {"a": "1"}
