"""Wiring only: a store that is a file, and a second look at its rows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as one:
        yield one


@pytest.fixture
async def dead_store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store whose directory does not exist, so that it never answers."""
    before = set(threading.enumerate())
    async with opened(Secret(f"sqlite:///{tmp_path}/missing/muster.db")) as one:
        yield one
    # The driver's thread of a connection that failed outlives it by a moment, and complains when the loop is gone first.
    for thread in set(threading.enumerate()) - before:
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 5)
