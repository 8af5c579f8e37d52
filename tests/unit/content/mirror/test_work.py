"""What a synchronisation leaves in the ledger when it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from muster.content.mirror import work as module
from muster.content.mirror.jobs import Outcome
from muster.content.mirror.ledger import Move
from muster.content.mirror.publications import Job
from muster.content.mirror.work import Means, Work
from muster.store.engine import Store
from tests.servers.pulp_stand_in import version
from tests.unit.content.mirror.origin import Origin
from tests.unit.content.mirror.test_keeping import ONE, TWO, World, member, store

pytestmark = pytest.mark.anyio

__all__ = ["store"]


class Origins:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def of(self, _: str) -> Origin:
        return self._origin


async def synchronised(world: World) -> Outcome:
    origins: Any = Origins(world.origin)
    means = Means(world.settings, world.packages, origins, world.keeping)
    it = Work(world.ledger, world.views, world.staging, world.kept, means)

    async def progress(_done: int, _of: int, _sentence: str) -> None: ...

    job = Job(1, "sync", "tools", "", "running", "me", 0.0)
    return await it.runs["sync"](job, progress, None)


async def test_what_is_left_out_is_said(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHOWN_S", 0.0)
    async with member(tmp_path, store) as world:
        world.origin.files = version(1, {"a": b"a", "b%2fc": b"b", "b#c": b"c"}).files
        outcome = await synchronised(world)
    paths = outcome.result["left_out_paths"]
    assert (outcome.result["left_out"], len(paths), outcome.result["packages"]) == (2, 2, 1)
    said = f"; left out, for their paths are none that can be given: {paths[0]} and 1 more"
    assert said in outcome.sentence


async def test_of_many_that_are_left_out_a_few_are_told(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHOWN_S", 0.0)
    async with member(tmp_path, store) as world:
        world.origin.files = version(1, {f"{n}%{'é' * 5000}": b"a" for n in range(30)}).files
        outcome = await synchronised(world)
    assert (outcome.result["left_out"], len(outcome.result["left_out_paths"])) == (30, 20)
    assert len(json.dumps(dict(outcome.result))) < 65_536
    assert len(outcome.sentence) < 500


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
