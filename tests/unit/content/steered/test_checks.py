"""The doctor names each Pulp that does not follow, and no other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.app.settings import loaded
from muster.content.steered.checks import checks
from muster.content.steered.ledger import Steerings
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import member

pytestmark = pytest.mark.anyio


async def test_a_pulp_that_does_not_follow_is_named(tmp_path: Path) -> None:
    steered = {
        "pulps": ["pulp@a", "pulp@b"],
        "repositories": {"tools": {"kind": "yum", "url": "http://origin.test", "path": "tools"}},
    }
    made, _ = member.together(tmp_path, [lambda _: {"steered": steered}, lambda _: {}], "https", "http")
    async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as store:

        @contextlib.asynccontextmanager
        async def there() -> AsyncIterator[Store]:
            yield store

        (check,) = checks(loaded(made[0].cluster_file), there)
        steerings = Steerings(store)
        await steerings.follows("tools", "pulp@a", 3, "")
        # Of what the file names no more nobody is told.
        await steerings.follows("tools", "pulp@z", 1, "it is away")
        await steerings.follows("gone", "pulp@b", 1, "it is away")
        assert list(await check.run()) == []
        await steerings.follows("tools", "pulp@b", 2, "it is away")
        (found,) = await check.run()
        assert (found.code, found.place, found.severity) == ("CONTENT-STEERED", "pulp@b", "warning")
        assert "it is away" in found.sentence
        assert checks(loaded(made[1].cluster_file), there) == []
