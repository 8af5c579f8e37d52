"""A member with a fault of the tests' own: what it acknowledges of one durable step is never committed.

``MUSTER_TESTS_FORGET=revoke python -m tests.servers.forgetful serve ...`` runs it. The product has no such switch: a judge
that finds nothing wrong with this member's histories is no judge.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from muster.cli import main
from muster.store.engine import Store, Unit
from muster.store.writing import Writing

VARIABLE = "MUSTER_TESTS_FORGET"
T = TypeVar("T")


class _Forgotten(Exception):
    """Undoes a unit behind the back of who wrote it."""


def forget(step: str) -> None:
    """Have every unit of the step end well and be undone."""
    true = Store.write

    @asynccontextmanager
    async def written(self: Store, named: str = "", *, limit_s: float | None = None) -> AsyncIterator[Unit]:
        with contextlib.suppress(_Forgotten):
            async with true(self, named, limit_s=limit_s) as uow:
                yield uow
                if named == step:
                    raise _Forgotten

    at_once = Store.carry_out

    async def carried_out(
        self: Store, named: str, work: Callable[[Writing], Coroutine[Any, Any, T]], *, limit_s: float | None = None
    ) -> T:
        if named != step:
            return await at_once(self, named, work, limit_s=limit_s)
        found: list[T] = []

        async def undone(uow: Writing) -> None:
            found.append(await work(uow))
            raise _Forgotten

        with contextlib.suppress(_Forgotten):
            await at_once(self, named, undone, limit_s=limit_s)
        return found[0]

    Store.write = written  # type: ignore[method-assign, assignment]
    Store.carry_out = carried_out  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    forget(os.environ[VARIABLE])
    main()
