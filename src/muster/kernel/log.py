"""Structured logs, and the two rings that Foreman reads.

One configuration (:func:`configure`) sends every record to standard error, as JSON lines or for people, and into
:class:`LogRings`; what libraries log takes the same way, in measure (:class:`Seldom`). Secrets hide themselves
(:mod:`muster.kernel.secrets`); query strings are never logged, because registration puts tokens there
(the Ruby proxy logs them: docs/facts/smart-proxy-protocol.md §2.3).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

if TYPE_CHECKING:
    import asyncio


@contextlib.contextmanager
def _as_if_absent(name: str) -> Iterator[None]:
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


# What was configured last, until the first record needs it: most commands log nothing, and need not load what logs.
_configured: Callable[[], None] | None = None


def _structlog() -> Any:
    """Return the library, configured."""
    global _configured
    # It imports rich where it is installed, for tracebacks in colours. We print none, and rich would cost each member four
    # megabytes.
    with _as_if_absent("rich"):
        import structlog
    if _configured is not None:
        configured, _configured = _configured, None
        configured()
    return structlog


LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "UNKNOWN")
# UNKNOWN is a level that Foreman's page of logs knows and a Ruby proxy may report. Nothing is logged at it here, so it is no
# threshold: it would keep nothing at all.
Threshold = Literal["DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
_RANK = {name: rank for rank, name in enumerate(LEVELS)}
_FROM_METHOD = {"warning": "WARN", "exception": "ERROR", "critical": "FATAL"}
TAIL_RANK = _RANK["ERROR"]
WARN_RANK = _RANK["WARN"]

_MESSAGE_LIMIT = 8192
# Of a traceback the end is kept, which says what it was: its sentence may repeat what a client sent.
_BACKTRACE_LIMIT = 16_384

# The id of the request now served, set by the edge; every record made meanwhile carries it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


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
        return _RANK.get(self.level, len(LEVELS) - 1)

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
                rank = _RANK.get(fallen[1], TAIL_RANK)
                if rank >= WARN_RANK:
                    (self._tail if rank >= TAIL_RANK else self._warned).append(fallen)
            self._unshared.append(record)
            if len(self._unshared) > self.size:
                self._drop_unshared()

    def _drop_unshared(self) -> None:
        fallen = self._unshared.popleft()
        if _RANK.get(fallen[1], TAIL_RANK) < WARN_RANK or len(self._unshared_tail) == self.tail_size:
            self.dropped_unshared += 1
        if _RANK.get(fallen[1], TAIL_RANK) >= WARN_RANK:
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


class _IntoRings:
    def __init__(self, rings: LogRings, min_rank: int) -> None:
        self._rings = rings
        self._min_rank = min_rank

    def __call__(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        level = _FROM_METHOD.get(method, method.upper())
        if _RANK.get(level, 5) < self._min_rank:
            return event
        details = " ".join(
            f"{k}={v}" for k, v in event.items() if k not in ("event", "level", "timestamp", "exception", "request_id")
        )
        rid = event.get("request_id")
        self._rings.add(
            LogRecord(
                timestamp=datetime.now(UTC).timestamp(),
                level=level,
                message=_clean(f"{event.get('event', '')} {details}".strip()),
                backtrace=_end_of(event.get("exception")),
                request_id=rid[:8] if rid else None,
            )
        )
        return event


def _clean(message: str) -> str:
    return message.encode("utf-8", "replace").decode("utf-8")[:_MESSAGE_LIMIT]


def _end_of(backtrace: str | None) -> str | None:
    return backtrace and backtrace[-_BACKTRACE_LIMIT:].encode("utf-8", "replace").decode("utf-8")


def _with_request_id(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    rid = request_id.get()
    if rid is not None:
        event["request_id"] = rid
    return event


def configure(
    *,
    rings: LogRings | None = None,
    level: Threshold = "INFO",
    form: Literal["json", "text"] = "text",
    stream: TextIO | None = None,
    member: str | None = None,
) -> None:
    """Send records of ``level`` and above to the stream and the rings; may be called again to change either."""
    global _configured
    _follow_libraries()
    _configured = partial(_configure, _Unbreakable(stream or sys.stderr), rings, level, form, member)
    if "structlog" in sys.modules:
        _structlog()


def _configure(
    sink: _Unbreakable, rings: LogRings | None, level: Threshold, form: Literal["json", "text"], member: str | None
) -> None:
    import structlog

    rank = _RANK[level]
    method = {"WARN": "warning", "FATAL": "critical"}.get(level, level.lower())
    processors: list[Any] = [
        structlog.stdlib.add_log_level,
        _with_request_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if rings is not None:
        processors.append(_IntoRings(rings, rank))
    if form == "json":
        if member:
            processors.append(_named(member))
        processors.append(structlog.processors.JSONRenderer())
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=sink.isatty(), pad_event_to=0))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(method),
        logger_factory=structlog.WriteLoggerFactory(file=sink),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )


class Seldom:
    """Lets a few events of a kind through in a while and counts the others, for what somebody outside can cause at will.

    Attributes:
        most: how many of a kind within ``within_s``.
        kinds: how many kinds are remembered; the longest unseen is forgotten first.
    """

    def __init__(
        self, most: int = 10, within_s: float = 60.0, kinds: int = 1024, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._within_s, self._kinds, self._now = most, within_s, kinds, now
        # Since when, how many, and how many of them were held back.
        self._seen: dict[Hashable, tuple[float, int, int]] = {}

    def held_back(self, kind: Hashable) -> int | None:
        """Count one event. None: it is one too many. Otherwise how many of its kind were, since the last let through."""
        now = self._now()
        since, count, held = self._seen.pop(kind, (now, 0, 0))
        if now - since > self._within_s:
            since, count = now, 0
        too_many = count >= self._most
        self._seen[kind] = (since, count + 1, held + 1 if too_many else 0)
        while len(self._seen) > self._kinds:
            del self._seen[next(iter(self._seen))]
        return None if too_many else held


def and_more(held: int) -> str:
    """Return what is said behind a record's sentence of those that were held back before it."""
    return f" ({held} more like it)" if held else ""


