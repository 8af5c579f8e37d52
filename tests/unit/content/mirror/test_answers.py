"""What clients get of packages: from the disk, or as they come, and few of them from the origin."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Policy
from muster.content.backend import Answer
from muster.content.index import Expected
from muster.content.kept import Kept
from muster.content.mirror import answers as module
from muster.content.mirror.answers import Answers
from muster.content.mirror.carried import Carried
from muster.content.mirror.packages import Packages, Wanted
from muster.edge.replies import Reply, Streamed
from muster.kernel.errors import MusterError, NotFound, Unavailable
from tests.unit.content.mirror.test_packages import DATA, Origin
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

AT = "/pulp/content/muster/library/yum"
LARGE = b"large " * 1000


def expected(data: bytes, algorithm: str = "sha256") -> Expected:
    return Expected(len(data), algorithm, hashlib.new(algorithm, data).hexdigest())  # type: ignore[arg-type]


@dataclass
class World:
    kept: Kept
    origin: Origin
    answers: Answers
    other: Origin

    async def ask(self, name: str, path: str, what: Expected) -> Reply | Streamed | Answer:
        return await self.answers.package(
            f"{AT}/{name}", path, what, request("GET", "/x"), content_type=b"application/x-rpm"
        )

    async def body(self, name: str, path: str, what: Expected) -> bytes:
        found = await self.ask(name, path, what)
        if isinstance(found, Reply):
            return found.body
        assert found.status == 200, found
        try:
            return b"".join([p async for p in found.pieces])
        finally:
            found.end()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "WAITED_FOR_BYTES", 2000)
    monkeypatch.setattr(module, "_LONGER_S", 0.3)
    origin = Origin({"/a%2Bb.rpm": DATA, "/large.rpm": LARGE})
    other = Origin({"/a%2Bb.rpm": DATA}, name="the other origin")

    async def elsewhere(_: str) -> Answer:
        return Answer.absent("another")

    async def origins(name: str) -> Origin:
        if name == "others":
            raise NotFound(f"this member mirrors no {name}")
        return other if name == "more" else origin

    policies: dict[str, Policy] = {"tools": "on_demand", "more": "on_demand", "passing": "streamed"}
    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        packages = Packages(kept, elsewhere, origins)
        answers = Answers(Carried(kept), packages, policies, packages.fetch, wait_s=0.2)
        yield World(kept, origin, answers, other)
        await answers.close()
        await packages.close()


async def test_what_is_small_comes_to_the_disk_first_and_stays(world: World) -> None:
    found = await asyncio.gather(*(world.body("tools", "a%2bb.rpm", expected(DATA)) for _ in range(10)))
    assert found == [DATA] * 10
    assert [path for path, _ in world.origin.asked] == ["/a%2Bb.rpm"]


async def test_what_is_streamed_passes_and_does_not_stay(world: World) -> None:
    assert await world.body("passing", "a+b.rpm", expected(DATA)) == DATA
    assert await world.kept.counted() == 0


async def test_what_is_large_begins_at_once_for_one_and_the_others_wait_for_the_disk(world: World) -> None:
    first = await world.ask("tools", "large.rpm", expected(LARGE))
    assert isinstance(first, Answer)
    rest = await asyncio.gather(*(world.body("tools", "large.rpm", expected(LARGE)) for _ in range(8)))
    assert rest == [LARGE] * 8
    assert b"".join([p async for p in first.pieces]) == LARGE
    first.end()
    first.end()
    assert len(world.origin.asked) == 2
    assert not world.answers._passing


async def test_while_an_origin_is_slow_few_ask_it(world: World) -> None:
    world.origin.gate = asyncio.Event()
    waiting = [asyncio.create_task(world.ask("tools", "large.rpm", expected(LARGE))) for _ in range(12)]
    done, _ = await asyncio.wait(waiting, timeout=2.0)
    failed = [t for t in done if isinstance(t.exception(), Unavailable)]
    assert len(failed) == 12 - module._PASSING_AT_ONCE
    assert len(world.origin.asked) <= module._PASSING_AT_ONCE + 1
    world.origin.gate.set()
    for one in waiting:
        with contextlib.suppress(Unavailable):
            found = await one
            assert isinstance(found, Answer)
            found.end()
    assert not world.answers._passing


async def test_what_nobody_has_is_absent_and_what_is_another_passes_to_be_verified(world: World) -> None:
    gone = await world.ask("tools", "none.rpm", expected(DATA))
    assert isinstance(gone, Answer)
    assert gone.status == 404
    gone.end()
    world.origin.files["/other.rpm"] = b"x" * len(DATA)
    other = await world.ask("tools", "other.rpm", expected(DATA))
    assert isinstance(other, Answer)
    other.end()
    assert await world.kept.counted() == 0


async def test_who_goes_away_leaves_nothing_behind(world: World) -> None:
    world.origin.gate = asyncio.Event()
    waiting = [asyncio.create_task(world.ask("tools", "large.rpm", expected(LARGE))) for _ in range(5)]
    await asyncio.sleep(0.05)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    world.origin.gate.set()
    assert not world.answers._passing


async def test_of_many_whom_an_origin_cannot_give_it_few_ask_it(world: World) -> None:
    # It lies, and it fails.
    world.origin.files["/lie.rpm"] = b"x" * len(DATA)
    for path in ("lie.rpm", "away.rpm"):
        world.origin.asked.clear()
        asked = [asyncio.create_task(world.ask("tools", path, expected(DATA))) for _ in range(30)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, Answer):
                one.end()
            else:
                assert isinstance(one, MusterError), one
        assert len(world.origin.asked) <= module._PASSING_AT_ONCE + 1, path
        assert not world.answers._passing


async def test_where_it_cannot_stay_it_passes_for_everybody(world: World) -> None:
    world.kept.limit_bytes = 10
    found = await asyncio.gather(*(world.body("tools", "a+b.rpm", expected(DATA)) for _ in range(10)))
    assert found == [DATA] * 10


async def test_what_is_gone_again_at_once_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetched(wanted: Wanted) -> None:
        await world.answers.packages.fetch(wanted)
        await world.kept.drop(wanted.expected.digest)

    monkeypatch.setattr(world.answers, "_fetch", fetched)
    assert await world.body("tools", "a+b.rpm", expected(DATA)) == DATA


async def test_of_very_many_packages_few_are_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FETCHING", 5)
    world.origin.gate = asyncio.Event()
    waiting = [asyncio.create_task(world.ask("tools", f"{n}.rpm", expected(b"%d" % n))) for n in range(20)]
    await asyncio.sleep(0.05)
    assert len(world.answers._fetching) == 5
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    world.origin.gate.set()


async def test_what_this_member_does_not_mirror_is_not_said_to_be_nowhere(world: World) -> None:
    with pytest.raises(Unavailable, match="others"):
        await world.ask("others", "a+b.rpm", expected(DATA))


async def test_an_origin_that_is_away_is_asked_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def away(wanted: Wanted) -> None:
        asked.append(wanted.href)
        raise Unavailable("the origin is away")

    monkeypatch.setattr(world.answers, "_fetch", away)
    monkeypatch.setattr(world.answers.packages, "passing", away)
    for _ in range(20):
        with pytest.raises(Unavailable, match="the origin is away"):
            await world.ask("tools", "a+b.rpm", expected(DATA))
    assert len(asked) == 2
    monkeypatch.setattr(module, "_REFUSED_S", 0.0)
    with pytest.raises(Unavailable, match="the origin is away"):
        await world.ask("tools", "a+b.rpm", expected(DATA))
    assert len(asked) == 4
    # What has come meanwhile is given.
    await world.kept.add_bytes(DATA)
    assert await world.body("tools", "a+b.rpm", expected(DATA)) == DATA


async def test_what_one_repository_cannot_have_is_had_of_another(world: World) -> None:
    """The same bytes are of many repositories, layers of images above all; each has an origin of its own."""
    what = expected(DATA)
    del world.origin.files["/a%2Bb.rpm"]
    world.origin.gate = asyncio.Event()
    asked = [asyncio.create_task(world.ask("tools", "a+b.rpm", what)) for _ in range(3)]
    await asyncio.sleep(0.05)
    # Who asks for it of another repository meanwhile is told what that one's origin says.
    theirs = [asyncio.create_task(world.body("more", "a+b.rpm", what)) for _ in range(3)]
    await asyncio.sleep(0.05)
    world.origin.gate.set()
    assert await asyncio.gather(*theirs) == [DATA] * 3
    assert len(world.other.asked) == 1
    for one in await asyncio.gather(*asked):
        if isinstance(one, Answer):
            one.end()
    assert not world.answers._passing


async def test_an_origin_that_is_away_keeps_nobody_from_another(world: World) -> None:
    class Away(asyncio.Event):
        async def wait(self) -> Any:
            raise Unavailable("the origin is away")

    world.origin.gate = Away()
    with pytest.raises(Unavailable, match="the origin is away"):
        await world.ask("tools", "a+b.rpm", expected(DATA))
    assert await world.body("more", "a+b.rpm", expected(DATA)) == DATA
