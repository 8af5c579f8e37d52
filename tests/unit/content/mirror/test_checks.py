"""What the doctor says of mirrored repositories."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from muster.app.settings import loaded
from muster.content.mirror.checks import checks
from muster.content.mirror.ledger import Ledger
from muster.kernel.errors import Unavailable
from muster.kernel.findings import Finding
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.unit.cli.content.mirroring import MIRROR, mirroring

pytestmark = pytest.mark.anyio


async def found(
    tmp_path: Path, ends: Sequence[tuple[str, str, str]], *, text: str = MIRROR, is_away: bool = False
) -> list[Finding]:
    """Return what is found after jobs: kind, repository and state of each."""
    cluster = loaded(mirroring(tmp_path, text))
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        ledger = Ledger(store)
        for kind, name, state in ends:
            job = await ledger.ask(kind, name, "", "me")  # type: ignore[arg-type]
            await ledger.take("p1", "p1", [kind])  # type: ignore[list-item]
            await ledger.end(job.id, "p1", state, "it is away")  # type: ignore[arg-type]

        @contextlib.asynccontextmanager
        async def at() -> AsyncIterator[Store]:
            if is_away:
                raise Unavailable("the store does not answer")
            yield store

        return [f for check in checks(cluster, at) for f in await check.run()]


async def test_the_last_sync_of_each_repository_counts(tmp_path: Path) -> None:
    ends = [
        ("sync", "rocky", "done"), ("sync", "debian", "failed"), ("sync", "gone", "failed"), ("sync", "debian", "done"),
        ("publish", "debian", "failed"), ("sync", "rocky", "failed"), ("sync", "rocky", "cancelled"),
    ]  # fmt: skip
    (one,) = await found(tmp_path, ends)
    assert (one.code, one.place, one.severity) == ("CONTENT-MIRROR", "rocky", "warning")
    assert one.sentence == "The last sync of rocky failed: it is away"


async def test_nothing_is_said_where_all_went_well_or_nobody_knows(tmp_path: Path) -> None:
    failed = [("sync", "rocky", "failed")]
    assert await found(tmp_path, [("sync", "rocky", "done")]) == []
    assert await found(tmp_path, failed, is_away=True) == []
    assert await found(tmp_path, failed, text="content: {}\n") == []


async def test_of_many_the_first_are_named(tmp_path: Path) -> None:
    names = [f"r{n:02}" for n in range(23)]
    named = "".join(f"      {n}: {{kind: yum, url: 'http://o.test/'}}\n" for n in names)
    said = await found(tmp_path, [("sync", n, "failed") for n in names], text=MIRROR + named)
    assert len(said) == 21
    assert said[-1].sentence == "The last syncs of 3 more repositories failed, of r20 among them"
