"""Packages come from this disk, another member, or the origin: once, and right, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from muster.content.backend import Answer, once
from muster.content.index import Expected
from muster.content.kept import Differs, Full, Kept
from muster.content.mirror.packages import Packages, Wanted
from muster.kernel.errors import MusterError, NotFound, Unavailable

pytestmark = pytest.mark.anyio

DATA = b"a package " * 100


def wanted(data: bytes = DATA, href: str = "/Packages/a.rpm") -> Wanted:
    return Wanted("tools", href, Expected(len(data), "sha256", hashlib.sha256(data).hexdigest()))


@dataclass
class Origin:
    """One that has files, and counts; ``gate`` holds its answers back. It may tell lengths, and give parts."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    lengths: bool = False
    ranges: bool = False
    name: str = "the origin"
    url: str = "http://origin.test"

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        self.asked.append((path, dict(headers).get("Range", "")))
        if self.gate is not None:
            await self.gate.wait()
        data = self.files.get(path)
        if data is None:
            return Answer.absent(self.name)
        if self.ranges and (part := dict(headers).get("Range")):
            first, last = (int(n) for n in part.removeprefix("bytes=").split("-"))
            said = (("Content-Range", f"bytes {first}-{last}/{len(data)}"),)
            return Answer(self.name, 206, said, once(data[first : last + 1]), lambda: None)
        told = (("Content-Length", str(len(data))),) if self.lengths else ()
        return Answer(self.name, 200, told, once(data), lambda: None)


@dataclass
class World:
    kept: Kept
    packages: Packages
    origin: Origin
    elsewhere: dict[str, bytes]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    origin, others = Origin({"/Packages/a.rpm": DATA}), dict[str, bytes]()

    async def elsewhere(sha256: str) -> Answer:
        data = others.get(sha256)
        return Answer("another", 200, (), once(data), lambda: None) if data is not None else Answer.absent("another")

    async def origins(name: str) -> Origin:
        if name != "tools":
            raise NotFound(f"no {name}")
        return origin

    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        packages = Packages(kept, elsewhere, origins)
        yield World(kept, packages, origin, others)
        await packages.close()


async def test_of_many_who_want_one_one_fetches_it(world: World) -> None:
    world.origin.gate = asyncio.Event()
    waiting = [asyncio.create_task(world.packages.fetch(wanted())) for _ in range(20)]
    await asyncio.sleep(0.05)
    # Who goes away takes it from nobody.
    waiting[0].cancel()
    world.origin.gate.set()
    assert [type(e) for e in await asyncio.gather(*waiting, return_exceptions=True) if e is not None] == [
        asyncio.CancelledError
    ]
    assert len(world.origin.asked) == 1
    await world.packages.fetch(wanted())
    assert len(world.origin.asked) == 1


async def test_each_repository_asks_its_own_origin(tmp_path: Path) -> None:
    gone, there = Origin(gate=asyncio.Event()), Origin({"/Packages/a.rpm": DATA})

    async def origins(name: str) -> Origin:
        return gone if name == "tools" else there

    async def nobody(_: str) -> Answer:
        return Answer.absent("another")

    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        packages = Packages(kept, nobody, origins)
        first = asyncio.create_task(packages.fetch(wanted()))
        second = asyncio.create_task(packages.fetch(wanted()._replace(repository="more")))
        await asyncio.sleep(0.05)
        assert gone.gate is not None
        gone.gate.set()
        await second
        with pytest.raises(NotFound):
            await first
        assert await kept.has(hashlib.sha256(DATA).hexdigest())
        await packages.close()


async def test_another_member_comes_before_the_origin(world: World) -> None:
    world.elsewhere[hashlib.sha256(DATA).hexdigest()] = DATA
    await world.packages.fetch(wanted())
    assert await world.kept.has(hashlib.sha256(DATA).hexdigest())
    assert world.origin.asked == []


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"x" * len(DATA), Differs), (DATA[:-1], MusterError), (DATA + b"x", MusterError), (None, NotFound)],
)
async def test_what_is_not_right_does_not_stay(world: World, data: bytes | None, error: type[Exception]) -> None:
    if data is None:
        del world.origin.files["/Packages/a.rpm"]
    else:
        world.origin.files["/Packages/a.rpm"] = data
    with pytest.raises(error):
        await world.packages.fetch(wanted())
    assert not await world.kept.has(hashlib.sha256(DATA).hexdigest())
    assert await world.kept.counted() == 0


