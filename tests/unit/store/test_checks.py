from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from muster.kernel.clock import SystemClock
from muster.kernel.errors import Unavailable
from muster.store.checks import checks
from muster.store.engine import Store

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("connection refused", "Start the database"),
        (
            'connection failed: connection to server at "db", port 5432 failed: FATAL:  password authentication failed for '
            'user "muster"',
            "store.password_file",
        ),
    ],
)
async def test_a_database_that_answers_and_refuses_is_not_told_to_be_started(said: str, remedy: str) -> None:
    @contextlib.asynccontextmanager
    async def refused() -> AsyncIterator[Store]:
        raise Unavailable(f"The store (postgresql muster@db/muster) did not carry out a read: {said}")
        yield

    (check,) = (c for c in checks(refused, directories=(), clock=SystemClock()) if c.name == "store")
    (finding,) = await check.run()
    assert (finding.code, remedy in finding.remedy) == ("STORE-DOWN", True)
    assert ("Start the database" in finding.remedy) == ("FATAL" not in said)
