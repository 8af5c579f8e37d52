"""What was found last, on both stores."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli import muster
from muster.observed.recorded import record, records_in
from muster.pki.authority import ClusterCA
from muster.store.engine import Store

pytestmark = pytest.mark.anyio


async def test_what_was_found_last_is_kept_with_who_found_it_and_its_age(store: Store) -> None:
    async with store.read() as uow:
        assert await records_in(uow) == {}
    for n in (1, 2):
        await record(store, "doctor", {"healthy": n == 2}, by="admin")
    await record(store, "parity", {"alike": True}, by="member proxy01")
    async with store.read() as uow:
        found = await records_in(uow)
    assert {kind: (r.found, r.by) for kind, r in found.items()} == {
        "doctor": ({"healthy": True}, "admin"),
        "parity": ({"alike": True}, "member proxy01"),
    }
    assert all(r.age_s >= 0 for r in found.values())


async def test_of_two_who_found_something_at_once_one_is_kept_and_neither_fails(store: Store) -> None:
    await asyncio.gather(*(record(store, "doctor", {"n": n}, by=str(n)) for n in range(4)))
    async with store.read() as uow:
        assert (await records_in(uow))["doctor"].found["n"] in range(4)


def test_a_doctor_who_finds_no_store_makes_none_and_says_so(tmp_path: Path) -> None:
    file, database = tmp_path / "cluster.yaml", tmp_path / "store.db"
    file.write_text(
        f"schema: 1\ncluster: demo\naddress: 127.0.0.1\nstore: {{url: 'sqlite:///{database}'}}\n"
        "members:\n- {id: 1, name: proxy01.example.net, address: 127.0.0.11}\n"
    )
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))
    where = ["--cluster", str(file), "--run", str(tmp_path)]
    said = CliRunner().invoke(muster, ["doctor", "--record", "--json", *where])
    assert "Not recorded for the cluster's page: There is no store" in said.stderr
    assert not database.exists()
