from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.content import fill
from muster.content.backend import Answer
from muster.content.fill import Behind, Fill, Sibling, Small
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

CLIENT = Behind("192.0.2.7", None)
# More than are asked of one other member at a time.
MANY = 200


async def _nothing() -> AsyncGenerator[bytes, None]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


async def _stuck() -> AsyncGenerator[bytes, None]:
    yield b"be"
    await asyncio.Event().wait()


@dataclass
class Other:
    """A backend, the own or another member's.

    Attributes:
        open: how many of its answers nobody has ended.
        asked: how often.
    """

    name: str
    has: frozenset[str] = frozenset()
    hangs: bool = False
    open: int = 0
    asked: int = 0
    waiting: int = field(default=0)

    async def ask(self, _: str, path: str, __: Any = ()) -> Answer:
        self.asked += 1
        if self.hangs:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        self.open += 1
        return Answer(self.name, 200 if path in self.has else 404, [], _nothing(), self._end)

    def _end(self) -> None:
        self.open -= 1


def filling(*others: Other, hold_s: float = 30.0) -> Fill:
    by_name: dict[str, Any] = {o.name: o for o in others}
    found = Fill(lambda sibling: by_name[sibling.name], CollectorRegistry(), after_s=0.01, hold_s=hold_s)
    found.siblings = tuple(Sibling(name, "192.0.2.1", 443) for name in by_name)
    return found


async def asked(of: Fill, own: Other, path: str) -> Answer:
    return await of.asked(lambda: own.ask("GET", path), "GET", path, [], CLIENT)


async def test_one_that_hangs_leaves_the_others_room_to_be_asked() -> None:
    own, hangs, well = Other("own"), Other("a", hangs=True), Other("b", frozenset({"/there"}))
    of = filling(hangs, well)
    calls = [asyncio.create_task(asked(of, own, f"/none/{n}")) for n in range(MANY)]
    try:
        async with asyncio.timeout(10):
            while well.asked < MANY:
                await asyncio.sleep(0.01)
            assert (await asked(of, own, "/there")).status == 200
        assert hangs.waiting < MANY, "what hangs is asked only so much"
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert hangs.waiting == 0


async def test_another_that_is_silent_is_awaited_no_longer_than_a_call_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "_LEAST_S", 0.1, raising=False)
    own, hangs, well = Other("own"), Other("a", hangs=True), Other("b")
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="member a does not begin to answer"):
            await asked(filling(hangs, well, hold_s=0.2), own, "/none")
    assert (hangs.waiting, own.open, well.open) == (0, 0, 0)


async def test_the_own_backend_is_awaited_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "_LEAST_S", 0.1, raising=False)
    well = Other("b")

    async def slowly() -> Answer:
        await asyncio.sleep(0.5)
        return Answer("own", 200, [], _nothing(), lambda: None)

    found = await filling(well, hold_s=0.0).asked(slowly, "GET", "/there", [], CLIENT)
    assert (found.of, found.status) == ("own", 200)


async def test_who_goes_away_leaves_no_answer_open() -> None:
    own, hangs, well = Other("own"), Other("a", hangs=True), Other("b")
    call = asyncio.create_task(asked(filling(hangs, well), own, "/none"))
    async with asyncio.timeout(10):
        while not (hangs.waiting and well.open):
            await asyncio.sleep(0.01)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    assert (hangs.waiting, own.open, well.open) == (0, 0, 0)


async def test_what_each_says_is_read_whole_and_ended_also_when_it_does_not_come() -> None:
    class Stuck(Other):
        async def ask(self, method: str, path: str, sent: Any = ()) -> Answer:
            return replace(await super().ask(method, path, sent), pieces=_stuck())

    stuck, well, without = Stuck("a", frozenset({"/small"})), Other("b", frozenset({"/small"})), Other("c")
    of = filling(stuck, well, without)
    found = await of.each("/small", [], CLIENT, limit_bytes=10, within_s=0.05)
    assert found == [None, Small(200, b""), Small(404, b"")]
    asking = asyncio.create_task(of.each("/small", [], CLIENT, limit_bytes=10, within_s=60))
    await asyncio.sleep(0.05)
    assert stuck.open == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (stuck.open, well.open, without.open) == (0, 0, 0)
