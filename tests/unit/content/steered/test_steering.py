"""Pulps in memory are led: all at once, again after a crash, and later where one was away."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.content.steered import steering as module
from muster.content.steered.stages import At, Stage, Turned
from muster.kernel.errors import Conflict, NotFound, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from muster.store.leases import Lease, Leases
from tests.unit.content.steered.world import NAMES, World

pytestmark = pytest.mark.anyio

AWAY = Unavailable("it is away")


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_PAUSE_S", 0.001)
    async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        yield World(store)


async def test_all_are_turned_to_what_all_have(world: World) -> None:
    outcome = await world.sync()
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]
    assert (outcome.is_well, outcome.result["pulps"], outcome.result["left"]) == (True, [*NAMES], {})
    (flip,) = await world.steerings.flips("rocky9")
    assert flip.pulps == {n: Turned("1", f"{n} 0 of 1") for n in NAMES}
    again = await world.sync()
    assert (again.result["is_new"], len(await world.steerings.flips("rocky9"))) == (False, 1)
    world.origin.revision = 2
    assert (await world.sync()).result["generation"] == 2
    assert world.shown() == ["pulp@a 1 of 2", "pulp@b 1 of 2"]


async def test_who_goes_on_looks_at_the_task_that_was_begun(world: World) -> None:
    job = await world.job()
    at = At("syncing", "repository", "task 0")
    for one in world.pulps.values():
        one.exists = True
    await world.steerings.put(Stage("rocky9", job.id, pulps={"pulp@a": at, "pulp@b": at}), lease=None)
    world.restart()
    await world.does(job)
    assert [one.tasks for one in world.pulps.values()] == [[], []]
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]


async def test_a_store_that_is_away_for_a_moment_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put, tries = world.steerings.put, itertools.count()

    async def sometimes(stage: Stage, *, lease: Lease | None) -> None:
        if next(tries) % 3:
            raise Unavailable("the store does not answer")
        await put(stage, lease=lease)

    monkeypatch.setattr(world.steerings, "put", sometimes)
    await world.sync()
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]
    assert [len(one.tasks) for one in world.pulps.values()] == [1, 1]
    monkeypatch.setattr(module, "_UNANSWERED_S", -1.0)
    world.origin.revision = 2
    with pytest.raises(Unavailable):
        await world.sync()
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]


async def test_what_another_job_left_is_begun_anew(world: World) -> None:
    await world.steerings.put(Stage("rocky9", 99, pulps={n: At("staged", "r", version="7") for n in NAMES}), lease=None)
    await world.sync()
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]


async def test_what_was_decided_before_a_crash_is_decided_once(world: World) -> None:
    job = await world.job()
    for one in world.pulps.values():
        one.raises["turned"] = AWAY
    first = await world.steering.synchronise(job, _progress, None)
    assert first.result["behind"].keys() == {*NAMES}
    for one in world.pulps.values():
        one.raises.clear()
    world.restart()
    await world.does(job)
    assert len(await world.steerings.flips("rocky9")) == 1
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]


async def _progress(_done: int, _of: int, _sentence: str) -> None: ...


async def test_one_that_is_away_when_all_are_turned_follows_later(world: World) -> None:
    world.pulps["pulp@b"].raises["turn"] = AWAY
    outcome = await world.sync()
    assert outcome.result["behind"] == {"pulp@b": "it is away"}
    assert "pulp@b is turned to it when it can be: it is away" in outcome.sentence
    assert [(f.pulp, f.generation, f.why) for f in await world.steerings.followers()] == [
        ("pulp@a", 1, ""), ("pulp@b", 0, "it is away"),
    ]  # fmt: skip
    await world.steering.beat()
    assert world.shown() == ["pulp@a 0 of 1", ""]
    world.pulps["pulp@b"].raises.clear()
    world.restart()
    await world.steering.beat()
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]
    assert [f.why for f in await world.steerings.followers()] == ["", ""]
    assert await world.ledger.jobs(is_open=True) == []


async def test_one_that_was_gone_on_without_is_synchronised_once_it_answers(world: World) -> None:
    world.wait_s = 0.01
    world.restart()
    world.pulps["pulp@b"].raises["all"] = AWAY
    outcome = await world.sync()
    assert (outcome.result["left"], outcome.result["pulps"]) == ({"pulp@b": "it is away"}, ["pulp@a"])
    await world.steering.beat()
    assert await world.ledger.jobs(is_open=True) == []
    world.pulps["pulp@b"].raises.clear()
    await world.steering.beat()
    await world.steering.beat()
    (job,) = await world.ledger.jobs(is_open=True)
    assert (job.kind, job.repository, job.asked_by) == ("sync", "rocky9", "the schedule, for pulp@b is behind")
    await world.does(job)
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]
    await world.steering.beat()
    assert await world.ledger.jobs(is_open=True) == []


async def test_one_that_has_lost_what_it_was_turned_to_is_synchronised(world: World) -> None:
    await world.sync()
    one = world.pulps["pulp@a"]
    one.leads, one.lost = "", {"pulp@a 0 of 1"}
    await world.steering.beat()
    (job,) = await world.ledger.jobs(is_open=True)
    assert job.kind == "sync"
    assert [f.why for f in await world.steerings.followers()] == ["there is no such publication", ""]


async def test_one_that_the_register_does_not_know_is_gone_on_without(world: World) -> None:
    world.absent["pulp@b"] = "the services register does not say where it is"
    outcome = await world.sync()
    assert outcome.result["left"] == {"pulp@b": "the services register does not say where it is"}
    assert world.shown() == ["pulp@a 0 of 1", ""]


async def test_without_any_pulp_nothing_is_changed(world: World) -> None:
    await world.sync()
    world.origin.revision = 2
    for one in world.pulps.values():
        one.raises["looked"] = Rejected("no space left on device")
    with pytest.raises(Rejected, match=r"no Pulp has it.*pulp@a: no space left on device"):
        await world.sync()
    assert world.shown() == ["pulp@a 0 of 1", "pulp@b 0 of 1"]
    assert len(await world.steerings.flips("rocky9")) == 1


async def test_an_origin_that_never_stands_still_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(world.pulps["pulp@a"]).looked

    async def looked(pulp, at, number):  # type: ignore[no-untyped-def] # as the method it stands for
        world.origin.revision += 1
        return await real(pulp, at, number)

    monkeypatch.setattr(type(world.pulps["pulp@a"]), "looked", looked)
    with pytest.raises(Rejected, match="changes faster than Pulps fetch it"):
        await world.sync()
    assert world.shown() == ["", ""]


async def test_older_content_is_published_again_by_all_and_stays_until_the_origin_moves(world: World) -> None:
    first = (await world.sync()).result["publication"]
    world.origin.revision = 2
    await world.sync()
    outcome = await world.does(await world.job("publish", publication=first))
    assert outcome.result["publication"] == first
    assert world.shown() == ["pulp@a 2 of 1 again", "pulp@b 2 of 1 again"]
    kept = await world.sync()
    assert "which somebody had published again" in kept.sentence
    assert world.shown() == ["pulp@a 2 of 1 again", "pulp@b 2 of 1 again"]
    world.origin.revision = 3
    await world.sync()
    assert world.shown() == ["pulp@a 3 of 3", "pulp@b 3 of 3"]


async def test_one_that_is_behind_what_was_published_again_gets_that(world: World) -> None:
    first = (await world.sync()).result["publication"]
    world.origin.revision, world.wait_s = 2, 0.01
    await world.sync()
    world.restart()
    world.pulps["pulp@b"].raises["all"] = AWAY
    await world.does(await world.job("publish", publication=first))
    world.pulps["pulp@b"].raises.clear()
    await world.steering.beat()
    (job,) = await world.ledger.jobs(is_open=True)
    assert (job.kind, job.publication) == ("publish", first)
    await world.does(job)
    assert [one.rpartition(" of ")[2] for one in world.shown()] == ["1 again", "1 again"]


async def test_what_the_origin_has_signed_is_not_published_again(world: World) -> None:
    first = (await world.sync()).result["publication"]
    world.origin.revision = 2
    await world.sync()
    for one in world.pulps.values():
        one.is_signed = True
    with pytest.raises(Rejected, match="the origin has signed it"):
        await world.does(await world.job("publish", publication=first))
    assert world.shown() == ["pulp@a 1 of 2", "pulp@b 1 of 2"]


async def test_nothing_like_it_is_no_publication(world: World) -> None:
    with pytest.raises(NotFound, match="has no publication"):
        await world.does(await world.job("publish", publication="ab" * 32))


async def test_who_has_lost_the_role_decides_nothing(world: World) -> None:
    leases = Leases(world.store)
    lease = await leases.acquire("content mirror", "one", 20.0)
    assert lease is not None
    await leases.release(lease)
    assert await leases.acquire("content mirror", "other", 20.0) is not None
    with pytest.raises(Conflict):
        await world.does(await world.job(), lease)
    assert await world.steerings.flips("rocky9") == []


async def test_jobs_of_other_repositories_are_done_as_before(world: World) -> None:
    did = []

    async def mirrored(job, _progress, _lease):  # type: ignore[no-untyped-def] # a Run
        did.append(job.repository)

    runs = world.steering.runs_beside({"sync": mirrored})
    job = await world.ledger.ask("sync", "debian", "", "me")
    await runs["sync"](job, _progress, None)
    assert did == ["debian"]
    with pytest.raises(Rejected, match="is not steered"):
        await world.steering.runs_beside({})["sync"](job, _progress, None)
