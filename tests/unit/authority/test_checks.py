from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.authority.checks import checks
from muster.cluster.file import Authority
from muster.kernel.clock import FakeClock
from muster.store.engine import Store
from tests.servers import puppetca

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("days", "before"), [(10, "2"), (1825, "30")])
async def test_a_list_is_found_late_when_half_of_the_time_to_renew_it_is_over(
    store: Store, home: Path, days: int, before: str
) -> None:
    settings = Authority(crl_ttl_days=days)
    await puppetca.begin(store, home, settings=settings)
    clock = FakeClock(datetime.now(UTC))

    @contextlib.asynccontextmanager
    async def same() -> AsyncIterator[Store]:
        yield store

    (check,) = checks(settings, home, same, clock)

    async def found() -> list[str]:
        return [f.cause for f in await check.run() if f.code == "CA-LIST-ENDS"]

    assert await found() == []
    late_s = float(before) * 86_400 / 2
    clock.advance(timedelta(days=days).total_seconds() - late_s - 600)
    assert await found() == []
    clock.advance(1200)
    (cause,) = await found()
    assert cause.startswith(f"Members renew it {before} days before its end")
