"""What the own backend has no more at a path, and a keeper has: asked of it before anybody else is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from muster.content.backend import Answer, Backend
from muster.content.call import Call
from muster.content.fill import Behind
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


@dataclass
class Stand:
    """A backend that answers each path with a status, and counts what was not ended."""

    statuses: dict[str, int]
    asked: list[str] = field(default_factory=list)
    open: int = 0

    async def ask(self, _: str, path: str, __: Sequence[Any]) -> Answer:
        self.asked.append(path)
        status = self.statuses.get(path, 404)
        if not status:
            raise Unavailable("it is away")
        self.open += 1
        return Answer("it", status, (("x-path", path),), _nothing(), self._end)

    def _end(self) -> None:
        self.open -= 1


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


def call(stand: Stand, *keepers: str) -> Call:
    return Call(cast(Backend, stand), None, (), Behind("192.0.2.1", None), lambda _: keepers)


@pytest.mark.parametrize(
    ("statuses", "status", "asked"),
    [
        ({"own": 200}, 200, ["own"]),
        # Whoever may not have it there does not get it elsewhere.
        ({"own": 403, "k0": 200}, 403, ["own"]),
        ({"own": 500, "k0": 200}, 500, ["own"]),
        ({"k0": 200}, 200, ["own", "k0"]),
        ({"k1": 206}, 206, ["own", "k0", "k1"]),
        ({"k0": 403}, 404, ["own", "k0", "k1"]),
        # That says nothing of whether it is there.
        ({"k0": 503}, 503, ["own", "k0"]),
        ({}, 404, ["own", "k0", "k1"]),
    ],
)
async def test_keepers_are_asked_for_what_is_not_there_alone(
    statuses: dict[str, int], status: int, asked: list[str]
) -> None:
    stand = Stand(statuses)
    answer = await call(stand, "k0", "k1").ask("GET", "own")
    assert (answer.status, stand.asked, stand.open) == (status, asked, 1)


async def test_a_keeper_that_cannot_be_asked_may_have_it() -> None:
    stand = Stand({"k0": 0})
    with pytest.raises(Unavailable):
        await call(stand, "k0").ask("GET", "own")
    assert stand.open == 0


async def test_what_a_keeper_has_is_judged_as_all_else() -> None:
    stand = Stand({"own": 200, "k0": 200, "k1": 200})

    async def judged(answer: Answer) -> Answer:
        if answer.headers[0][1] == "k1":
            return answer
        answer.end()
        return Answer("it", 404, (), _nothing(), lambda: None)

    answer = await call(stand, "k0", "k1").ask("GET", "own", judged=judged)
    assert (answer.headers[0][1], stand.open) == ("k1", 1)
