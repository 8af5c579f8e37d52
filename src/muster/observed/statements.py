"""What each member is made of, told to the store, so that every member can count in how much it differs from the others.

Only the member itself writes its statement. It lies beside the heartbeat, not in it: it is larger and seldom changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from muster.cluster.roster import SILENT_AFTER_S
from muster.observed.parity import brief
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from muster.store.engine import Store

# The documents' names before the member's; it stands in the query, too.
PREFIX = "facts/"
_FRESH = Query(
    "SELECT members.name, documents.content FROM members JOIN documents ON documents.name = 'facts/' || members.name"
    " WHERE members.heartbeat_at >= :since",
    json=("content",),
)


class Statements:
    """The members' statements in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def give(self, member: str, facts: Mapping[str, Any]) -> None:
        """Make these the member's facts.

        Raises:
            Unavailable: the store did not answer; the earlier statement stands.
        """
        from sqlalchemy import insert, update

        from muster.store.tables import documents, store_now

        name = f"{PREFIX}{member}"
        values = {"content": brief(facts), "changed_at": store_now(), "changed_by": member}
        async with self._store.write("statement") as uow:
            changed = await uow.connection.execute(
                update(documents).where(documents.c.name == name).values(**values, version=documents.c.version + 1)
            )
            if changed.rowcount == 0:
                await uow.connection.execute(insert(documents).values(name=name, **values))

    async def told(self) -> dict[str, dict[str, Any]]:
        """Return the facts of the members that are not silent, by member, flat, long values as digests.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await told_in(uow)


async def told_in(uow: Reading) -> dict[str, dict[str, Any]]:
    """As :meth:`Statements.told`, within a unit that reads more."""
    rows = await uow.rows(_FRESH, since=await uow.now() - SILENT_AFTER_S)
    return {row["name"]: dict(row["content"]) for row in sorted(rows, key=lambda row: str(row["name"]))}
