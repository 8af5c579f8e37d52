"""What was decided of steered repositories is one row for each time, and named by its content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.content.steered.ledger import Steerings, chosen
from muster.content.steered.stages import Flip, Stage, Turned
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.secrets import Secret
from muster.store.engine import opened

pytestmark = pytest.mark.anyio

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
async def steerings(tmp_path: Path) -> AsyncIterator[Steerings]:
    async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        yield Steerings(store)


async def flip(
    steerings: Steerings, job: int, digest: str, *, of: str = "", repository: str = "tools"
) -> tuple[Flip, bool]:
    turned = {"pulp@a": Turned("v", f"p{job if of else digest}")}
    stage = Stage(repository, job, of=of)
    return await steerings.flip(stage, turned, digest=digest, packages=3, by="me", lease=None)


async def test_each_decision_is_one_generation_and_the_newest_counts(steerings: Steerings) -> None:
    first, is_new = await flip(steerings, 1, ONE)
    assert (first.generation, first.by, first.packages, is_new) == (1, "me", 3, True)
    # Who goes on after a crash says what came of the job as if there had been none.
    assert await flip(steerings, 1, ONE) == (first, True)
    assert await flip(steerings, 2, ONE) == (first, False)
    second, _ = await flip(steerings, 3, TWO)
    await flip(steerings, 4, ONE, repository="other")
    assert {n: f.generation for n, f in (await steerings.newest()).items()} == {"tools": 2, "other": 1}
    assert await steerings.flips("tools") == [second, first]


async def test_what_was_published_again_stays_until_the_origin_has_something_new(steerings: Steerings) -> None:
    await flip(steerings, 1, ONE)
    await flip(steerings, 2, TWO)
    back, _ = await flip(steerings, 3, ONE, of=ONE)
    assert (back.generation, back.of) == (3, True)
    assert await flip(steerings, 4, TWO) == (back, False)
    assert (await flip(steerings, 5, "3" * 64))[0].generation == 4


async def test_so_many_are_remembered(steerings: Steerings) -> None:
    for n in range(1, 26):
        await flip(steerings, n, f"{n:064x}")
    assert [f.generation for f in await steerings.flips("tools")] == [*range(25, 5, -1)]


async def test_who_follows_is_known_with_why_not(steerings: Steerings) -> None:
    await steerings.follows("tools", "pulp@a", 1, "x" * 900)
    await steerings.follows("tools", "pulp@b", 1, "")
    await steerings.follows("tools", "pulp@a", 2, "")
    assert [(f.pulp, f.generation, f.why) for f in await steerings.followers()] == [
        ("pulp@a", 2, ""),
        ("pulp@b", 1, ""),
    ]


async def test_a_publication_is_named_by_the_beginning_of_its_digest(steerings: Steerings) -> None:
    await flip(steerings, 1, ONE)
    await flip(steerings, 2, TWO)
    await flip(steerings, 3, ONE, of=ONE)
    known = await steerings.flips("tools")
    assert chosen(known, "tools", "1" * 8).generation == 3
    with pytest.raises(NotFound, match="has no publication"):
        chosen(known, "tools", "3" * 8)
    for wrong in ("1" * 7, "1" * 65, "ABCDEF01", ""):
        with pytest.raises(Rejected, match="names no publication"):
            chosen(known, "tools", wrong)
