from __future__ import annotations

import asyncio

import pytest

from muster.kernel.errors import NotFound, Unavailable
from muster.policy.deadline import Deadline
from tests.unit.policy.shelf import ADD, LOOKUP


async def test_a_call_that_takes_too_long_is_cancelled_and_unavailable() -> None:
    cancelled = []

    async def hung() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(Unavailable, match=r"Shelf\.add did not finish within 0\.01 s"):
        await Deadline(0.01)(ADD, hung)
    assert cancelled == [True]


async def test_a_call_that_ends_in_time_returns_what_it_returned() -> None:
    async def quick() -> int:
        return 5

    assert await Deadline(60)(LOOKUP, quick) == 5


async def test_a_timeout_from_inside_is_not_disguised_as_ours() -> None:
    inside = TimeoutError("the provider's own")

    async def fails() -> None:
        raise inside

    with pytest.raises(TimeoutError) as raised:
        await Deadline(60)(LOOKUP, fails)
    assert raised.value is inside


async def test_other_errors_pass() -> None:
    async def fails() -> None:
        raise NotFound("none")

    with pytest.raises(NotFound):
        await Deadline(60)(LOOKUP, fails)


async def test_a_caller_who_gives_up_is_not_told_of_a_deadline() -> None:
    started = asyncio.Event()

    async def hung() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(Deadline(60)(LOOKUP, hung))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
