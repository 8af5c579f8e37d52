"""Tasks that somebody holds, and ends, or waits for all of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
One = TypeVar("One")


class Uninterrupted:
    """Work that comes to its end also when whoever asked for it goes away.

    Concurrency: one loop.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def done(self, work: Coroutine[Any, Any, One], *, name: str) -> One:
        """Do it and return what comes of it, or raise that."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Return when all that is under way has come to its end."""
        if self._tasks:
            await asyncio.wait(self._tasks)


class OneEach(Generic[Key]):
    """Work that is done once at a time, whoever wants it: who comes while it is done waits for the same task.

    Args:
        failed: hears what a task raised, save that it was cancelled; whoever waits hears it, too, but perhaps nobody does.

    Concurrency: one loop. Who waits shields the task, so that going away takes it from nobody else.
    """

    def __init__(self, failed: Callable[[Key, BaseException], None] = lambda _key, _error: None) -> None:
        self._failed = failed
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Return how much is under way."""
        return len(self._tasks)

    def get(self, key: Key) -> asyncio.Task[None] | None:
        """Return the task that is under way; None: there is none."""
        return self._tasks.get(key)

    def begin(self, key: Key, do: Callable[[Key], Awaitable[None]], *, name: str) -> asyncio.Task[None]:
        """Return the task that is under way, or one that does it now."""
        task = self._tasks.get(key)
        if task is None:

            async def done_once() -> None:
                await do(key)

            task = self._tasks[key] = asyncio.create_task(done_once(), name=name)
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    async def finish(self, within_s: float) -> None:
        """Return when all that is under way has come to its end, or the time is over."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=within_s)

    async def close(self) -> None:
        """End what is under way."""
        await ended(self._tasks.values())

    def _ended(self, key: Key, done: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not done.cancelled() and (error := done.exception()) is not None:
            self._failed(key, error)


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and return when all are over; what became of each is nobody's matter any more."""
    running = list(tasks)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def each(wanted: Iterable[One], do: Callable[[One], Awaitable[object]], *, at_once: int) -> None:
    """Do something for each, so many at once, begun in their order; the first that fails ends all, and is raised."""
    coming = iter(wanted)

    async def work() -> None:
        for one in coming:
            await do(one)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except BaseExceptionGroup as failed:
        # boundary: whoever called knows no groups; the first is what ended it
        raise failed.exceptions[0] from None
