from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.features.openscap import oscap
from muster.features.openscap.checks import checks
from muster.features.openscap.settings import OpenscapSettings
from muster.kernel.errors import Unavailable
from muster.store.reading import Query

pytestmark = pytest.mark.anyio
NOW = 1_000_000.0


class Counts:
    """A store that knows how many reports there are."""

    def __init__(self, **rows: tuple[int, int, float]) -> None:
        self._rows = rows

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Counts]:
        yield self

    async def now(self) -> float:
        return NOW

    async def rows(self, _query: Query, **_values: Any) -> list[dict[str, Any]]:
        return [
            {"state": s, "reports": n, "bytes": size, "oldest_at": NOW - age, "hosts": 1}
            for s, (n, size, age) in self._rows.items()
        ]


async def codes(store: Any, **more: Any) -> list[str]:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        if store is None:
            raise Unavailable("away")
        yield store

    asked = checks(OpenscapSettings(spool_limit_bytes=10 << 20), opened, **{"is_member": False, **more})
    return [f.code for one in asked for f in await one.run()]


async def test_what_somebody_has_to_look_at_is_named() -> None:
    assert await codes(Counts()) == []
    assert await codes(Counts(waiting=(3, 100, 60.0), sent=(9, 1 << 30, 9e6))) == []
    assert await codes(Counts(waiting=(3, 100, 3700.0))) == ["OPENSCAP-STUCK"]
    assert await codes(Counts(refused=(1, 9 << 20, 5.0))) == ["OPENSCAP-REFUSED", "OPENSCAP-NEARLY-FULL"]
    assert await codes(None) == []


async def test_only_members_need_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oscap, "lack", lambda: "oscap is not installed")
    assert await codes(Counts()) == []
    assert await codes(Counts(), is_member=True) == ["OPENSCAP-NO-OSCAP"]
