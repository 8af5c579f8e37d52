"""What is written down of steered Pulps, on both stores: whole or not at all, once, and in the role alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from muster.content.steered.ledger import Steerings
from muster.content.steered.stages import At, Stage, Turned
from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Unavailable
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

pytestmark = pytest.mark.anyio

ONE, TWO = "1" * 64, "2" * 64
STAGE = Stage("tools", 7, pulps={"pulp@a": At("staged", "r", version="v", publication="p", digest=ONE)})
TURNED = {"pulp@a": Turned("v", "p")}

Does = Callable[[Steerings, "Lease | None"], Awaitable[object]]


async def puts(it: Steerings, lease: Lease | None) -> None:
    await it.put(STAGE, lease=lease)


async def flips(it: Steerings, lease: Lease | None) -> None:
    await it.flip(STAGE, TURNED, digest=ONE, packages=3, by="me", lease=lease)


async def follows(it: Steerings, _: Lease | None) -> None:
    await it.follows("tools", "pulp@a", 1, "")


async def told(it: Steerings) -> tuple[object, ...]:
    return (await it.stage("tools"), await it.flips("tools"), await it.followers())


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


@pytest.mark.usefixtures("disarmed")
@pytest.mark.parametrize(
    ("step", "does"), [("content-staged", puts), ("content-flipped", flips), ("content-followed", follows)]
)
async def test_a_step_that_fails_before_its_commit_is_none_and_after_it_is_done(
    store: Store, step: str, does: Does
) -> None:
    it = Steerings(store)
    nothing = await told(it)
    assert nothing == (None, [], [])
    failpoints.arm({failpoints.VARIABLE: f"{step}.before-commit=error"})
    with pytest.raises(Unavailable):
        await does(it, None)
    assert await told(it) == nothing
    failpoints.arm({failpoints.VARIABLE: f"{step}.after-commit=error"})
    with pytest.raises(Unavailable):
        await does(it, None)
    done = await told(it)
    assert done != nothing
    failpoints.arm({})
    await does(it, None)
    again = await told(it)
    assert (again[:2], len(again[2])) == (done[:2], len(done[2]))  # type: ignore[arg-type]


@pytest.mark.parametrize("does", [puts, flips])
async def test_who_has_lost_the_role_writes_nothing(store: Store, does: Does) -> None:
    it, leases = Steerings(store), Leases(store)
    lease = await leases.acquire("content mirror", "one", 20.0)
    assert lease is not None
    await leases.release(lease)
    other = await leases.acquire("content mirror", "other", 20.0)
    with pytest.raises(Conflict):
        await does(it, lease)
    assert await told(it) == (None, [], [])
    await does(it, other)
    assert await told(it) != (None, [], [])


async def test_generations_are_counted_for_each_repository_and_the_newest_count(store: Store) -> None:
    it = Steerings(store)
    for job, (repository, digest) in enumerate([("tools", ONE), ("other", ONE), ("tools", TWO)], 1):
        stage = Stage(repository, job)
        await it.flip(stage, {"pulp@a": Turned("v", digest)}, digest=digest, packages=3, by="me", lease=None)
    newest = await it.newest()
    assert {name: (one.generation, one.digest) for name, one in newest.items()} == {
        "other": (1, ONE),
        "tools": (2, TWO),
    }
    assert newest["tools"].at >= (await it.flips("tools"))[1].at > 0
