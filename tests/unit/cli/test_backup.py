from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pyrage
import pytest

from muster.kernel.errors import Conflict, Misconfigured, Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.unit.cli.calls import CLUSTER, run, wrong_usage

KEY = pyrage.x25519.Identity.generate()
TO = ("--recipient", str(KEY.to_public()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A cluster file whose store has a schema and nothing in it."""
    found = tmp_path / "cluster.yaml"
    found.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    (tmp_path / "pki").mkdir()
    (tmp_path / "identity").write_text(f"{KEY}\n")

    async def made() -> None:
        async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
            await store.prepare()

    asyncio.run(made())
    return found


def test_what_would_be_in_it_is_listed_and_nothing_is_written(file: Path) -> None:
    before = set(file.parent.iterdir())
    said = run(file, "backup", "--dry-run").output
    assert "Would write a backup: cluster demo at" in said
    assert f"0644 {file}" in said
    assert "0 rows of certificates" in said
    assert "the key of the cluster's CA: " in said.partition("Not in it:")[2]
    assert "table autosign_tokens: one-use tokens" in said
    found = json.loads(run(file, "backup", "--dry-run", "--json").output)
    assert (found["dry_run"], found["format"], found["rows"]["certificates"], found["size"]) == (True, 1, 0, 0)
    assert set(file.parent.iterdir()) - before <= {file.parent / "store.db-shm", file.parent / "store.db-wal"}


def test_a_backup_is_never_replaced_unasked_and_never_left_in_part(file: Path) -> None:
    at = file.parent / "it.age"
    said = run(file, "backup", *TO, "--output", str(at)).output
    assert f"Wrote {at}: cluster demo at" in said
    assert f"{at.stat().st_size} bytes" in said
    before = at.read_bytes()
    with pytest.raises(Conflict, match="--force replaces it"):
        run(file, "backup", *TO, "--output", str(at))
    assert at.read_bytes() == before
    run(file, "backup", *TO, "--output", str(at), "--force")
    assert at.read_bytes() != before
    with pytest.raises(Unavailable, match=r"Writing .* failed"):
        run(file, "backup", *TO, "--output", str(file.parent / "absent" / "it.age"))
    assert wrong_usage("backup", *TO, "--cluster", str(file), "--output", str(file.parent / "pki"), "--force")
    os.mkfifo(file.parent / "pipe")
    with pytest.raises(Conflict, match="is no file"):
        run(file, "backup", *TO, "--output", str(file.parent / "pipe"), "--force")
    (file.parent / "store.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Unavailable):
        run(file, "backup", *TO, "--output", str(file.parent / "other.age"))
    assert not [p for p in file.parent.iterdir() if "other.age" in p.name]


def test_somebody_must_be_able_to_open_it(file: Path) -> None:
    with pytest.raises(Misconfigured, match="Nobody could open it"):
        run(file, "backup", "--output", str(file.parent / "it.age"))
    with pytest.raises(Misconfigured, match="that is an identity"):
        run(file, "backup", "--recipient", str(KEY), "--output", str(file.parent / "it.age"))
    assert wrong_usage("backup", *TO, "--cluster", str(file))
    assert wrong_usage("backup", *TO, "--cluster", str(file), "--output", "-", "--json")


def test_a_store_without_a_schema_has_nothing_to_back_up(file: Path) -> None:
    (file.parent / "store.db").unlink()
    with pytest.raises(Misconfigured, match="has no schema yet; there is nothing to back up"):
        run(file, "backup", "--dry-run")


def test_a_newer_schema_is_backed_up_by_who_knows_all_of_it(file: Path) -> None:
    async def made_newer() -> None:
        from sqlalchemy import text

        async with (
            opened(Secret(f"sqlite:///{file.parent}/store.db")) as store,
            store.whole(writing=True, limit_s=9) as uow,
        ):
            await uow.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    asyncio.run(made_newer())
    with pytest.raises(Misconfigured, match=r"schema 9999, made by a newer Muster.*make the backup with the newer one"):
        run(file, "backup", "--dry-run")
