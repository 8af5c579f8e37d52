"""What members heard of Foreman's version on both stores: the latest question counts, whoever writes when."""

from __future__ import annotations

import asyncio

import pytest

from muster.cluster.foreman import heard_in, keep
from muster.store.engine import Store

pytestmark = pytest.mark.anyio


async def test_the_latest_question_counts_and_not_the_latest_write(store: Store) -> None:
    await keep(store, "3.19.0", age_s=60, by="p1")
    new = await keep(store, "5.0.0", age_s=5, by="p2")
    assert await keep(store, "3.19.0", age_s=30, by="p1") == new
    async with store.read() as uow:
        assert await heard_in(uow) == new


async def test_of_members_that_heard_at_once_the_latest_counts_for_all(store: Store) -> None:
    await asyncio.gather(*(keep(store, f"3.{n}.0", age_s=n * 60, by=f"p{n}") for n in range(4)))
    async with store.read() as uow:
        found = await heard_in(uow)
    assert found is not None
    assert (found.version, found.by) == ("3.0.0", "p0")
