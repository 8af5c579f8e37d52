"""What a member says is shown while the store is slow, or away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from muster.content import following
from muster.content.following import Following
from muster.content.given import COUNTS_S
from muster.content.view import View
from muster.content.views import Picture, Row, Shown
from muster.kernel.errors import Unavailable

PATH = "/pulp/content/r"
# What nobody knows the age of is new.
ONE, TWO = (Shown(str(n) * 64, manifest * 64, is_new=True) for n, manifest in ((1, "a"), (2, "b")))


class Store:
    """Answers as it is let; a beat of it that does not follow anything."""

    def __init__(self) -> None:
        self.shows: Shown | None = ONE
        self.why = ""
        self.slow_s = 0.0
        self.now = 0.0

    async def shown(self, path: str) -> Shown | None:
        assert path == PATH
        found = self.shows
        await asyncio.sleep(self.slow_s)
        if self.why:
            raise Unavailable(self.why)
        return found

    async def picture(self, within_s: float) -> Picture:
        await self.shown(PATH)
        if self.shows is None:
            return Picture(0.0)
        row = Row(PATH, View(0, self.shows.digest, self.shows.since), 1, -1e9, None)
        return Picture(self.now, {PATH: row}, {}, {PATH: {self.shows.digest: self.shows.manifest}})

    async def ask(self, asked: Any) -> None:
        await self.shown(PATH)

    async def has_room(self) -> bool:
        return True


class Nothing:
    count, size_bytes, limit_bytes = 0, 0, 0

    async def shown_elsewhere(self, _: str) -> Shown | None:
        return None

    async def carried(self, *_: Any) -> frozenset[str]:
        return frozenset()

    async def look(self, *_: Any) -> None: ...

    async def reclaim(self, *_: Any, **__: Any) -> None: ...

    def whole(self, _: str) -> dict[str, str]:
        return {}


def followed(store: Store) -> Following:
    async def told() -> None: ...

    it = Following(
        store, Nothing(), Nothing(),  # type: ignore[arg-type]
        member="p1", members=lambda: ["p1"], services=["https"], lag_s=600, retention_s=1e6, wait_s=0.6, told=told,
    )  # fmt: skip
    it._shelf = Nothing()  # type: ignore[assignment]
    it._hot[PATH] = 0.0
    return it


@pytest.mark.anyio
async def test_a_store_that_is_slow_is_waited_for_since_others_may_have_read_something_newer() -> None:
    store = Store()
    it = followed(store)
    assert await it.current(PATH, None) == ONE
    store.shows, store.slow_s = TWO, 0.55
    assert await it.current(PATH, None) == TWO


@pytest.mark.anyio
async def test_what_was_read_last_is_said_only_where_the_store_is_away_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    it = followed(store)
    assert await it.current(PATH, None) == ONE
    store.why = "not now"
    with pytest.raises(Unavailable, match="was not read from the store"):
        await it.current(PATH, None)
    monkeypatch.setattr(following, "_STORE_PATIENCE_S", 0.1)
    assert await it.current(PATH, None) == ONE


@pytest.mark.anyio
async def test_what_was_read_last_is_what_any_question_read_last(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    it = followed(store)
    assert await it.current(PATH, None) == ONE
    store.shows = TWO
    await it.beat()
    store.why = "away"
    monkeypatch.setattr(following, "_STORE_PATIENCE_S", 0.0)
    assert await it.current(PATH, None) == TWO


@pytest.mark.anyio
@pytest.mark.parametrize("is_reached", [True, False])
async def test_what_is_shown_is_new_for_a_while_by_the_stores_clock(
    is_reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_STORE_PATIENCE_S", 0.0)
    store = Store()
    store.now = 5000.0
    it = followed(store)

    async def is_new(age_s: float) -> bool:
        store.why, store.shows = "", ONE._replace(since=store.now - age_s)
        await it.beat()
        store.why = "" if is_reached else "away"
        found = await it.current(PATH, None)
        assert found is not None
        return found.is_new

    assert [await is_new(age_s) for age_s in (0.0, COUNTS_S - 60, COUNTS_S + 60)] == [True, True, False]


@pytest.mark.anyio
async def test_what_another_member_reads_is_as_new_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.now = 5000.0
    it = followed(store)
    await it.beat()
    store.why = "away"

    async def elsewhere(_: str) -> Shown:
        return Shown.read(TWO._replace(since=store.now - COUNTS_S - 60).written())

    monkeypatch.setattr(it._staging, "shown_elsewhere", elsewhere)
    assert await it.current(PATH, None) == TWO._replace(since=store.now - COUNTS_S - 60, is_new=False)
