"""Commands read by a glance; who reads, or only looks what a change would be, makes no store and brings none up to date."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from muster.app.settings import cluster_store, store_to_read
from muster.authority.ledger.ledger import Ledger
from muster.cluster.file import ClusterFile
from muster.cluster.roster import seen_in
from muster.store.schema import HEAD, Absent, Unmade

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


@pytest.mark.parametrize("where", ["store.db", "absent/store.db"])
async def test_who_reads_makes_no_store(tmp_path: Path, where: str) -> None:
    said = []
    for opened in (store_to_read(cluster(tmp_path / where)), cluster_store(cluster(tmp_path / where), changes=False)):
        with pytest.raises(Unmade, match=r"has no schema yet; .* muster serve and muster balance make") as raised:
            async with opened as store, store.read() as uow:
                await uow.now()
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert list(tmp_path.iterdir()) == []


async def test_who_reads_leaves_an_older_store_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    async with cluster_store(cluster(file)) as made:
        await made.ping()
    with sqlite3.connect(file) as older:
        older.execute("UPDATE alembic_version SET version_num = '0003'")
    older.close()
    for opened in (store_to_read(cluster(file)), cluster_store(cluster(file), changes=False)):
        with pytest.raises(Unmade, match=f"has schema 0003; this Muster needs {HEAD}"):
            async with opened as store, store.read() as uow:
                await uow.now()
    with sqlite3.connect(file) as found:
        assert found.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
    found.close()


async def test_a_store_of_an_older_muster_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    # A dry run says what is done where there is no store, as long as nobody can have done it before.
    async with cluster_store(cluster(file), changes=False) as store:
        await Ledger(store, "proxy01.test").refuse_unless_empty()
    async with cluster_store(cluster(file)) as made:
        await made.ping()
    with sqlite3.connect(file) as older:
        older.execute("UPDATE alembic_version SET version_num = '0003'")
    older.close()
    async with cluster_store(cluster(file), changes=False) as store:
        with pytest.raises(Unmade, match="has schema 0003") as raised:
            await Ledger(store, "proxy01.test").refuse_unless_empty()
    assert not isinstance(raised.value, Absent)


async def test_who_reads_only_glances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster_store(cluster(tmp_path / "store.db")) as made:
        await made.ping()
    # Whoever tried to load it now would fail.
    monkeypatch.setitem(sys.modules, "muster.store.engine", None)
    async with store_to_read(cluster(tmp_path / "store.db")) as store, store.read() as uow:
        assert await seen_in(uow) == {}
