"""The members' log records, shared through the store, so that ``/logs`` of any member tells one story.

Sharing is best effort and bounded: a member writes at most ``_PER_BEAT`` records a beat and keeps its newest ``buffer`` in
the store. Under a load that makes more, the oldest INFO records stay on the member that made them, and it says how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, insert, select

from muster.kernel.errors import Unavailable
from muster.kernel.log import LogRecord, LogRings
from muster.store.engine import Store
from muster.store.tables import log_records

_PER_BEAT = 250
_TRIM_EVERY = 30


def _row(record: LogRecord, member: str) -> dict[str, object]:
    """A record as the store takes it: PostgreSQL refuses NUL, and neither driver can encode half a surrogate pair."""
    row = {**record._asdict(), "member": member}
    for column in ("message", "backtrace", "request_id"):
        if row[column] is not None:
            row[column] = row[column].encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return row


@dataclass
class Timeline:
    """This member's window on everybody's records."""

    store: Store
    member: str
    buffer: int
    _beats: int = field(default=0)

    async def share(self, rings: LogRings) -> None:
        """Write the records made since the last beat.

        Raises:
            Unavailable: the store did not answer; the records wait for the next beat.
        """
        records = rings.take_unshared(_PER_BEAT)
        self._beats += 1
        if not records and self._beats % _TRIM_EVERY:
            return
        try:
            async with self.store.write() as uow:
                if records:
                    rows = [_row(r, self.member) for r in records]
                    await uow.connection.execute(insert(log_records), rows)
                if self._beats % _TRIM_EVERY == 0:
                    oldest_kept = (
                        select(log_records.c.id)
                        .where(log_records.c.member == self.member)
                        .order_by(log_records.c.id.desc())
                        .offset(self.buffer)
                        .limit(1)
                        .scalar_subquery()
                    )
                    mine = log_records.c.member == self.member
                    await uow.connection.execute(delete(log_records).where(mine, log_records.c.id <= oldest_kept))
        except Unavailable:
            rings.put_back_unshared(records)
            raise

    async def records(self, since: float) -> Sequence[LogRecord]:
        """Return the other members' newest records from the timestamp on, ascending.

        Raises:
            Unavailable: the store did not answer.
        """
        columns = [log_records.c[f] for f in LogRecord._fields]
        query = (
            select(*columns)
            .where(log_records.c.member != self.member, log_records.c.timestamp >= since)
            .order_by(log_records.c.timestamp.desc())
            .limit(self.buffer * 4)
        )
        async with self.store.read() as uow:
            rows = (await uow.connection.execute(query)).all()
        return [LogRecord(**dict(zip(LogRecord._fields, row, strict=True))) for row in reversed(rows)]
