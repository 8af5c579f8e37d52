"""Structured logs, configured once for every room and library.

:func:`configure` sends every record to standard error, as JSON lines or for people, and into the rings that Foreman reads
(:mod:`muster.kernel.rings`); what libraries log takes the same way, in measure (:class:`Seldom`). Secrets hide themselves
(:mod:`muster.kernel.secrets`); query strings are never logged, because registration puts tokens there (the Ruby proxy logs
them: docs/facts/smart-proxy-protocol.md §2.3).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TextIO

from muster.kernel import failpoints
from muster.kernel.rings import RANKS, LogRecord, LogRings

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


# UNKNOWN is a level that Foreman's page of logs knows and a Ruby proxy may report. Nothing is logged at it here, so it is no
# threshold: it would keep nothing at all.
Threshold = Literal["DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
_FROM_METHOD = {"warning": "WARN", "exception": "ERROR", "critical": "FATAL"}

_MESSAGE_LIMIT = 8192
# Of a traceback the end is kept, which says what it was: its sentence may repeat what a client sent.
_BACKTRACE_LIMIT = 16_384

# The id of the request now served, set by the edge; every record made meanwhile carries it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class _IntoRings:
    def __init__(self, rings: LogRings, min_rank: int) -> None:
        self._rings = rings
        self._min_rank = min_rank

    def __call__(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        level = _FROM_METHOD.get(method, method.upper())
        if RANKS.get(level, 5) < self._min_rank:
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

    rank = RANKS[level]
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
    if armed := failpoints.armed():
        said = f"This process may end or fail on purpose ({failpoints.VARIABLE}); it is for tests alone"
        structlog.get_logger(room="kernel").warning(said, at=armed)


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
