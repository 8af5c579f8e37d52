"""Roles one member plays at a time, and the proof that makes a late writer harmless.

A lease says who plays a role until when, by the store's clock. Time alone protects nothing: a holder may be paused
after it looked. So every change of hands raises the lease's *epoch*, and every write made in the role calls
:meth:`Leases.fence` in the same transaction, which refuses it once somebody else took over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.kernel.errors import Conflict
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from sqlalchemy import Row

    from muster.store.engine import Store, Unit

_HELD = Query(
    "SELECT name, holder, epoch, expires_at FROM leases WHERE name = :name AND holder IS NOT NULL AND expires_at > :now"
)


@dataclass(frozen=True)
class Lease:
    """A role held.

    Attributes:
        holder: who; unique to one life of a process (name and something of its start), or a restarted member would
            take its dead predecessor's writes for its own.
        epoch: how often the role has changed hands, from 1.
        expires_at: in store time.
    """

    name: str
    holder: str
    epoch: int
    expires_at: float


class Leases:
    """The leases in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take the role when it is free, expired or already the holder's; None when somebody else has it.

        The epoch grows by one except when the holder has the role and it has not expired: that only extends it.
        """
        from sqlalchemy import case, or_

        from muster.store.core import insert_of
        from muster.store.tables import leases, store_now

        mine = (leases.c.holder == holder) & (leases.c.expires_at > store_now())
        free = or_(leases.c.holder.is_(None), leases.c.holder == holder, leases.c.expires_at <= store_now())
        statement = (
            insert_of(self._store.dialect)(leases)
            .values(name=name, holder=holder, epoch=1, expires_at=store_now() + ttl_s)
            .on_conflict_do_update(
                index_elements=[leases.c.name],
                set_={
                    "holder": holder,
                    "epoch": case((mine, leases.c.epoch), else_=leases.c.epoch + 1),
                    "expires_at": store_now() + ttl_s,
                },
                where=free,
            )
            .returning(*_columns())
        )
        async with self._store.write("lease") as uow:
            row = (await uow.connection.execute(statement)).one_or_none()
        return _lease(row) if row is not None else None

    async def renew(self, lease: Lease, ttl_s: float) -> Lease:
        """Extend the lease from now.

        Raises:
            Conflict: it expired, was released or is somebody else's; stop playing the role, then acquire anew.
        """
        from sqlalchemy import update

        from muster.store.tables import leases, store_now

        statement = (
            update(leases)
            .where(*_still(lease), leases.c.expires_at > store_now())
            .values(expires_at=store_now() + ttl_s)
            .returning(*_columns())
        )
        async with self._store.write("lease-renewed") as uow:
            row = (await uow.connection.execute(statement)).one_or_none()
        if row is None:
            raise Conflict(f"Renewing lease {lease.name} of {lease.holder}, epoch {lease.epoch}, failed: it is lost")
        return _lease(row)

    async def release(self, lease: Lease) -> None:
        """Make the role free at once; a lease already lost is left to its new holder."""
        from sqlalchemy import update

        from muster.store.tables import leases, store_now

        statement = update(leases).where(*_still(lease)).values(holder=None, expires_at=store_now())
        async with self._store.write("lease-resigned") as uow:
            await uow.connection.execute(statement)

    async def held(self, name: str) -> Lease | None:
        """Return the lease in force, None when nobody holds one."""
        async with self._store.read() as uow:
            return await held_in(uow, name)

    async def fence(self, uow: Unit, lease: Lease) -> None:
        """Make the rest of a write unit part of the role: nobody takes the role over before the unit ends.

        A lease that expired and that nobody took is still good: the epoch protects, not the time.

        Raises:
            Conflict: somebody else took over, or the lease was released; leave the unit and stop playing the role.
        """
        from sqlalchemy import select

        from muster.store.tables import leases

        if not uow.writing:
            raise TypeError("a fence stands in a write unit: a read unit holds no lock")
        # SQLite has no FOR UPDATE and needs none, its write transaction locks everything; SQLAlchemy drops it there.
        statement = select(leases.c.holder, leases.c.epoch).where(leases.c.name == lease.name).with_for_update()
        row = (await uow.connection.execute(statement)).one_or_none()
        if row is None or row.holder != lease.holder or row.epoch != lease.epoch:
            now = f"{row.holder or 'nobody'} at epoch {row.epoch}" if row is not None else "nobody"
            raise Conflict(
                f"A write of {lease.holder} as {lease.name}, epoch {lease.epoch}, was refused: the role has {now}"
            )


async def held_in(uow: Reading, name: str) -> Lease | None:
    """As :meth:`Leases.held`, within a unit that reads more."""
    found = await uow.rows(_HELD, name=name, now=await uow.now())
    return Lease(**found[0]) if found else None


def _columns() -> tuple[Any, ...]:
    from muster.store.tables import leases

    return (leases.c.name, leases.c.holder, leases.c.epoch, leases.c.expires_at)


def _still(lease: Lease) -> tuple[Any, ...]:
    from muster.store.tables import leases

    return (leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.epoch == lease.epoch)


def _lease(row: Row[Any, Any, Any, Any]) -> Lease:
    return Lease(row.name, row.holder, row.epoch, row.expires_at)
