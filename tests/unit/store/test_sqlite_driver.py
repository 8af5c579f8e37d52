"""No thread of the driver outlives what asked for it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from muster.kernel.secrets import Secret
from muster.store.place import Place
from muster.store.sqlite_driver import connected

pytestmark = pytest.mark.anyio


async def test_a_file_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        await connected(str(tmp_path / "missing" / "store.db"))
    # Threads of the loop's own pool stay.
    left = {t.name for t in set(threading.enumerate()) - before}
    assert all(name.startswith("asyncio") for name in left), left


async def test_a_connection_works_and_ends(tmp_path: Path) -> None:
    connection = await connected(str(tmp_path / "store.db"))
    thread = connection._thread
    async with await connection.execute("SELECT 1") as cursor:
        assert await cursor.fetchone() == (1,)
    await connection.close()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


def test_the_store_makes_its_connections_so(tmp_path: Path) -> None:
    place = Place.parsed(Secret(f"sqlite:///{tmp_path}/store.db"))
    made_by = place.connect_arguments(connect_timeout_s=1, statement_timeout_s=1)["async_creator_fn"]
    assert made_by is connected
