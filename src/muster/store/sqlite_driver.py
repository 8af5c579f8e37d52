"""SQLite's driver, with an end to every thread it began.

aiosqlite runs each connection in a thread of its own. When a file cannot be opened it asks that thread to stop, and does
not wait; the thread answers later, to an event loop that may be closed by then, and ends in a traceback of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

# The thread has nothing left to do but to end; that takes no time unless the machine stands still.
_ENDED_WITHIN_S = 5.0


async def connected(*arguments: Any, **named: Any) -> Any:
    """Return a connection, as SQLAlchemy's dialect would make it; when there is none, its thread has ended."""
    # Later: who only reads and asks once has no use for the driver.
    from muster.store.sqlite_connection import Connection

    connection = Connection(*arguments, **named)
    thread = connection._thread
    thread.daemon = True
    try:
        return await connection
    except BaseException:
        await asyncio.to_thread(thread.join, _ENDED_WITHIN_S)
        raise
