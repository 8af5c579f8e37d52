"""What was found last, on both stores."""

from __future__ import annotations

import asyncio

import pytest

from muster.observed.recorded import record, records_in
from muster.store.engine import Store

pytestmark = pytest.mark.anyio


async def test_what_was_found_last_is_kept_with_who_found_it_and_its_age(store: Store) -> None:
    async with store.read() as uow:
        assert await records_in(uow) == {}
    for n in (1, 2):
        await record(store, "doctor", {"healthy": n == 2}, by="admin")
    await record(store, "parity", {"alike": True}, by="member proxy01")
    async with store.read() as uow:
        found = await records_in(uow)
    assert {kind: (r.found, r.by) for kind, r in found.items()} == {
        "doctor": ({"healthy": True}, "admin"),
        "parity": ({"alike": True}, "member proxy01"),
    }
    assert all(r.age_s >= 0 for r in found.values())


async def test_of_two_who_found_something_at_once_one_is_kept_and_neither_fails(store: Store) -> None:
    await asyncio.gather(*(record(store, "doctor", {"n": n}, by=str(n)) for n in range(4)))
    async with store.read() as uow:
        assert (await records_in(uow))["doctor"].found["n"] in range(4)
