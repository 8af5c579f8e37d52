"""What a member says is shown while the store is slow, or away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from muster.content import following
from muster.content.following import Following
from muster.content.view import View
from muster.content.views import Picture, Row, Shown
from muster.kernel.errors import Unavailable

PATH = "/pulp/content/r"
ONE, TWO = Shown("1" * 64, "a" * 64), Shown("2" * 64, "b" * 64)


class Store:
    """Answers as it is let; a beat of it that does not follow anything."""

    def __init__(self) -> None:
        self.shows: Shown | None = ONE
        self.why = ""
        self.slow_s = 0.0

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
        row = Row(PATH, View(0, self.shows.digest), 1, -1e9, None)
        return Picture(0.0, {PATH: row}, {}, {PATH: {self.shows.digest: self.shows.manifest}})

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