async def test_what_was_asked_for_longest_ago_makes_room_but_not_what_is_needed(tmp_path: Path) -> None:
    files = {f"/{n}": bytes([n]) * 30_000 for n in range(5)}
    origin = Origin(files)

    async def origins(_: str) -> Origin:
        return origin

    async def elsewhere(_: str) -> Answer:
        return Answer.absent("another")

    with contextlib.closing(Kept(tmp_path, limit_bytes=100_000)) as kept:
        packages = Packages(kept, elsewhere, origins)
        first = hashlib.sha256(files["/0"]).hexdigest()

        async def needed() -> Container[str]:
            return {first}

        packages.needed = needed
        for path, data in files.items():
            await packages.fetch(wanted(data, path))
        assert await kept.has(first)
        assert await kept.has(hashlib.sha256(files["/4"]).hexdigest())
        assert not await kept.has(hashlib.sha256(files["/1"]).hexdigest())
        large = b"x" * 200_000
        origin.files["/large"] = large
        with pytest.raises(Full):
            await packages.fetch(wanted(large, "/large"))
        assert await kept.has(first)
        await packages.close()


async def test_who_is_named_by_another_digest_alone_passes_through(world: World) -> None:
    other = wanted()._replace(expected=Expected(len(DATA), "sha512", hashlib.sha512(DATA).hexdigest()))
    with pytest.raises(Unavailable, match="sha512"):
        await world.packages.fetch(other)
    answer = await world.packages.passing(other)
    assert await answer.whole(1 << 20) == DATA
    # Its length is known, whatever the origin says.
    assert ("Content-Length", str(len(DATA))) in answer.headers


async def test_what_is_of_no_repository_is_asked_of_nobody(world: World) -> None:
    with pytest.raises(NotFound):
        await world.packages.fetch(wanted()._replace(repository="others"))


async def test_what_can_have_no_room_takes_nobody_elses(tmp_path: Path) -> None:
    files = {f"/{n}": bytes([n]) * 30_000 for n in range(3)}
    origin, looks = Origin(files), list[int]()

    async def origins(_: str) -> Origin:
        return origin

    async def elsewhere(_: str) -> Answer:
        return Answer.absent("another")

    with contextlib.closing(Kept(tmp_path, limit_bytes=100_000)) as kept:
        packages = Packages(kept, elsewhere, origins)

        async def needed() -> Container[str]:
            looks.append(1)
            return {hashlib.sha256(files["/0"]).hexdigest()}

        packages.needed = needed
        for path, data in files.items():
            await packages.fetch(wanted(data, path))
        for size in (100_001, 80_000, 80_000):
            with pytest.raises(Full):
                await packages.make_room(size)
        # All that there is was looked at once.
        assert len(looks) == 1
        assert await kept.has(*(hashlib.sha256(data).hexdigest() for data in files.values()))
        await packages.make_room(60_000)
        assert not await kept.has(hashlib.sha256(files["/1"]).hexdigest())
        await packages.close()


async def test_a_slow_origin_holds_up_no_other(tmp_path: Path) -> None:
    slow = Origin({}, gate=asyncio.Event())
    quick = Origin({"/Packages/a.rpm": DATA})

    async def origins(name: str) -> Origin:
        return slow if name == "slow" else quick

    async def elsewhere(_: str) -> Answer:
        return Answer.absent("another")

    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        packages = Packages(kept, elsewhere, origins)
        for n in range(50):
            packages.begin(wanted(b"%d" % n)._replace(repository="slow"))
        async with asyncio.timeout(5):
            await packages.fetch(wanted())
        await packages.close()


async def test_where_a_member_goes_away_the_origin_goes_on(world: World) -> None:
    async def broken(_: str) -> Answer:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield DATA[:100]
            raise Unavailable("it has died")

        return Answer("another", 200, (("Content-Length", str(len(DATA))),), pieces(), lambda: None)

    world.packages._elsewhere = broken
    world.origin.ranges = True
    await world.packages.fetch(wanted())
    assert world.origin.asked == [("/Packages/a.rpm", f"bytes=100-{len(DATA) - 1}")]


async def test_what_says_another_length_does_not_begin(world: World) -> None:
    world.origin.lengths = True
    world.origin.files["/Packages/a.rpm"] = DATA + b"!"
    with pytest.raises(Differs, match="bytes that the repository names"):
        await world.packages.passing(wanted())


async def test_what_passes_to_clients_is_asked_for_apart(tmp_path: Path) -> None:
    kept_of, passes_of = Origin({"/Packages/a.rpm": DATA}), Origin({"/Packages/a.rpm": DATA})

    async def origins(_: str) -> Origin:
        return kept_of

    async def passing(_: str) -> Origin:
        return passes_of

    async def elsewhere(_: str) -> Answer:
        return Answer.absent("another")

    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        packages = Packages(kept, elsewhere, origins, passing)
        (await packages.passing(wanted())).end()
        assert (len(kept_of.asked), len(passes_of.asked)) == (0, 1)
        await packages.fetch(wanted())
        assert (len(kept_of.asked), len(passes_of.asked)) == (1, 1)
        await packages.close()
