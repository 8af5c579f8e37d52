"""What a client's conditions make of an answer: the body, a part of it, or a word instead.

Source: RFC 9110 §13, §14. Whatever has no digest here has no entity tag: none that a client has is its.
"""

from __future__ import annotations

from muster.content import headers, validators
from muster.content.validators import Digest
from muster.edge import ranges
from muster.edge.replies import SERVER_HEADER, Header, Reply, reply
from muster.edge.request import Request


def asks_range(request: Request, digest: Digest | None) -> bool:
    """Whether a range counts: it is said once and, under ``If-Range``, of these very bytes."""
    if sum(n == b"range" for n, _ in request.sent_headers) != 1:
        return False
    condition = headers.field(request.sent_headers, b"if-range")
    return condition is None or (digest is not None and condition.strip() == digest.tag)


def part(request: Request, digest: Digest | None, size: int) -> tuple[int, int] | Reply | None:
    """Return first and last position of the part that is asked for, or 416 where nothing is there; None: the whole."""
    wanted = headers.field(request.sent_headers, b"range") if asks_range(request, digest) else None
    try:
        return ranges.asked(wanted, size)
    except ranges.Unsatisfiable:
        return reply(416, b"", b"text/plain", (b"content-range", b"bytes */%d" % size))


def instead(request: Request, digest: Digest | None, passed: list[Header]) -> Reply | None:
    """Return what is said instead of the body, whole or in part, by the client's conditions; None: nothing.

    ``passed`` are the headers of the answer there would have been. Source: RFC 9110 §13.2.2, their order.
    """
    tag = digest.tag if digest is not None else None
    wanted = headers.field(request.sent_headers, b"if-match")
    if wanted is not None and not validators.matches(wanted, tag, weakly=False):
        return reply(412, b"", b"text/plain")
    had = headers.field(request.sent_headers, b"if-none-match")
    if tag is not None and had is not None and validators.matches(had, tag, weakly=True):
        return _unmodified(passed)
    return None


def answered(body: bytes, request: Request, digest: Digest, passed: list[Header]) -> Reply:
    """Return the answer that has a small body, whole, with its digest for a validator.

    ``passed`` are its other headers.
    """
    passed = [*passed, (b"etag", digest.tag.encode())]
    if (found := instead(request, digest, passed)) is not None:
        return found
    passed += [(b"content-length", b"%d" % len(body)), SERVER_HEADER]
    return Reply(200, b"" if request.method == "HEAD" else body, passed)


def _unmodified(passed: list[Header]) -> Reply:
    """Return 304 with what RFC 9110 §15.4.5 wants of the answer there would have been."""
    kept = (b"etag", b"cache-control", b"expires", b"vary", b"content-location")
    return Reply(304, b"", [*(h for h in passed if h[0] in kept), SERVER_HEADER])
