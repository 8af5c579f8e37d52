"""The rings of log records behind ``/logs``: the newest, and the errors and warnings that fell out of them."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "UNKNOWN")
RANKS = {name: rank for rank, name in enumerate(LEVELS)}
TAIL_RANK = RANKS["ERROR"]
WARN_RANK = RANKS["WARN"]


class LogRecord(NamedTuple):
    """One record as ``/logs`` shows it (docs/facts/smart-proxy-protocol.md §6).

    Attributes:
        timestamp: seconds since the epoch, UTC, by the clock of the member that made it.
        request_id: at most 8 characters, as Foreman expects.
        member: who made it; set when records of several members meet.
    """

    timestamp: float
    level: str
    message: str
    backtrace: str | None = None
    request_id: str | None = None
    member: str | None = None

    @property
    def rank(self) -> int:
        return RANKS.get(self.level, len(LEVELS) - 1)

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"timestamp": self.timestamp, "level": self.level, "message": self.message}
        if self.backtrace:
            shown["backtrace"] = self.backtrace
        if self.request_id:
            shown["request_id"] = self.request_id
        if self.member:
            shown["member"] = self.member
        return shown


# A record whose words nobody has asked for yet: timestamp, level, template, its values, request id.
_Unworded = tuple[float, str, str, tuple[object, ...], str | None]


@dataclass
class LogRings:
    """The newest records, and the errors and warnings that fell out of them.

    ``main`` keeps the newest ``size`` records; an ERROR or worse that falls off moves to ``tail``, which keeps the newest
    ``tail_size``. Warnings move to a ring of their own of that size: neither much talk pushes them out, nor do they push
    errors out. Thread-safe.

    Source: docs/facts/smart-proxy-protocol.md §6, which knows no ring for warnings.
    """

    size: int = 2000
    tail_size: int = 1000
    member: str | None = None
    failed_modules: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._main: deque[LogRecord | _Unworded] = deque()
        self._tail: deque[LogRecord | _Unworded] = deque(maxlen=self.tail_size)
        self._warned: deque[LogRecord | _Unworded] = deque(maxlen=self.tail_size)
        self._unshared: deque[LogRecord | _Unworded] = deque()
        # Warnings and worse that fell out of it unshared: between two beats there may be more records than fit.
        self._unshared_tail: deque[LogRecord | _Unworded] = deque(maxlen=self.tail_size)
        self._lock = threading.Lock()
        self.dropped_unshared = 0

    def add(self, record: LogRecord) -> None:
        self._keep(record)

    def add_unworded(
        self, timestamp: float, level: str, template: str, values: tuple[object, ...], request_id: str | None
    ) -> None:
        """Add a record whose message is ``template % values``, made when somebody reads it.

        For records made on every call: under load most of them fall out unread. The values must never change.
        """
        # A bare tuple: it costs a tenth of what a LogRecord does, and the garbage collector stops looking at it.
        self._keep((timestamp, level, template, values, request_id))

    def _keep(self, record: LogRecord | _Unworded) -> None:
        with self._lock:
            self._main.append(record)
            if len(self._main) > self.size:
                fallen = self._main.popleft()
                rank = RANKS.get(fallen[1], TAIL_RANK)
                if rank >= WARN_RANK:
                    (self._tail if rank >= TAIL_RANK else self._warned).append(fallen)
            self._unshared.append(record)
            if len(self._unshared) > self.size:
                self._drop_unshared()

    def _drop_unshared(self) -> None:
        fallen = self._unshared.popleft()
        if RANKS.get(fallen[1], TAIL_RANK) < WARN_RANK or len(self._unshared_tail) == self.tail_size:
            self.dropped_unshared += 1
        if RANKS.get(fallen[1], TAIL_RANK) >= WARN_RANK:
            self._unshared_tail.append(fallen)

    def records(self, since: float = 0.0) -> list[LogRecord]:
        """Return what fell out of main, then main, each ascending, from the timestamp on."""
        with self._lock:
            fallen = [r for ring in (self._tail, self._warned) for r in ring if r[0] >= since]
            main = [r for r in self._main if r[0] >= since]
        kept = [*sorted(fallen, key=lambda r: r[0]), *main]
        return [_worded(r) for r in kept]

    def take_unshared(self, limit: int) -> list[LogRecord]:
        """Remove and return up to ``limit`` of the oldest records that were not yet shared with the other members."""
        with self._lock:
            rings = (self._unshared_tail, self._unshared)
            kept = (ring.popleft() for ring in rings for _ in range(len(ring)))
            taken = list(itertools.islice(kept, limit))
        return [_worded(r) for r in taken]

    def put_back_unshared(self, records: list[LogRecord]) -> None:
        """Return records whose sharing failed; those that no longer fit are dropped, oldest first, warnings last."""
        with self._lock:
            self._unshared.extendleft(reversed(records))
            while len(self._unshared) > self.size:
                self._drop_unshared()


def _worded(record: LogRecord | _Unworded) -> LogRecord:
    if isinstance(record, LogRecord):
        return record
    timestamp, level, template, values, rid = record
    return LogRecord(timestamp, level, template % values, None, rid)


def merged(*timelines: Iterable[LogRecord]) -> Iterator[LogRecord]:
    """Yield the records of several members as one time line, ascending."""
    yield from sorted((r for t in timelines for r in t), key=lambda r: r.timestamp)
