"""A body that breaks off goes on where somebody has the rest of the same bytes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from muster.content.backend import Answer, BadGateway
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable

_log = log.logger("content")
_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})/(?P<total>[0-9]{1,18})\Z")
_TIMES = 3


class Span(NamedTuple):
    """Which bytes of how many an answer holds, both ends included."""

    first: int
    last: int
    total: int


def resumed(got: Answer, rest: Callable[[int, int], Awaitable[Answer]]) -> Answer:
    """Return an answer whose body, when it breaks off, goes on with what ``rest`` gives from one position to another.

    Both must be of one digest: bytes of different files would make one that nobody ever had. Without a length, or with two
    that differ, it is returned as it is. One that gives more than it said is cut.
    """
    span = span_of(got)
    if span is None:
        return got
    now = [got]

    async def pieces() -> AsyncGenerator[bytes, None]:
        at = span.first
        for time in range(_TIMES + 1):
            of = now[0].of
            try:
                async with contextlib.aclosing(now[0].pieces) as coming:
                    async for piece in coming:
                        at += len(piece)
                        if at > span.last + 1:
                            raise BadGateway(f"{of} gives more than it said")
                        yield piece
                broke = Unavailable(f"{of} ended its answer before it was whole")
            except Unavailable as e:
                broke = e
            if at > span.last:
                return
            if time == _TIMES:
                raise broke
            _log.info("A broken answer is gone on with", why=str(broke), at=at, of=span.total)
            now[0].end()
            now[0] = await _following(rest, span._replace(first=at), broke)

    return replace(got, pieces=pieces(), end=lambda: now[0].end())


async def _following(rest: Callable[[int, int], Awaitable[Answer]], wanted: Span, broke: Unavailable) -> Answer:
    """Return what follows.

    Raises:
        Unavailable: nobody has exactly that.
    """
    try:
        found = await rest(wanted.first, wanted.last)
    except MusterError as e:
        raise Unavailable(f"{broke}, and nobody goes on with it: {e}") from e
    if found.status != 206 or span_of(found) != wanted:
        found.end()
        raise Unavailable(f"{broke}, and {found.of} does not have the rest of it") from broke
    return found


def span_of(got: Answer) -> Span | None:
    """Return which bytes an answer says that it holds; None: it does not say it, or says two things."""
    said = {name.lower(): value for name, value in got.headers}
    length = int(said["content-length"]) if said.get("content-length", "").isdecimal() else None
    if got.status == 200:
        return Span(0, length - 1, length) if length else None
    found = _RANGE.match(said.get("content-range", "")) if got.status == 206 else None
    if found is None:
        return None
    span = Span(int(found["first"]), int(found["last"]), int(found["total"]))
    is_one = span.first <= span.last < span.total and length in (None, span.last - span.first + 1)
    return span if is_one else None
