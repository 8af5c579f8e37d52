"""Certificates that come at the same time go into one transaction, and each caller hears what became of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from muster.authority.ledger.issuing import Issue, Issuing
from muster.kernel.errors import Conflict, Unavailable
from muster.store.reading import Dialect, Query
from muster.store.writing import Change, Writing

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class ATransaction:
    """A unit on what the store holds; the names of its certificates are noted."""

    dialect: Dialect = "sqlite"

    def __init__(self, live: set[str]) -> None:
        self._live = live
        self.names: list[str] = []

    async def now(self) -> float:
        return 0.0

    async def rows(self, query: Query, **_values: Any) -> list[dict[str, Any]]:
        assert "requests" in query.text
        return [{"certname": name, "sha256": None, "flaw": None} for name in sorted(self._live)]

    async def change(self, change: Change, rows: Sequence[Mapping[str, Any]]) -> None:
        if "INTO certificates" in change.text:
            self.names += [row["certname"] for row in rows]

    async def changed(self, _change: Change, _row: Mapping[str, Any]) -> int:
        return 1


class AStore:
    """Carries a unit out when it is let to; ``landed`` are the names of each that was committed.

    Attributes:
        refuse: whether it may be carried out, asked when it begins.
    """

    def __init__(self) -> None:
        self.landed: list[list[str]] = []
        self.live: set[str] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.refuse: Callable[[ATransaction], None] = lambda _: None
        self.before: Callable[[], None] = lambda: None

    async def carry_out(self, step: str, work: Callable[[Writing], Coroutine[Any, Any, T]]) -> T:
        assert step == "sign"
        await self.open.wait()
        self.before()
        transaction = ATransaction(self.live)
        found = await work(transaction)
        self.refuse(transaction)
        self.live.update(transaction.names)
        self.landed.append(transaction.names)
        return found


def an_issue(name: str) -> Issue:
    return Issue(name, {"certname": name}, {"certname": name}, None, None)


@pytest.fixture
def store() -> AStore:
    return AStore()


@pytest.fixture
def issuing(store: AStore) -> Issuing:
    return Issuing(store)  # type: ignore[arg-type]


async def begun(issuing: Issuing, *names: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(issuing.issue(an_issue(n)), name=n) for n in names]
    await asyncio.sleep(0)
    return tasks


async def heard(tasks: Sequence[asyncio.Task[None]]) -> list[str]:
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return ["" if answer is None else f"{type(answer).__name__}: {answer}" for answer in found]


async def test_what_comes_while_a_transaction_waits_to_begin_goes_with_it(issuing: Issuing, store: AStore) -> None:
    store.open.clear()
    first = await begun(issuing, "c")
    later = await begun(issuing, "a", "b")
    store.open.set()
    assert await heard([*first, *later]) == ["", "", ""]
    # In one order on every member.
    assert store.landed == [["a", "b", "c"]]


async def test_of_two_of_a_name_the_second_sees_what_became_of_the_first(issuing: Issuing, store: AStore) -> None:
    store.open.clear()
    tasks = await begun(issuing, "a", "b", "a", "c")
    store.open.set()
    assert await heard(tasks) == ["", "", "Conflict: a has a certificate", ""]
    assert store.landed == [["a", "b", "c"], []]


async def test_only_so_many_go_at_once_and_the_others_next(issuing: Issuing, store: AStore) -> None:
    store.open.clear()
    names = [f"n{number:03d}" for number in range(100)]
    tasks = await begun(issuing, *names)
    store.open.set()
    assert await heard(tasks) == [""] * 100
    assert [len(names) for names in store.landed] == [64, 36]
    assert sorted(n for names in store.landed for n in names) == names


async def test_when_it_never_begins_who_waits_hears_so_and_the_next_is_tried_anew(
    issuing: Issuing, store: AStore
) -> None:
    def unavailable() -> None:
        store.before = lambda: None
        raise Unavailable("away")

    store.before = unavailable
    store.open.clear()
    tasks = await begun(issuing, "a", "b")
    store.open.set()
    assert await heard(tasks) == ["Unavailable: away", "Unavailable: away"]
    assert await heard(await begun(issuing, "c")) == [""]
    assert store.landed == [["c"]]


async def test_when_it_fails_who_came_after_it_began_goes_with_the_next(issuing: Issuing, store: AStore) -> None:
    late: list[asyncio.Task[None]] = []

    def fails_once(_: ATransaction) -> None:
        store.refuse = lambda _: None
        issuing._waiting.append(issuing_of("b"))
        raise Unavailable("lost")

    def issuing_of(name: str) -> Any:
        from muster.authority.ledger.issuing import _Waiting

        answer = asyncio.get_running_loop().create_future()
        late.append(asyncio.ensure_future(answer))
        return _Waiting(an_issue(name), answer)

    store.refuse = fails_once
    assert await heard(await begun(issuing, "a")) == ["Unavailable: lost"]
    assert await heard(late) == [""]
    assert store.landed == [["b"]]


async def test_a_conflict_that_undid_all_is_heard_by_its_own_alone(issuing: Issuing, store: AStore) -> None:
    def another_member_was_first(transaction: ATransaction) -> None:
        if "b" in transaction.names:
            raise Conflict("UNIQUE constraint failed: certificates.certname")

    store.refuse = another_member_was_first
    store.open.clear()
    tasks = await begun(issuing, "a", "b", "c")
    store.open.set()
    assert await heard(tasks) == ["", "Conflict: UNIQUE constraint failed: certificates.certname", ""]
    assert store.landed == [["a"], ["c"]]


async def test_a_caller_that_goes_away_takes_nothing_with_it(issuing: Issuing, store: AStore) -> None:
    store.open.clear()
    gone, stays = await begun(issuing, "gone", "stays")
    gone.cancel()
    await asyncio.sleep(0)
    store.open.set()
    await stays
    assert gone.cancelled()
    assert store.landed == [["gone", "stays"]]
