"""Jobs: one process has the role, work that was left behind is taken up, and what somebody cancelled ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Mirror
from muster.cluster.steered import Steered
from muster.content.mirror import jobs as module
from muster.content.mirror.jobs import ROLE, Jobs, Outcome, Progress, Run
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Job, JobKind
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.leases import Lease, Leases
from muster.store.writing import Change

pytestmark = pytest.mark.anyio

_ASKED = Change(
    "INSERT INTO content_jobs (kind, repository, member, state, asked_by, asked_at)"
    " VALUES ('sync', :n, '', 'asked', 'me', {now})"
)
_EXPIRE = Change("UPDATE leases SET expires_at = 0 WHERE name = :name")
SETTINGS = Mirror.model_validate({"repositories": {"tools": {"kind": "yum", "url": "http://origin.test"}}})
SCHEDULED = Mirror.model_validate(
    {"repositories": {"tools": {"kind": "yum", "url": "http://origin.test", "sync_every_s": 3600}}}
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as it:
        yield it


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOLD_EVERY_S", 0.02)


def member(store: Store, name: str, runs: dict[JobKind, Run], settings: Mirror | None = SETTINGS) -> Jobs:
    return Jobs(
        Ledger(store), Leases(store), holder=f"{name} 1", member=name, runs=runs, settings=settings
    )  # fmt: skip


def run(does: Callable[[Job, Progress, Lease | None], Awaitable[Outcome]]) -> dict[JobKind, Run]:
    return {"sync": does, "verify": does}


async def until(store: Store, number: int, *states: str) -> Job:
    async with asyncio.timeout(5):
        while (job := await Ledger(store).job(number)).state not in states:
            await asyncio.sleep(0.01)
    return job


async def test_one_of_two_members_does_it_and_says_how_far_it_is(store: Store) -> None:
    did: list[str] = []
    gate = asyncio.Event()

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        did.append(job.repository)
        assert lease is not None
        await progress(3, 10, "fetching")
        await gate.wait()
        return Outcome("done so", {"packages": 7})

    one, two = member(store, "p1", run(does)), member(store, "p2", run(does))
    asked = await Ledger(store).ask("sync", "tools", "", "me")
    for each in (one, two, one, two):
        await each.beat()
    await asyncio.sleep(0.1)
    job = await Ledger(store).job(asked.id)
    assert (job.state, job.done, job.of, job.sentence, did) == ("running", 3, 10, "fetching", ["tools"])
    gate.set()
    job = await until(store, asked.id, "done")
    assert (job.sentence, dict(job.result)) == ("done so", {"packages": 7})
    await one.close()
    await two.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unavailable("the origin is away"), "the origin is away"),
        (TimeoutError(), "it took too long"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
async def test_what_fails_says_why_and_the_next_is_done(store: Store, error: Exception, said: str) -> None:
    tried: list[int] = []

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        tried.append(job.id)
        if len(tried) == 1:
            raise error
        return Outcome("well")

    it = member(store, "p1", run(does))
    first = await Ledger(store).ask("sync", "tools", "", "me")
    await it.beat()
    assert (await until(store, first.id, "failed")).sentence == said
    second = await Ledger(store).ask("sync", "tools", "", "me")
    async with asyncio.timeout(5):
        while (await Ledger(store).job(second.id)).state != "done":
            await it.beat()
            await asyncio.sleep(0.01)
    await it.close()


async def test_what_was_cancelled_ends(store: Store) -> None:
    ended = asyncio.Event()

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    it = member(store, "p1", run(does))
    asked = await Ledger(store).ask("sync", "tools", "", "me")
    await it.beat()
    await Ledger(store).cancel(asked.id, by="me")
    await asyncio.wait_for(ended.wait(), 5)
    over = await until(store, asked.id, "cancelled")
    assert (over.state, over.sentence) == ("cancelled", "Cancelled by me")
    await it.close()


async def test_what_a_member_left_behind_the_next_one_does(store: Store) -> None:
    did: list[str] = []

    async def hangs(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        did.append(job.kind)
        return Outcome("well")

    gone = member(store, "p1", run(hangs))
    asked = await Ledger(store).ask("sync", "tools", "", "me")
    await gone.beat()
    await until(store, asked.id, "running")
    other = member(store, "p2", run(does))
    await other.beat()
    assert did == []
    # It is killed: nobody ends its job, its lease runs out.
    gone._running.cancel()  # type: ignore[union-attr]
    async with store.write() as uow:
        await uow.change(_EXPIRE, [{"name": ROLE}])
    async with asyncio.timeout(5):
        while (await Ledger(store).job(asked.id)).state != "done":
            await other.beat()
            await asyncio.sleep(0.01)
    assert did == ["sync"]
    await other.close()


async def test_a_member_does_again_what_its_earlier_life_was_at(store: Store) -> None:
    ledger, did = Ledger(store), list[int]()

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        did.append(job.id)
        return Outcome("well")

    asked = await ledger.ask("verify", "", "p1", "me")
    assert await ledger.take("p1 0", "p1", ["verify"]) is not None
    others = await ledger.ask("verify", "", "p2", "me")
    assert await ledger.take("p2 0", "p2", ["verify"]) is not None
    it = member(store, "p1", run(does), None)
    await it.beat()
    await until(store, asked.id, "done")
    assert did == [asked.id]
    assert (await ledger.job(others.id)).state == "running"
    await it.close()


async def test_what_is_due_is_asked_for_once(store: Store) -> None:
    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        return Outcome("well")

    it = member(store, "p1", run(does), SCHEDULED)
    for _ in range(3):
        await it.beat()
        await asyncio.sleep(0.05)
    assert [(j.kind, j.repository, j.asked_by) for j in await Ledger(store).jobs()] == [
        ("sync", "tools", "the schedule")
    ]
    await it.close()
    # Whoever has the role next knows that it was done.
    other = member(store, "p2", run(does), SCHEDULED)
    await other.beat()
    assert len(await Ledger(store).jobs()) == 1
    await other.close()


async def test_what_came_of_a_job_is_told_when_the_store_is_back(store: Store) -> None:
    is_away = True

    class _Away(Ledger):
        async def end(self, *arguments: Any) -> bool:
            if is_away:
                raise Unavailable("the store is away")
            return await super().end(*arguments)

    ledger = _Away(store)

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        return Outcome("well", {"packages": 7})

    it = Jobs(ledger, Leases(store), holder="p1 1", member="p1", runs=run(does), settings=SETTINGS)
    asked = await ledger.ask("sync", "tools", "", "me")
    await it.beat()
    await asyncio.sleep(0.2)
    with pytest.raises(Unavailable):
        await it.beat()
    is_away = False
    async with asyncio.timeout(5):
        while (job := await ledger.job(asked.id)).state != "done":
            await it.beat()
            await asyncio.sleep(0.01)
    assert (job.sentence, dict(job.result)) == ("well", {"packages": 7})
    await it.close()


async def test_who_loses_the_role_and_has_it_again_begins_anew(store: Store) -> None:
    did: list[int] = []

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        did.append(job.id)
        if len(did) == 1:
            await asyncio.Event().wait()
        return Outcome("well")

    it, ledger = member(store, "p1", run(does)), Ledger(store)
    asked = await ledger.ask("sync", "tools", "", "me")
    await it.beat()
    await until(store, asked.id, "running")
    async with store.write() as uow:
        await uow.change(_EXPIRE, [{"name": ROLE}])
    # It dies before it has looked at anything.
    taken = await Leases(store).acquire(ROLE, "p2 1", 20.0)
    assert taken is not None
    await it.beat()
    await Leases(store).release(taken)
    async with asyncio.timeout(5):
        while (await ledger.job(asked.id)).state != "done":
            await it.beat()
            await asyncio.sleep(0.01)
    assert did == [asked.id] * 2
    await it.close()


async def test_who_could_not_hold_the_role_while_the_store_was_away_does_it_again(store: Store) -> None:
    did: list[int] = []
    gate = asyncio.Event()

    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        did.append(job.id)
        assert lease is not None
        await gate.wait()
        async with store.write() as uow:
            await Leases(store).fence(uow, lease)
        return Outcome("well")

    it, ledger = member(store, "p1", run(does)), Ledger(store)
    asked = await ledger.ask("sync", "tools", "", "me")
    await it.beat()
    await until(store, asked.id, "running")
    async with store.write() as uow:
        await uow.change(_EXPIRE, [{"name": ROLE}])
    await it.beat()
    gate.set()
    async with asyncio.timeout(5):
        while (job := await ledger.job(asked.id)).state not in ("done", "failed"):
            await it.beat()
            await asyncio.sleep(0.01)
    assert (job.state, did) == ("done", [asked.id] * 2)
    await it.close()


async def test_what_was_left_behind_is_found_beneath_all_that_is_asked_for(store: Store) -> None:
    async def does(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        return Outcome("well")

    ledger = Ledger(store)
    left = await ledger.ask("sync", "tools", "", "me")
    assert await ledger.take("gone 1", "gone", ["sync"]) is not None
    values = [{"n": f"other{n}"} for n in range(1005)]
    async with store.write() as uow:
        await uow.change(_ASKED, values)
    it = member(store, "p1", run(does))
    async with asyncio.timeout(5):
        while (await ledger.job(left.id)).state != "done":
            await it.beat()
            await asyncio.sleep(0.01)
    await it.close()


async def test_of_very_many_that_are_due_at_once_some_are_asked_for_in_each_beat(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(module, "_ASKED_AT_ONCE", 4)
    one = {"kind": "yum", "url": "http://origin.test", "sync_every_s": 3600}
    settings = Mirror.model_validate({"repositories": {f"r{n}": one for n in range(10)}})
    it = member(store, "p1", run(hangs), settings)
    for asked in (4, 8, 10, 10):
        await it.beat()
        assert len(await Ledger(store).jobs()) == asked
    await it.close()


async def test_steered_repositories_are_looked_at_in_the_same_role(store: Store) -> None:
    steered = Steered.model_validate({
        "pulps": ["pulp@a"],
        "repositories": {"rocky9": {"kind": "yum", "url": "http://origin.test", "path": "rocky9", "sync_every_s": 3600}},
    })  # fmt: skip
    did: list[str] = []

    async def does(job: Job, _progress: Progress, lease: Lease | None) -> Outcome:
        assert lease is not None
        did.append(job.repository)
        return Outcome("well")

    leases = Leases(store)
    it = Jobs(
        Ledger(store), leases, holder="p1 1", member="p1", runs=run(does), settings=None, steered=steered
    )  # fmt: skip
    assert not it.has_role
    await it.beat()
    assert it.has_role
    (job,) = await Ledger(store).jobs()
    await until(store, job.id, "done")
    await it.beat()
    assert (did, job.asked_by, len(await Ledger(store).jobs())) == (["rocky9"], "the schedule", 1)
    await it.close()
