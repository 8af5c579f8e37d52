"""A member of this version beside one of the next, whose migration is already in the store."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from muster.cluster.roster import Report, Roster
from muster.cluster.timeline import Timeline
from muster.kernel.rings import LogRecord, LogRings
from muster.kernel.secrets import Secret
from muster.observed.statements import Statements
from muster.store import schema
from muster.store.documents import Documents
from muster.store.engine import Store, opened
from muster.store.leases import Leases

pytestmark = pytest.mark.anyio

# What the rules of store/migrations allow a next version: add, with defaults, and nothing else.
NEXT = (
    "ALTER TABLE members ADD COLUMN rack TEXT DEFAULT 'unknown'",
    "ALTER TABLE log_records ADD COLUMN facility INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE tokens (name TEXT PRIMARY KEY, used_at DOUBLE PRECISION)",
    "UPDATE alembic_version SET version_num = '9999'",
)


def report(name: str) -> Report:
    return Report(name, 1, "0.1.0", schema.HEAD, "host", 1, "ready", "", {"dns": "running"}, {}, {})


async def used(store: Store, member: str) -> None:
    """Do everything a member does with the store."""
    await Roster(store).beat(report(member), first=True)
    await Roster(store).wish(member, "drain", reason="", by="test")
    assert (await Roster(store).seen())[member].wish.wanted == "drain"
    rings = LogRings(10, 5, member)
    rings.add(LogRecord(1.0, "INFO", f"of {member}"))
    await Timeline(store, member, 10).share(rings)
    documents = Documents(store)
    await documents.replace(await documents.read(member), {"a": 1}, by="test")
    await Statements(store).give(member, {"version": "0.1.0"})
    lease = await Leases(store).acquire(member, member, 30.0)
    assert lease is not None
    async with store.write() as uow:
        await Leases(store).fence(uow, lease)


async def test_the_older_member_works_on_with_what_the_next_version_made(url: str) -> None:
    async with opened(Secret(url)) as before:
        await used(before, "older")
        async with before.write() as uow:
            for statement in NEXT:
                await uow.connection.execute(text(statement))
        # The member that runs on, and one that is started anew on what it finds.
        await used(before, "running-on")
        assert before.schema_notice is None
    async with opened(Secret(url)) as again:
        await used(again, "restarted")
        assert again.schema_notice is not None
        assert "made by a newer Muster" in again.schema_notice
        assert set(await Roster(again).seen()) == {"older", "running-on", "restarted"}
        told, _ = await Timeline(again, "reader", 10).records(0.0)
        assert {r.message for r in told} == {"of older", "of running-on", "of restarted"}
        async with again.read() as uow:
            racks = (await uow.connection.execute(text("SELECT DISTINCT rack FROM members"))).scalars().all()
        assert racks == ["unknown"]
