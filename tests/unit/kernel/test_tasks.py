"""Tasks are over when they were ended, however they take it."""

from __future__ import annotations

import asyncio

import pytest

from muster.kernel.tasks import ended

pytestmark = pytest.mark.anyio


async def test_all_are_over_and_nothing_is_raised() -> None:
    closed: list[str] = []

    async def slow(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def broken() -> None:
        raise ValueError

    held = {n: asyncio.create_task(slow(n)) for n in ("a", "b")}
    other = asyncio.create_task(broken())
    await asyncio.sleep(0)
    await ended([*held.values(), other])
    assert sorted(closed) == ["a", "b"]
    assert all(task.done() for task in (*held.values(), other))
    await ended([])
