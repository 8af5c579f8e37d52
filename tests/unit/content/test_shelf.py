"""Versions on one disk: each is brought once, what fails is said and tried again, and stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from muster.content import shelf as module
from muster.content.kept import Full, Oversized
from muster.content.manifest import REPOMD, Manifest
from muster.content.metadata.malformed import Malformed
from muster.content.metrics import FollowingMetrics
from muster.content.shelf import Shelf
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

PATH, OTHER = "/r", "/other"
A, B, C = "a" * 64, "b" * 64, "c" * 64
FIRST, SECOND = "1" * 64, "2" * 64


class Staging:
    """Brings what a test lets it.

    Attributes:
        fails: raised in place of bringing.
        goes: bringing waits until it is set.
        on_disk: manifests by their digest, whose files are all there.
        asked: what was to be brought.
    """

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.goes = asyncio.Event()
        self.goes.set()
        self.on_disk: dict[str, Manifest] = {}
        self.asked: list[str] = []
        self.at_once = self.most = 0

    async def _brought(self, digest: str) -> Manifest:
        self.asked.append(digest)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.goes.wait()
            if self.fails is not None:
                raise self.fails
        finally:
            self.at_once -= 1
        return Manifest(1, 1.0, {REPOMD: digest}, C)

    async def staged(self, path: str, body: bytes, certificate: bytes | None) -> Manifest:
        return await self._brought(body.decode())

    async def copied(self, digest: str) -> Manifest:
        return await self._brought(digest)

    async def keep(self, manifest: Manifest) -> str:
        return {A: FIRST, B: SECOND}[manifest.digest]

    async def manifest(self, digest: str) -> Manifest | None:
        return self.on_disk.get(digest)

    async def has(self, manifest: Manifest) -> bool:
        return manifest in self.on_disk.values()


class Views:
    def __init__(self) -> None:
        self.known: list[tuple[str, str, str]] = []

    async def know(self, path: str, versions: list[tuple[str, int, float, str]]) -> None:
        self.known += [(path, digest, manifest) for digest, _, _, manifest in versions]


class It:
    def __init__(self) -> None:
        self.staging, self.views, self.came, self.registry = Staging(), Views(), 0, CollectorRegistry()
        counted = FollowingMetrics(self.registry)
        self.shelf = Shelf(self.views, self.staging, self._came, counted)  # type: ignore[arg-type]

    def _came(self) -> None:
        self.came += 1

    async def until(self, count: int) -> None:
        """Wait until so many came, or did not."""
        async with asyncio.timeout(10):
            while self.came < count:
                await asyncio.sleep(0)

    def counted(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("muster_content_stagings_total", {"outcome": outcome})


@pytest.fixture
async def it() -> AsyncIterator[It]:
    made = It()
    yield made
    await made.shelf.close()


async def test_what_is_new_in_the_store_is_noted_and_is_here_when_the_store_has_it(it: It) -> None:
    it.shelf.bring_own(PATH, A, A.encode(), None, None)
    await it.until(1)
    assert it.views.known == [(PATH, A, FIRST)]
    # Whoever noted it first is believed, so it is not here before that is read.
    assert not it.shelf.has(PATH, A)
    it.shelf.bring_own(PATH, A, A.encode(), None, FIRST)
    await it.until(2)
    assert (it.shelf.has(PATH, A), it.shelf.whole(PATH), it.shelf.count) == (True, {A: FIRST}, 1)
    assert it.shelf.needed([FIRST, SECOND]) == {FIRST, SECOND, A, C}


async def test_where_another_member_noted_other_files_its_are_copied(it: It) -> None:
    it.shelf.bring_own(PATH, A, A.encode(), None, SECOND)
    await it.until(1)
    assert it.staging.asked == [A, SECOND]
    assert it.shelf.whole(PATH) == {A: SECOND}


async def test_what_lies_on_the_disk_is_brought_by_nobody(it: It) -> None:
    it.staging.on_disk[FIRST] = Manifest(1, 1.0, {REPOMD: A}, "")
    await it.shelf.look(PATH, {A: FIRST, B: SECOND})
    assert it.shelf.whole(PATH) == {A: FIRST}
    it.shelf.bring(PATH, A, FIRST)
    it.shelf.bring_own(PATH, A, A.encode(), None, FIRST)
    await asyncio.sleep(0)
    assert it.staging.asked == []


async def test_a_version_is_brought_by_one_at_a_time(it: It) -> None:
    it.staging.goes.clear()
    for _ in range(3):
        it.shelf.bring(PATH, A, FIRST)
        await asyncio.sleep(0)
    it.staging.goes.set()
    await it.until(1)
    assert it.staging.asked == [FIRST]


async def test_so_many_are_brought_at_once(it: It) -> None:
    it.staging.goes.clear()
    for n in range(20):
        it.shelf.bring(f"/{n}", A, FIRST)
    for _ in range(50):
        await asyncio.sleep(0)
    it.staging.goes.set()
    await it.until(20)
    assert it.staging.most == 4


async def test_what_fails_is_said_of_that_version_and_not_tried_again_at_once(it: It) -> None:
    it.staging.fails = Unavailable("it broke off")
    it.shelf.bring(PATH, A, FIRST)
    await it.until(1)
    assert it.shelf.trouble(PATH, (A,)) == "it broke off"
    assert it.shelf.trouble(PATH, (B,)) == it.shelf.trouble(OTHER, (A,)) == ""
    assert it.shelf.trouble(PATH, (A,), for_s=60) == ""
    assert (it.counted("failed"), it.counted("brought")) == (1, None)
    it.shelf.bring(PATH, A, FIRST)
    await asyncio.sleep(0)
    assert it.staging.asked == [FIRST]


async def test_what_comes_after_all_is_no_trouble(it: It, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    it.staging.fails = Unavailable("it broke off")
    it.shelf.bring(PATH, A, FIRST)
    await it.until(1)
    it.staging.fails = None
    it.shelf.bring(PATH, A, FIRST)
    await it.until(2)
    assert it.shelf.trouble(PATH, (A,)) == ""
    assert (it.shelf.has(PATH, A), it.counted("brought")) == (True, 1)


async def test_trouble_lasts_since_it_began(it: It, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    it.staging.fails = Unavailable("it broke off")
    for n in range(1, 4):
        it.shelf.bring(PATH, A, FIRST)
        await it.until(n)
        await asyncio.sleep(0.02)
    assert it.shelf.trouble(PATH, (A,), for_s=0.05) == "it broke off"


@pytest.mark.parametrize("fails", [Malformed("no XML"), Oversized("a gigabyte")])
async def test_what_will_be_the_same_is_left_alone_for_long(
    it: It, monkeypatch: pytest.MonkeyPatch, fails: Exception
) -> None:
    """It may have to be fetched whole, or unpacked, to be found so."""
    for name in ("_AGAIN_S", "_FULL_AGAIN_S"):
        monkeypatch.setattr(module, name, 0.0)
    it.staging.fails = fails
    it.shelf.bring_own(PATH, A, A.encode(), None, None)
    await it.until(1)
    for _ in range(3):
        it.shelf.bring_own(PATH, A, A.encode(), None, None)
        await asyncio.sleep(0)
    assert it.staging.asked == [A]
    # Another version is another matter.
    it.staging.fails = None
    it.shelf.bring_own(PATH, B, B.encode(), None, None)
    await it.until(2)
    assert it.staging.asked == [A, B]


async def test_a_full_disk_is_left_alone_for_longer(it: It, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    it.staging.fails = Full("no room")
    it.shelf.bring(PATH, A, FIRST)
    await it.until(1)
    it.shelf.bring(PATH, A, FIRST)
    await asyncio.sleep(0)
    assert it.staging.asked == [FIRST]


async def test_what_takes_too_long_is_said_in_words(it: It) -> None:
    it.staging.fails = TimeoutError()
    it.shelf.bring(PATH, A, FIRST)
    await it.until(1)
    assert it.shelf.trouble(PATH, (A,)) == "it took too long"


async def test_what_breaks_in_one_repository_stops_no_other(it: It) -> None:
    it.staging.fails = ValueError("a defect")
    it.shelf.bring(PATH, A, FIRST)
    await it.until(1)
    assert it.shelf.trouble(PATH, (A,)) == "ValueError: a defect"
    it.staging.fails = None
    it.shelf.bring(OTHER, A, FIRST)
    await it.until(2)
    assert it.shelf.has(OTHER, A)


async def test_what_is_dropped_is_not_here_any_more_nor_is_its_trouble(it: It) -> None:
    for version, manifest in ((A, FIRST), (B, SECOND)):
        it.shelf.bring(PATH, version, manifest)
    await it.until(2)
    it.staging.fails = Unavailable("it broke off")
    it.shelf.bring(PATH, C, C)
    await it.until(3)
    it.shelf.drop(PATH, [A])
    assert it.shelf.whole(PATH) == {A: FIRST}
    assert it.shelf.trouble(PATH, (C,)) == ""
    assert it.shelf.needed([SECOND]) == {SECOND}


async def test_closing_ends_what_is_under_way(it: It) -> None:
    it.staging.goes.clear()
    it.shelf.bring(PATH, A, FIRST)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await it.shelf.close()
    assert not it.shelf.has(PATH, A)
    assert it.staging.at_once == 0
