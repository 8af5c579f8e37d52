"""Clients who are slow do not keep an origin from those who bring packages to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Mirror
from muster.content.backend import Answer, once
from muster.content.kept import Kept
from muster.content.mirror.origins import Origins
from muster.kernel.errors import NotFound, Unavailable

pytestmark = pytest.mark.anyio

SETTINGS = {"repositories": {"tools": {"kind": "yum", "url": "http://origin.test"}}, "connections": 4, "timeout_s": 0.2}


class Origin:
    """One that has so many connections as it is told."""

    name, url = "origin tools", "http://origin.test"

    def __init__(self, connections: int) -> None:
        self._rooms = asyncio.Semaphore(connections)
        self.fails = False

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        if self.fails:
            raise Unavailable("it is away")
        await self._rooms.acquire()
        return Answer(self.name, 200, (), once(b"x"), self._rooms.release)


@pytest.fixture
async def origins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Origins:
    it = Origins(Mirror.model_validate(SETTINGS), Kept(tmp_path, limit_bytes=1 << 20))
    one = Origin(4)

    async def of(name: str) -> Any:
        if name != "tools":
            raise NotFound(f"no {name}")
        return one

    monkeypatch.setattr(it, "of", of)
    return it


async def test_slow_clients_leave_connections_to_those_who_keep(origins: Origins) -> None:
    passing, keeping = await origins.passing("tools"), await origins.of("tools")
    slow = [await passing.ask("GET", "/a", ()) for _ in range(2)]
    with pytest.raises(Unavailable, match="2 clients have been fetching"):
        await passing.ask("GET", "/a", ())
    async with asyncio.timeout(1):
        kept = [await keeping.ask("GET", "/a", ()) for _ in range(2)]
    # Ended twice it is ended once.
    slow[0].end()
    slow[0].end()
    (await passing.ask("GET", "/a", ())).end()
    slow[1].end()
    for one in kept:
        one.end()
    assert passing is await origins.passing("tools")


async def test_who_fails_or_goes_away_holds_nothing(origins: Origins, monkeypatch: pytest.MonkeyPatch) -> None:
    passing, one = await origins.passing("tools"), await origins.of("tools")
    monkeypatch.setattr(one, "fails", True)
    for _ in range(5):
        with pytest.raises(Unavailable, match="away"):
            await passing.ask("GET", "/a", ())
    monkeypatch.setattr(one, "fails", False)
    held = [await passing.ask("GET", "/a", ()) for _ in range(2)]
    waiting = [asyncio.ensure_future(passing.ask("GET", "/a", ())) for _ in range(3)]
    await asyncio.sleep(0)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for answer in held:
        answer.end()
    for _ in range(5):
        (await passing.ask("GET", "/a", ())).end()


async def test_one_that_is_not_mirrored_is_named(origins: Origins) -> None:
    with pytest.raises(NotFound, match="other"):
        await origins.passing("other")
