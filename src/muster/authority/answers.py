"""How a puppetserver reads headers and bodies, and how its answers look, to the byte (docs/facts/puppet-ca.md §1)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from muster.edge.replies import RETRY_AFTER, SERVER_HEADER, Header, Reply
from muster.edge.request import Request

JSON = b"application/json;charset=utf-8"
TEXT = b"text/plain"
TEXT_UTF8 = b"text/plain;charset=utf-8"
HTML = b"text/html;charset=utf-8"
CHARSET_ONLY = b";charset=UTF-8"
_NO_ACCEPTABLE = "No acceptable resource available."
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4})"
    r" (\d{2}):(\d{2}):(\d{2}) (GMT|[+-]\d{4})\Z"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer that is decided early."""

    reply: Reply


def accepted(request: Request) -> bytes | None:
    """Return the content type the client gets its status in; None when it does not care.

    Raises:
        Refusal: it takes none we have.
    """
    accept = request.accept
    if not accept or not accept.strip():
        return None
    given = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    for kind in ("text/pson", "pson"):
        if kind in given:
            return f"{kind};charset=UTF-8".encode()
    if given & {"application/json", "application/*"}:
        return JSON
    if "*/*" in given:
        return b"*/*;charset=UTF-8"
    raise Refusal(reply(406, _NO_ACCEPTABLE, TEXT_UTF8))


def json_value(body: bytes) -> Any:
    """Return the first JSON value of a body, None when there is none; what follows it is passed over."""
    try:
        return json.JSONDecoder().raw_decode(body.decode("utf-8").lstrip())[0]
    except (ValueError, RecursionError):
        return None


def edn(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def date(text: str | None) -> float | None:
    """Return a moment in the one form puppetserver understands (RFC 1123), None for anything else."""
    found = _DATE.match(text) if text else None
    if found is None:
        return None
    day, month, year, hour, minute, second, zone = found.groups()
    offset = 0 if zone == "GMT" else (int(zone[1:3]) * 60 + int(zone[3:])) * (1 if zone[0] == "+" else -1)
    try:
        number = _MONTHS.index(month) + 1
        moment = datetime(int(year), number, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        return (moment - timedelta(minutes=offset)).timestamp()
    except (ValueError, OverflowError):
        return None


def forbidden(request: Request, path: str) -> Reply:
    if request.method == "HEAD":
        return bare(403, "")
    method = request.method.lower()
    return bare(403, f"Forbidden request: {path} (method :{method}). Please see the server logs for details.")


def no_route() -> Reply:
    return reply(404, "Not Found", HTML)


def nothing(content_type: bytes) -> Reply:
    return Reply(204, b"", [(b"content-type", content_type), SERVER_HEADER])


def reply(status: int, text: str, content_type: bytes, *extra: Header) -> Reply:
    body = text.encode("utf-8", "replace")
    length = (b"content-length", b"%d" % len(body))
    later = (RETRY_AFTER,) if status == 503 else ()
    return Reply(status, body, [(b"content-type", content_type), length, SERVER_HEADER, *later, *extra])


def bare(status: int, text: str) -> Reply:
    """Return an answer without a content type, as puppetserver gives some."""
    body = text.encode("utf-8", "replace")
    return Reply(status, body, [(b"content-length", b"%d" % len(body)), SERVER_HEADER])
