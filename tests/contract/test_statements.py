"""The members' statements on both stores."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from muster.cluster.roster import SILENT_AFTER_S, Report, Roster
from muster.observed.statements import Statements
from muster.store.engine import Store
from muster.store.tables import documents, members

pytestmark = pytest.mark.anyio

FACTS = {"version": "3.11.0", "dns": {"state": "running", "settings": {"use_provider": None}, "capabilities": ["a"]}}
FLAT = {"version": "3.11.0", "dns.state": "running", "dns.settings.use_provider": None, "dns.capabilities": ["a"]}


async def beat(store: Store, name: str) -> None:
    await Roster(store).beat(Report(name, 1, "0.1.0", "1", "host", 42, "ready", "", {}, {}, {}), first=True)


async def test_what_a_member_told_is_told_to_everybody_until_it_tells_otherwise(store: Store) -> None:
    await beat(store, "p1")
    await beat(store, "p2")
    await Statements(store).give("p1", FACTS)
    await Statements(store).give("p2", {"version": "1"})
    assert await Statements(store).told() == {"p1": FLAT, "p2": {"version": "1"}}
    await Statements(store).give("p2", {"version": "2"})
    assert await Statements(store).told() == {"p1": FLAT, "p2": {"version": "2"}}
    async with store.read() as uow:
        rows = (await uow.connection.execute(select(documents.c.name, documents.c.version))).all()
    assert sorted(tuple(r) for r in rows) == [("facts/p1", 1), ("facts/p2", 2)]


async def test_a_member_that_is_silent_or_never_told_anything_is_not_there(store: Store) -> None:
    for name in ("p1", "p2", "p3"):
        await beat(store, name)
    for name in ("p1", "p2", "stranger"):
        await Statements(store).give(name, FACTS)
    async with store.write() as uow:
        late = members.c.heartbeat_at - SILENT_AFTER_S - 1
        await uow.connection.execute(update(members).where(members.c.name == "p2").values(heartbeat_at=late))
    assert await Statements(store).told() == {"p1": FLAT}
