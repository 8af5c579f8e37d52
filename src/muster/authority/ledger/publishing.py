"""The row of the lists in force: locked while something is revoked, and published anew.

Revocations and the list that publishes them change together under the row's lock, so number and content never disagree
(docs/facts/puppet-ca.md §7.2, §7.3).
"""

from __future__ import annotations

import asyncio

from sqlalchemy import select, update

from muster.authority.ledger.entries import Builder
from muster.authority.ledger.lookup import AUTHORITY, Published, published_in
from muster.authority.ledger.reading import every_revoked_in
from muster.store.engine import Unit
from muster.store.tables import crls

# The list's time must grow whatever the store's clock does: agents compare it with a clock of their own.
_TICK_S = 0.000_001


async def locked(uow: Unit) -> Published:
    """Return the lists with their row locked until the unit ends; SQLite's write transaction locks everything."""
    await uow.connection.execute(select(crls.c.number).where(crls.c.authority == AUTHORITY).with_for_update())
    return await published_in(uow)


async def held(uow: Unit) -> None:
    """Keep the lists from changing until the unit ends; any number of units may hold them at once."""
    await uow.connection.execute(select(crls.c.number).where(crls.c.authority == AUTHORITY).with_for_update(read=True))


async def publish(uow: Unit, before: Published, build: Builder) -> None:
    revoked = await every_revoked_in(uow)
    number = before.number + 1
    # In a thread: fifty thousand entries take a third of a second, and this member answers others meanwhile.
    own, infra, next_update = await asyncio.to_thread(build, revoked, number)
    values = {
        "number": number,
        "own_pem": own,
        "infra_pem": infra,
        "updated_at": await later(uow, before),
        "next_update": next_update,
    }
    await uow.connection.execute(update(crls).where(crls.c.authority == AUTHORITY).values(**values))


async def later(uow: Unit, before: Published) -> float:
    return max(await uow.now(), before.updated_at + _TICK_S)