class _OfLibraries(logging.Handler):
    """Brings what libraries log into our form, our rings and our measure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seldom = Seldom()

    def emit(self, record: logging.LogRecord) -> None:
        # By template: what a client sends may stand in the words.
        held = self._seldom.held_back((record.name, record.levelno, str(record.msg)[:100]))
        if held is None:
            return
        level = {"CRITICAL": "critical", "ERROR": "error"}.get(record.levelname, "warning")
        try:
            said = _clean(record.getMessage()) + and_more(held)
        except Exception as e:  # noqa: BLE001 - boundary: a library's slip in its words must not stop what it does
            said = f"{_clean(str(record.msg))}, of which the values cannot be said ({type(e).__name__}){and_more(held)}"
        getattr(logger(record.name), level)(said, exc_info=record.exc_info or None)


_libraries = _OfLibraries()


def _follow_libraries() -> None:
    root = logging.getLogger()
    if _libraries not in root.handlers:
        root.addHandler(_libraries)


def follow_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Log what goes wrong in a loop's callbacks and forgotten tasks, in measure."""
    seldom = Seldom()

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = str(context.get("message") or "An exception in the event loop")
        held = seldom.held_back((message, type(error)))
        if held is not None:
            logger("loop").error(f"{message}{and_more(held)}", exc_info=error)

    loop.set_exception_handler(failed)


class _Unbreakable:
    """A stream whose reader may go away: what cannot be logged must not stop what is done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _named(member: str) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["member"] = member
        return event

    return add


# Until a process says otherwise: a command's standard output belongs to its answer.
configure(level="ERROR")


def logger(room: str) -> Any:
    """Return the room's logger: ``.info("Sentence", key=value)``."""
    return _Logger(room)


class _Logger:
    """Loads what logs at the first record."""

    def __init__(self, room: str) -> None:
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(_structlog().get_logger(room=self._room), name)
