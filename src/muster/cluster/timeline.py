"""The members' log records, shared through the store, so that ``/logs`` of any member tells one story.

Sharing is bounded: a member writes at most ``_PER_BEAT`` records a beat, warnings and worse before the rest, and keeps in
the store what its rings keep: its newest ``buffer`` records, and its newest warnings and errors. Under a load that makes
more, records stay on the member that made them, those that matter least first. A record in their place says how many, and
every reader of the time line is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, delete, insert, or_, select
from sqlalchemy.sql import ColumnElement, Select

from muster.kernel.errors import Unavailable
from muster.kernel.rings import LEVELS, TAIL_RANK, WARN_RANK, LogRecord, LogRings
from muster.store.engine import Store, Unit
from muster.store.tables import log_records

# 500 calls a second. SQLite writes them in 14 ms and PostgreSQL in 40; making the rows costs 2 % of a core.
_PER_BEAT = 1000
_PER_STATEMENT = 250
_TRIM_EVERY = 30
_USUAL = LEVELS[:WARN_RANK]
_WARNINGS = LEVELS[WARN_RANK:TAIL_RANK]
_ERRORS = LEVELS[TAIL_RANK:]
_UNSHARED = "{} older log records of this member were too many to be shared; only its own /logs may still have them"
_UNSHARED_COUNT = re.compile(re.escape(_UNSHARED).replace(r"\{\}", "([0-9]{1,15})") + r"\Z")


def _row(record: LogRecord, member: str) -> dict[str, object]:
    """A record as the store takes it: PostgreSQL refuses NUL, and neither driver can encode half a surrogate pair."""
    row = {**record._asdict(), "member": member}
    for column in ("message", "backtrace", "request_id"):
        if row[column] is not None:
            row[column] = row[column].encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return row


@dataclass
class Timeline:
    """This member's window on everybody's records.

    Attributes:
        buffer: records each member's main ring keeps.
    """

    store: Store
    member: str
    buffer: int
    _beats: int = field(default=0)
    _since_trim: int = field(default=0)
    _confessed: int = field(default=0)

    async def share(self, rings: LogRings) -> None:
        """Write records made since the last beat.

        Raises:
            Unavailable: the store did not answer; the records wait for the next beat.
        """
        waiting = rings.take_unshared(rings.size)
        self._beats += 1
        if not waiting and self._beats % _TRIM_EVERY:
            return
        by_weight = sorted(waiting, key=_is_usual)
        left = by_weight[_PER_BEAT:]
        dropped = rings.dropped_unshared
        rows = self._rows(by_weight[:_PER_BEAT], dropped - self._confessed)
        # By number, too: what a busy member leaves for long would crowd the others out of the answer.
        trimming = self._beats % _TRIM_EVERY == 0 or self._since_trim + len(rows) >= self.buffer
        try:
            async with self.store.write("log") as uow:
                # In parts: between them the loop serves calls.
                for start in range(0, len(rows), _PER_STATEMENT):
                    await uow.connection.execute(insert(log_records), rows[start : start + _PER_STATEMENT])
                if trimming:
                    await self._trim(uow, rings.tail_size)
        except Unavailable:
            left = by_weight
            raise
        else:
            self._confessed = dropped
            self._since_trim = 0 if trimming else self._since_trim + len(rows)
        finally:
            _put_back(rings, left)

    def _rows(self, records: Sequence[LogRecord], dropped: int) -> list[dict[str, object]]:
        rows = [_row(r, self.member) for r in sorted(records, key=lambda r: r.timestamp)]
        if dropped:
            now = datetime.now(UTC).timestamp()
            rows.append(_row(LogRecord(now, "WARN", _UNSHARED.format(dropped)), self.member))
        return rows

    async def _trim(self, uow: Unit, errors: int) -> None:
        mine = log_records.c.member == self.member
        newest = select(log_records.c.id).order_by(log_records.c.id.desc()).limit(1)
        # Where there are fewer, these are NULL, and nothing is at or before that.
        last = newest.where(mine).offset(self.buffer).scalar_subquery()
        kept = [log_records.c.level.in_(levels) for levels in (_WARNINGS, _ERRORS)]
        lasts = [newest.where(mine, those).offset(errors).scalar_subquery() for those in kept]
        superfluous = or_(
            log_records.c.level.in_(_USUAL),
            *(and_(those, log_records.c.id <= oldest) for those, oldest in zip(kept, lasts, strict=True)),
        )
        await uow.connection.execute(delete(log_records).where(and_(mine, log_records.c.id <= last, superfluous)))

    async def records(self, since: float) -> tuple[Sequence[LogRecord], str]:
        """Return the other members' newest records from the timestamp on, ascending, and in words what is not among them.

        The words are empty when nothing is missing.

        Raises:
            Unavailable: the store did not answer.
        """
        most = self.buffer * 4
        usual = log_records.c.level.in_(_USUAL)
        async with self.store.read() as uow:
            # Apart, so that much talk pushes no warning out.
            parts = [(await uow.connection.execute(self._others(since, w, most + 1))).all() for w in (usual, ~usual)]
        found = [LogRecord._make(row) for part in parts for row in part[:most]]
        found.sort(key=lambda r: r.timestamp)
        missing = _unshared(found)
        if any(len(part) > most for part in parts):
            missing.append(f"of the other members' records only the newest {most} are shown")
        return found, "; ".join(missing)

    def _others(self, since: float, weight: ColumnElement[bool], limit: int) -> Select[Any]:
        columns = [log_records.c[f] for f in LogRecord._fields]
        theirs = and_(log_records.c.member != self.member, log_records.c.timestamp >= since, weight)
        return select(*columns).where(theirs).order_by(log_records.c.timestamp.desc()).limit(limit)


def _is_usual(record: LogRecord) -> bool:
    return record.rank < WARN_RANK


def _put_back(rings: LogRings, records: Iterable[LogRecord]) -> None:
    """Let records wait for the next beat with those made meanwhile; when they are too many, the weightiest stay."""
    waiting = [*records, *rings.take_unshared(rings.size)]
    # What stands first is dropped first.
    rings.put_back_unshared(sorted(waiting, key=lambda r: (not _is_usual(r), r.timestamp)))


def _unshared(records: Iterable[LogRecord]) -> list[str]:
    """Return what members say of records they did not share, a clause for each member."""
    counts: dict[str, int] = {}
    for record in records:
        found = _UNSHARED_COUNT.match(record.message) if record.level == "WARN" and record.member else None
        if found and record.member:
            counts[record.member] = counts.get(record.member, 0) + int(found[1])
    return [
        f"{n} records of {member} were not shared; its own /logs may have them" for member, n in sorted(counts.items())
    ]
