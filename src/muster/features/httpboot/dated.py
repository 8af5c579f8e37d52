"""When a file was written, as HTTP says it, and what a client's conditions on that make of an answer.

To be asked where no condition on an entity tag is, which would be the better one. Source: RFC 9110 §5.6.7, §8.8.2, §13.2.2.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from muster.edge.request import Request

_LIMIT_CHARACTERS = 64


def written(seconds: float) -> bytes:
    """Return seconds since the epoch as a date of HTTP."""
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return format_datetime(moment, usegmt=True).encode()


def is_unmodified(request: Request, seconds: float) -> bool:
    """Whether the client has what was written then: it names that moment, or a later one, and no tag."""
    if b"if-none-match" in request.headers:
        return False
    since = _moment(request.header(b"if-modified-since"))
    return since is not None and int(seconds) <= since


def is_refused(request: Request, seconds: float) -> bool:
    """Whether the client wants nothing that was written later than the moment it names, and names no tag."""
    if b"if-match" in request.headers:
        return False
    since = _moment(request.header(b"if-unmodified-since"))
    return since is not None and int(seconds) > since


def _moment(field: str | None) -> float | None:
    if field is None or len(field) > _LIMIT_CHARACTERS:
        return None
    try:
        found = parsedate_to_datetime(field)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        # A condition that is none counts as absent.
        return None
