"""What becomes of a member that is behind with a repository: it is out, or stays and says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from muster.app.duties.repositories import RepositoriesFollowed

pytestmark = pytest.mark.anyio


@dataclass
class Following:
    trouble: str = ""
    note: str = ""
    is_alone: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    beats: int = 0
    is_closed: bool = False

    async def beat(self) -> None:
        self.beats += 1

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("following", "down", "notes"),
    [
        (Following(), {}, ()),
        (Following(trouble="it lags", note="full"), {"https": "it lags", "http": "it lags"}, ()),
        (Following(trouble="it lags", note="full", is_alone=True), {}, ("it lags",)),
        (Following(note="full"), {}, ("full",)),
    ],
)
def test_who_is_behind_is_out_unless_nobody_else_is_less_so(
    following: Following, down: dict[str, str], notes: tuple[str, ...]
) -> None:
    found = RepositoriesFollowed(following, ["https", "http"]).found()  # type: ignore[arg-type]
    assert (dict(found.down), tuple(found.notes)) == (down, notes)


async def test_it_beats_at_once_and_then_when_it_is_woken() -> None:
    following = Following()
    duty = RepositoriesFollowed(following, ["https"])  # type: ignore[arg-type]
    await duty.beat()
    following.woken.set()
    await duty.beat()
    await duty.end()
    assert (following.beats, following.is_closed) == (2, True)
