"""What a member keeps of what is mirrored: it comes, is looked at again after a restart, and is not removed to make room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Mirror
from muster.content.backend import Answer
from muster.content.call import Call
from muster.content.fill import Behind
from muster.content.index import Expected
from muster.content.kept import Kept
from muster.content.known import Followed
from muster.content.mirror import paths
from muster.content.mirror.carried import Carried, Fronted
from muster.content.mirror.keeping import Keeping
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.packages import Packages, Wanted
from muster.content.mirror.publications import Publication
from muster.content.mirror.sync import synchronised
from muster.content.staging import Staging
from muster.content.views import Views
from muster.kernel.errors import NotFound
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers.pulp_stand_in import Version, version
from tests.unit.content.mirror.origin import URL, Origin
from tests.unit.content.mirror.test_sync import sha256

pytestmark = pytest.mark.anyio

BODIES = {"a": b"package a" * 400, "b+c": b"package b" * 300}
ONE, TWO = (version(n, {**BODIES, "e": b"%d" % n * 100}) for n in (1, 2))
AT = paths.at("library", "yum", "tools", "")


def settings(**more: Any) -> Mirror:
    return Mirror.model_validate({"repositories": {"tools": {"kind": "yum", "url": URL, **more}}})


@dataclass
class World:
    """A member that mirrors one repository, and a second disk that had something else before."""

    root: Path
    ledger: Ledger
    views: Views
    settings: Mirror
    limit_bytes: int = 1 << 20
    origin: Origin = field(default_factory=Origin)
    wanted: list[tuple[str, str]] = field(default_factory=list)
    told: int = 0

    def __post_init__(self) -> None:
        self.kept = Kept(self.root / "kept", limit_bytes=1 << 20)
        self.disk = Kept(self.root / "packages", limit_bytes=self.limit_bytes)
        self.carried = Carried(self.kept)
        call = Call(Fronted(None, self.carried), None, (), Behind("", None))
        self.staging = Staging(lambda _: call, self.kept)

        async def elsewhere(_: str) -> Answer:
            return Answer.absent("another")

        async def origins(name: str) -> Origin:
            if name not in self.settings.repositories:
                raise NotFound(f"no {name}")
            return self.origin

        async def told() -> None:
            self.told += 1

        self.packages = Packages(self.disk, elsewhere, origins)
        self.keeping = Keeping(
            self.settings, self.ledger, self.views, self.staging, self.kept, self.packages, self.carried,
            want=lambda path, manifest: self.wanted.append((path, manifest)), told=told,
        )  # fmt: skip

    async def publish(self, made: Version, environment: str = "library") -> Publication:
        """Let an environment have a version, whose metadata are on this disk then."""
        self.origin.files = made.files

        async def progress(_done: int, _of: int, _sentence: str) -> None: ...

        mirrored = self.settings.repositories["tools"].model_copy(update={"policy": "on_demand"})
        found = await synchronised(
            "tools", mirrored, self.origin, self.kept, self.disk, last=None, progress=progress, connections=4
        )  # fmt: skip
        await self.ledger.publish(found.publication, environment=environment, kind="yum", by="me")
        return found.publication

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await self.keeping.beat()
                await asyncio.sleep(0.01)

    def carries(self, publication: Publication) -> bool:
        found = self.carried.known.repositories.get(AT)
        return found is not None and found.manifests[0] == publication.parts[""]

    async def close(self) -> None:
        await self.keeping.close()
        await self.packages.close()
        self.kept.close()
        self.disk.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as it:
        yield it


@contextlib.asynccontextmanager
async def member(root: Path, store: Store, **more: Any) -> AsyncIterator[World]:
    limit_bytes = more.pop("limit_bytes", 1 << 20)
    it = World(root, Ledger(store), Views(store), settings(**more), limit_bytes)
    try:
        yield it
    finally:
        await it.close()


async def has_all(world: World, made: Version) -> bool:
    return await world.disk.has(*map(sha256, made.packages.values()))


async def test_what_is_immediate_is_carried_with_its_packages(tmp_path: Path, store: Store) -> None:
    async with member(tmp_path, store, policy="immediate") as world:
        publication = await world.publish(ONE)
        await world.until(lambda: world.carries(publication))
        assert await has_all(world, ONE)
        assert world.wanted == [(AT, publication.parts[""])]


@pytest.mark.parametrize("policy", ["on_demand", "immediate"])
async def test_a_member_that_is_started_again_looks_whether_all_is_here(
    tmp_path: Path, store: Store, policy: str
) -> None:
    async with member(tmp_path, store, policy=policy) as world:
        publication = await world.publish(ONE)
        await world.until(lambda: world.carries(publication))
        file = tmp_path / "mirror.json"
        world.carried.known.write(file)
        for body in ONE.packages.values():
            await world.disk.drop(sha256(body))
    # The policy may be another one than before, and a disk may have lost something.
    async with member(tmp_path, store, policy="immediate") as world:
        world.carried.known.read(file)
        world.origin.files = ONE.files
        assert world.carries(publication)
        async with asyncio.timeout(10):
            while not await has_all(world, ONE):
                await world.keeping.beat()
                await asyncio.sleep(0.01)


async def test_what_is_immediate_is_not_removed_to_make_room(tmp_path: Path, store: Store) -> None:
    size = sum(map(len, ONE.packages.values()))
    async with member(tmp_path, store, policy="immediate", limit_bytes=size + 3000) as world:
        publication = await world.publish(ONE)
        await world.until(lambda: world.carries(publication))
        others = {f"Packages/{n}.rpm": bytes([n]) * 2000 for n in range(4)}
        world.origin.files = others
        for path, body in others.items():
            await world.packages.fetch(Wanted("tools", f"/{path}", Expected(len(body), "sha256", sha256(body))))
        assert await has_all(world, ONE)
        assert await world.disk.has(sha256(others["Packages/3.rpm"]))
        assert not await world.disk.has(sha256(others["Packages/0.rpm"]))


async def test_what_is_on_demand_is_removed_to_make_room(tmp_path: Path, store: Store) -> None:
    size = sum(map(len, ONE.packages.values()))
    async with member(tmp_path, store, limit_bytes=size + 1000) as world:
        publication = await world.publish(ONE)
        await world.until(lambda: world.carries(publication))
        for name, body in ONE.packages.items():
            expected = Expected(len(body), "sha256", sha256(body))
            await world.packages.fetch(Wanted("tools", f"/Packages/{name.replace('+', '%2B')}.rpm", expected))
        world.origin.files = {"x": b"x" * 2000}
        await world.packages.fetch(Wanted("tools", "/x", Expected(2000, "sha256", sha256(b"x" * 2000))))
        assert not await has_all(world, ONE)


async def test_what_the_cluster_file_does_not_name_any_more_is_not_carried(tmp_path: Path, store: Store) -> None:
    async with member(tmp_path, store) as world:
        publication = await world.publish(ONE)
        world.carried.known.repositories = {f"{AT}-gone": Followed((publication.parts[""],), is_open=True)}
        await world.until(lambda: world.carries(publication))
        assert list(world.carried.known.repositories) == [AT]
