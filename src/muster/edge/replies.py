"""Replies, and the one table that turns an error into one (docs/facts/smart-proxy-protocol.md §2.2).

A success is an empty body or JSON, never text. An error is one line of text whose content type follows the ``Accept``
header: Foreman never reads it, people and tests do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from muster.kernel.errors import MusterError
from muster.version import VERSION

Header = tuple[bytes, bytes]

JSON = b"application/json"
HTML = b"text/html;charset=utf-8"
TEXT = b"text/plain"

NOT_FOUND_TEXT = "Requested url was not found"

# No version of the Smart Proxy: that one is a setting, /version tells it, and nobody reads it here
# (docs/facts/smart-proxy-protocol.md §23).
SERVER_HEADER: Header = (b"server", f"foreman-proxy muster/{VERSION}".encode())
RETRY_AFTER: Header = (b"retry-after", b"5")
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
# json.dumps with any option of its own builds a new encoder for each call, which costs more than the encoding.
_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_HTML_HEADERS: tuple[Header, ...] = ((b"x-xss-protection", b"1; mode=block"), (b"x-frame-options", b"SAMEORIGIN"))


class Reply(NamedTuple):
    """What goes back: status, body, headers (``content-length`` included)."""

    status: int
    body: bytes
    headers: list[Header]


@dataclass(frozen=True)
class Streamed:
    """A reply whose body comes piece by piece, each sent before the next is asked for.

    When the pieces end in an error the connection is cut, so that no client takes half a body for a whole one.

    Attributes:
        headers: those of the reply, with ``content-length`` where the length is known.
        pieces: closed when the reply has ended, however it did.
        end: called then, too: pieces of which none was asked for hear nothing of their end.
    """

    status: int
    headers: list[Header]
    pieces: AsyncGenerator[bytes, None]
    end: Callable[[], None] = lambda: None


def reply(status: int, body: bytes, content_type: bytes, *extra: Header) -> Reply:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), _NOSNIFF, SERVER_HEADER, *extra]
    if status == 503:
        # Clients that can wait do so only when they are told how long.
        headers.append(RETRY_AFTER)
    if content_type is HTML:
        headers.extend(_HTML_HEADERS)
    return Reply(status, body, headers)


def json_reply(content: Any, status: int = 200) -> Reply:
    """Return JSON without spaces and without a trailing newline, as the Ruby proxy writes it."""
    return reply(status, _encoded(content).encode("utf-8", "replace"), JSON)


def empty_reply(content_type: bytes = HTML) -> Reply:
    """Return success with nothing to say; a feature whose answers are all JSON labels this one so, too."""
    return reply(200, b"", content_type)


def text_reply(status: int, text: str, *, accept: str | None) -> Reply:
    """Return an error text, labelled JSON when the client admits JSON: Foreman's clients see what Ruby sends them."""
    body = text.encode("utf-8", "replace")
    return reply(status, body, JSON if admits_json(accept) else HTML)


def admits_json(accept: str | None) -> bool:
    # A header without any media type counts as none.
    return not accept or "/" not in accept or "json" in accept or "*/*" in accept or "application/*" in accept


def error_reply(error: MusterError, *, accept: str | None) -> Reply:
    return text_reply(error.status, str(error), accept=accept)


def not_found() -> Reply:
    """Return the answer to an unknown route; always labelled JSON, whatever the client accepts."""
    return reply(404, NOT_FOUND_TEXT.encode(), JSON, (b"x-cascade", b"pass"))
