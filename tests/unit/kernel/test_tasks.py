"""Tasks are over when they were ended, however they take it."""

from __future__ import annotations

import asyncio

import pytest

from muster.kernel.tasks import OneEach, Uninterrupted, each, ended

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


async def test_of_many_who_want_the_same_one_does_it_and_each_time_anew() -> None:
    begun: list[str] = []
    gate = asyncio.Event()

    async def do(key: str) -> None:
        begun.append(key)
        await gate.wait()

    it = OneEach[str]()
    tasks = [it.begin(key, do, name="test") for key in ("a", "a", "b")]
    assert tasks[0] is tasks[1] is it.get("a")
    assert (len(it), it.get("c")) == (2, None)
    gate.set()
    await asyncio.gather(*tasks)
    assert (begun, len(it)) == (["a", "b"], 0)
    await it.begin("a", do, name="test")
    assert begun == ["a", "b", "a"]


async def test_what_failed_is_heard_and_what_is_ended_is_not() -> None:
    heard: list[tuple[str, str]] = []

    async def do(key: str) -> None:
        if key == "broken":
            raise ValueError(key)
        await asyncio.Event().wait()

    it = OneEach[str](lambda key, error: heard.append((key, str(error))))
    with pytest.raises(ValueError, match="broken"):
        await it.begin("broken", do, name="test")
    waiting = it.begin("waiting", do, name="test")
    await it.close()
    assert (waiting.cancelled(), len(it), heard) == (True, 0, [("broken", "broken")])


async def test_each_is_done_once_and_no_more_at_once_than_said() -> None:
    running, most, done = 0, 0, []

    async def do(one: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(one)

    await each(iter(range(20)), do, at_once=3)
    assert (sorted(done), most) == ([*range(20)], 3)
    await each([], do, at_once=3)


async def test_the_first_that_fails_ends_the_others_and_is_what_is_raised() -> None:
    begun: list[int] = []

    async def do(one: int) -> None:
        begun.append(one)
        if one == 2:
            raise ValueError(one)
        await asyncio.Event().wait()

    with pytest.raises(ValueError, match="2"):
        await each(range(20), do, at_once=3)
    assert begun == [0, 1, 2]


async def test_work_comes_to_its_end_when_whoever_asked_goes_away_and_can_be_waited_for() -> None:
    work, may, ends = Uninterrupted(), asyncio.Event(), []

    async def long() -> int:
        await may.wait()
        ends.append("long")
        return 7

    asking = asyncio.create_task(work.done(long(), name="long"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert (asking.cancelled(), ends) == (True, [])
    may.set()
    await work.finish()
    assert ends == ["long"]
    assert await work.done(long(), name="long") == 7
    await work.finish()
