"""What a synchronisation leaves in the ledger when it is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from muster.content.mirror import work as module
from muster.content.mirror.ledger import Move
from muster.content.mirror.publications import Job
from muster.content.mirror.work import Means, Work
from muster.store.engine import Store
from tests.unit.content.mirror.origin import Origin
from tests.unit.content.mirror.test_keeping import ONE, TWO, World, member, store

pytestmark = pytest.mark.anyio

__all__ = ["store"]


class Origins:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def of(self, _: str) -> Origin:
        return self._origin


async def synchronised(world: World) -> None:
    origins: Any = Origins(world.origin)
    means = Means(world.settings, world.packages, origins, world.keeping)
    it = Work(world.ledger, world.views, world.staging, world.kept, means)

    async def progress(_done: int, _of: int, _sentence: str) -> None: ...

    job = Job(1, "sync", "tools", "", "running", "me", 0.0)
    await it.runs["sync"](job, progress, None)


async def test_who_has_an_older_cluster_file_takes_nothing_away(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHOWN_S", 0.0)
    async with member(tmp_path, store) as world:
        publication = await world.publish(ONE)
        await world.ledger.promote([Move("tools", "yum", publication.digest)], to="newer", by="me")
        world.origin.files = TWO.files
        async with store.write() as uow:
            await uow.connection.execute(text("UPDATE content_distributions SET since = since - 90000"))
        await synchronised(world)
        assert {d.environment for d in (await world.ledger.given()).values()} == {"library", "newer"}
