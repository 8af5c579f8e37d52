"""The end in time that every unit has, whatever the database does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# psycopg answers a cancellation by asking the server to stop the statement, for up to ten seconds when that server is
# hung. A second cancellation this long after the first makes it drop the connection instead.
_CANCELLING_LIMIT_S = 0.5


class OutOfTime(TimeoutError):
    """The deadline passed; a timeout of somebody else's stays what it is."""


@asynccontextmanager
async def ended_within(limit_s: float) -> AsyncIterator[None]:
    """End the block when its time is over.

    Raises:
        OutOfTime: it was.
    """
    try:
        async with asyncio.timeout(limit_s + _CANCELLING_LIMIT_S) as last, asyncio.timeout(limit_s) as deadline:
            yield
    except TimeoutError as e:
        if not (deadline.expired() or last.expired()):
            raise
        raise OutOfTime(f"no answer within {limit_s:g} s") from e
