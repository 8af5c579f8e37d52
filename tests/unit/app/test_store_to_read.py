"""Commands read by a glance; where there is no schema yet, the store makes it first, as for everybody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muster.app.settings import cluster_store, store_to_read
from muster.cluster.file import ClusterFile
from muster.cluster.roster import seen_in
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


def cluster(store: Path) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "test",
            "address": "cluster.test",
            "store": {"url": f"sqlite:///{store}"},
            "members": [{"id": 1, "name": "proxy01.test", "address": "127.0.0.1"}],
        }
    )


async def test_the_first_who_reads_makes_the_schema(tmp_path: Path) -> None:
    async with store_to_read(cluster(tmp_path / "store.db")) as store:
        for _ in range(2):
            async with store.read() as uow:
                assert await seen_in(uow) == {}
    assert (tmp_path / "store.db").exists()


async def test_whoever_comes_later_only_glances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster_store(cluster(tmp_path / "store.db")) as made:
        await made.ping()
    # Whoever tried to load it now would fail.
    monkeypatch.setitem(sys.modules, "muster.store.engine", None)
    async with store_to_read(cluster(tmp_path / "store.db")) as store, store.read() as uow:
        assert await seen_in(uow) == {}


async def test_a_store_that_cannot_be_made_is_refused_as_ever(tmp_path: Path) -> None:
    said = []
    for opened in (cluster_store, store_to_read):
        with pytest.raises(Unavailable, match="there is no directory") as raised:
            async with opened(cluster(tmp_path / "absent" / "store.db")) as store, store.read() as uow:
                await uow.now()
        said.append(str(raised.value))
    assert said[0] == said[1]
