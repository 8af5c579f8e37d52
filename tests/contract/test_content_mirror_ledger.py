"""The ledger of mirrored repositories, on both databases: publications, what environments have, and jobs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping

import pytest
from sqlalchemy import text

from muster.content.mirror.ledger import Dropped, Ledger, Move
from muster.content.mirror.publications import JobKind, Publication
from muster.kernel import failpoints
from muster.kernel.errors import Conflict, NotFound, Rejected, Unavailable
from muster.store.engine import Store
from muster.store.leases import Leases

pytestmark = pytest.mark.anyio

R, D = "rocky", "debian"
M1, M2, M3 = "1" * 64, "2" * 64, "3" * 64
LIBRARY, TEST = "/pulp/content/muster/library", "/pulp/content/muster/test"
ALL: tuple[JobKind, ...] = ("sync", "verify", "reclaim")


def yum(manifest: str, *, of: str = "", repository: str = R) -> Publication:
    return Publication(repository, {"": manifest}, "http://origin.test/r", 3, 300, of)


def deb(**parts: str) -> Publication:
    return Publication(D, {f"dists/{suite}": manifest for suite, manifest in parts.items()})


async def published(ledger: Ledger, *publications: Publication, environment: str | None = "library") -> None:
    for one in publications:
        await ledger.publish(one, environment=environment, kind="deb" if one.repository == D else "yum", by="test")


def manifests(ledger_says: Mapping[str, object]) -> dict[str, str]:
    return {path: d.manifest for path, d in ledger_says.items()}  # type: ignore[attr-defined]


async def made_older(store: Store, table: str, column: str, seconds: float) -> None:
    async with store.write() as uow:
        await uow.connection.execute(text(f"UPDATE {table} SET {column} = {column} - {seconds}"))  # noqa: S608 - ours


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


# Publications, and what environments have


async def test_what_is_published_is_had_at_once_and_read_again(store: Store) -> None:
    ledger = Ledger(store)
    assert await ledger.distributions() == {}
    one, other = yum(M1), yum(M2, of=yum(M1).digest)
    assert await ledger.publish(one, environment="library", kind="yum", by="ann")
    assert not await ledger.publish(one, environment="library", kind="yum", by="bob")
    assert not await ledger.publish(other, environment=None, kind="yum", by="bob")
    found = await ledger.publications()
    assert [dataclasses.replace(p, made_at=0.0) for p in found] == [other, one]
    assert (await ledger.publications(R), await ledger.publications("none")) == (found, [])
    (given,) = (await ledger.distributions()).values()
    assert (given.path, given.environment, given.part) == (f"{LIBRARY}/yum/rocky", "library", "")
    assert (given.publication, given.manifest, given.version) == (one.digest, M1, 1)
    assert given.since >= found[1].made_at > 0
    assert await ledger.given() == await ledger.distributions()
    (line,) = await ledger.history()
    assert (line.by, line.environment, line.repository) == ("ann", "library", R)
    assert (line.publication, line.previous) == (one.digest, "")


async def test_a_state_that_comes_again_is_the_newest_and_keeps_what_was_said_of_it(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1))
    (first,) = await ledger.publications()
    await made_older(store, "content_publications", "published_at", 10)
    await published(ledger, yum(M2))
    await made_older(store, "content_publications", "published_at", 10)
    again = dataclasses.replace(yum(M1), origin="http://elsewhere.test")
    assert await ledger.publish(again, environment="library", kind="yum", by="test")
    assert (await ledger.publications())[0] == first
    assert [(m.publication, m.previous) for m in await ledger.history()] == [
        (yum(M1).digest, yum(M2).digest), (yum(M2).digest, yum(M1).digest), (yum(M1).digest, ""),
    ]  # fmt: skip


async def test_parts_change_together_and_those_that_are_gone_go(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, deb(stable=M1, testing=M1))
    before = await ledger.distributions()
    await asyncio.sleep(0.01)
    await published(ledger, deb(stable=M2, unstable=M3))
    after = await ledger.distributions()
    assert manifests(after) == {
        f"{LIBRARY}/deb/debian/dists/stable": M2, f"{LIBRARY}/deb/debian/dists/unstable": M3,
    }  # fmt: skip
    await published(ledger, deb(stable=M2, unstable=M1))
    third = await ledger.distributions()
    stable = f"{LIBRARY}/deb/debian/dists/stable"
    # Of what clients of this suite get nothing changed.
    assert before[stable].since < after[stable].since == third[stable].since
    assert [d[stable].version for d in (before, after, third)] == [1, 2, 3]
    assert {d.publication for d in third.values()} == {deb(stable=M2, unstable=M1).digest}


async def test_what_another_member_changes_is_seen(store: Store) -> None:
    ledger, other = Ledger(store), Ledger(store)
    await published(other, yum(M1))
    seen = await ledger.distributions()
    assert await ledger.distributions() is seen, "nothing changed, and nothing was read"
    await published(other, yum(M2))
    assert manifests(await ledger.distributions()) == {f"{LIBRARY}/yum/rocky": M2}
    await other.drop([], [], by="test", after_s=-60)
    assert await ledger.distributions() == {}


async def test_what_comes_later_is_later_also_where_the_stores_clock_goes_back(store: Store) -> None:
    ledger, before = Ledger(store), 0.0
    for number, manifest in enumerate((M1, M2, M1, M3, M2)):
        await published(ledger, yum(manifest))
        (row,) = (await ledger.distributions()).values()
        # Members tell them apart by the millisecond.
        assert int(row.since * 1000) > int(before * 1000), number
        await made_older(store, "content_distributions", "since", -3600.0 if number % 2 else 0.0)
        (row,) = (await ledger.given()).values()
        before = row.since


async def test_a_repository_of_another_kind_leaves_its_place(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1))
    assert await ledger.publish(yum(M1), environment="library", kind="file", by="test")
    assert manifests(await ledger.distributions()) == {f"{LIBRARY}/file/rocky": M1}
    assert not await ledger.publish(yum(M1), environment="library", kind="file", by="test")


async def test_no_environment_gets_what_was_published_of_another_kind(store: Store) -> None:
    ledger = Ledger(store)
    old, older, new, newer = (Publication("r", {"": n * 64}) for n in "1234")
    for one in (older, old):
        await ledger.publish(one, environment="library", kind="file", by="p1")
    await ledger.promote([Move("r", "file", old.digest)], to="test", by="ann")
    for kind in ("yum", "container"):
        with pytest.raises(
            Rejected, match=f"library has publication {old.digest[:12]} of r as file, and r is {kind} now; no"
        ):
            await ledger.promote([Move("r", kind, old.digest)], to="prod", by="ann")
    await ledger.publish(new, environment="library", kind="yum", by="p1")
    await ledger.publish(newer, environment="library", kind="yum", by="p1")
    # What nobody has of the other kind is nothing that anybody could be given.
    assert {p.digest for p in await ledger.publications("r")} == {old.digest, new.digest, newer.digest}
    # Who has it goes on with it, until something else comes.
    assert "/pulp/content/muster/test/file/r" in await ledger.given()
    await ledger.promote([Move("r", "yum", newer.digest)], to="test", by="ann")
    assert {p.digest for p in await ledger.publications("r")} == {new.digest, newer.digest}
    with pytest.raises(NotFound):
        await ledger.promote([Move("r", "yum", old.digest)], to="test", by="ann")


async def test_one_is_named_by_the_beginning_of_its_digest(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1), yum(M2))
    assert (await ledger.publication(R, yum(M1).digest[:8])).parts == {"": M1}
    assert (await ledger.publication(R, yum(M2).digest)).parts == {"": M2}
    for wrong in ("", yum(M1).digest[:7], "x" * 8, "../../../..", f"{yum(M1).digest}0", f"{yum(M1).digest[:8]}\n"):
        with pytest.raises(Rejected, match="8 to 64 digits"):
            await ledger.publication(R, wrong)
    for repository, digest in ((R, "0" * 12), (D, yum(M1).digest)):
        with pytest.raises(NotFound, match=f"{repository} has no publication {digest}"):
            await ledger.publication(repository, digest)


async def test_whoever_has_lost_the_role_publishes_nothing(store: Store) -> None:
    ledger, leases = Ledger(store), Leases(store)
    mine = await leases.acquire("mirror", "one", 60)
    assert mine is not None
    assert await ledger.publish(yum(M1), environment="library", kind="yum", by="test", lease=mine)
    await leases.release(mine)
    assert await leases.acquire("mirror", "other", 60) is not None
    with pytest.raises(Conflict, match="the role has other"):
        await ledger.publish(yum(M2), environment="library", kind="yum", by="test", lease=mine)
    assert [p.parts for p in await ledger.publications()] == [{"": M1}]
    for lost in (ledger.forget(0, lease=mine), ledger.drop([], [], by="test", lease=mine, after_s=-60)):
        # Where there is nothing to do nobody is asked.
        await published(ledger, yum(M3), environment=None)
        with pytest.raises(Conflict):
            await lost
    assert len(await ledger.distributions()) == 1


async def test_several_are_promoted_together_or_none(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1), deb(stable=M1, testing=M2))
    moves = [Move(R, "yum", yum(M1).digest), Move(D, "deb", "0" * 64)]
    with pytest.raises(NotFound, match="debian has no publication 000000000000"):
        await ledger.promote(moves, to="test", by="ann")
    assert len(await ledger.distributions()) == 3
    moves[1] = Move(D, "deb", deb(stable=M1, testing=M2).digest, "")
    assert [o.is_changed for o in await ledger.promote(moves, to="test", by="ann")] == [True, True]
    assert manifests(await ledger.distributions()).items() >= {
        f"{TEST}/yum/rocky": M1, f"{TEST}/deb/debian/dists/stable": M1, f"{TEST}/deb/debian/dists/testing": M2,
    }.items()  # fmt: skip
    again = await ledger.promote([Move(R, "yum", yum(M1).digest)], to="test", by="ann")
    assert [(o.is_changed, o.previous) for o in again] == [(False, yum(M1).digest)]
    assert [(m.repository, m.by) for m in await ledger.history("test")] == [(R, "ann"), (D, "ann")]
    assert len(await ledger.history(repository=R)) == 2
    assert len(await ledger.history(limit=1)) == 1


async def test_a_promotion_that_was_decided_on_something_else_is_refused(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1), yum(M2), yum(M3))
    await ledger.promote([Move(R, "yum", yum(M1).digest)], to="test", by="ann")
    with pytest.raises(Conflict, match="test has another publication of rocky than a moment ago"):
        await ledger.promote([Move(R, "yum", yum(M2).digest, yum(M3).digest)], to="test", by="bob")
    assert (await ledger.distributions())[f"{TEST}/yum/rocky"].manifest == M1
    done = await ledger.promote([Move(R, "yum", yum(M2).digest, yum(M1).digest)], to="test", by="bob")
    assert [o.is_changed for o in done] == [True]


async def test_racing_promotions_leave_one_whole_publication_and_its_history(store: Store) -> None:
    ledger = Ledger(store)
    states = [deb(stable=m, testing=m) for m in (M1, M2, M3)]
    await published(ledger, *states)
    moves = [Move(D, "deb", p.digest) for p in states]
    done = await asyncio.gather(
        *(ledger.promote([m], to="test", by="ann") for m in moves), return_exceptions=True
    )  # fmt: skip
    refused = [d for d in done if isinstance(d, BaseException)]
    assert all(isinstance(r, Conflict) for r in refused), refused
    rows = [d for d in (await ledger.distributions()).values() if d.environment == "test"]
    assert len(rows) == 2
    assert len({d.publication for d in rows}) == len({d.manifest for d in rows}) == 1
    lines = list(reversed(await ledger.history("test")))
    assert [m.previous for m in lines] == ["", *(m.publication for m in lines[:-1])]
    assert lines[-1].publication == rows[0].publication


async def test_of_two_that_decide_on_one_reading_one_promotes(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1), yum(M2))
    moves = [Move(R, "yum", p.digest, "") for p in (yum(M1), yum(M2))]
    done = await asyncio.gather(
        *(ledger.promote([m], to="test", by="ann") for m in moves), return_exceptions=True
    )  # fmt: skip
    assert [type(d) for d in done if isinstance(d, BaseException)] == [Conflict]
    assert len(await ledger.history("test")) == 1


async def test_counts_say_what_each_environment_has(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1), deb(stable=M1, testing=M2))
    await ledger.promote([Move(R, "yum", yum(M1).digest)], to="test", by="ann")
    await published(ledger, yum(M2))
    said = [
        (c.environment, c.repository, c.publication, c.parts, c.packages, c.size_bytes) for c in await ledger.counts()
    ]
    assert said == [
        ("library", D, deb(stable=M1, testing=M2).digest, 2, 0, 0), ("library", R, yum(M2).digest, 1, 3, 300),
        ("test", R, yum(M1).digest, 1, 3, 300),
    ]  # fmt: skip


async def test_what_nobody_has_is_forgotten_beyond_the_newest(store: Store) -> None:
    ledger = Ledger(store)
    states = [yum(f"{n:064x}") for n in range(6)]
    for one in states:
        await published(ledger, one)
        await made_older(store, "content_publications", "published_at", 10)
    await ledger.promote([Move(R, "yum", states[0].digest)], to="test", by="ann")
    await published(ledger, deb(stable=M1))
    assert await ledger.forget(10) == []
    assert set(await ledger.forget(2)) == {(R, p.digest) for p in states[1:4]}
    assert {p.digest for p in await ledger.publications(R)} == {states[n].digest for n in (0, 4, 5)}
    assert len(await ledger.publications(D)) == 1
    with pytest.raises(NotFound):
        await ledger.promote([Move(R, "yum", states[1].digest)], to="test", by="ann")


async def test_what_is_promoted_while_it_is_forgotten_is_there_or_refused(store: Store) -> None:
    ledger = Ledger(store)
    states = [yum(f"{n:064x}") for n in range(8)]
    await published(ledger, *states, environment=None)
    done = await asyncio.gather(
        ledger.forget(0),
        *(ledger.promote([Move(R, "yum", p.digest)], to=f"e{n}", by="ann") for n, p in enumerate(states)),
        return_exceptions=True,
    )
    assert all(isinstance(d, list | NotFound) for d in done), done
    left = {p.digest for p in await ledger.publications()}
    assert {d.publication for d in (await ledger.distributions()).values()} == left


async def test_what_the_cluster_file_names_no_more_is_dropped_but_not_what_came_lately(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1), deb(stable=M1, testing=M1))
    await ledger.promote([Move(R, "yum", yum(M1).digest)], to="test", by="ann")
    assert await ledger.drop([R], ["library"], by="p1") == Dropped()
    assert await ledger.drop([R, D], ["library", "test"], by="p1", after_s=-60) == Dropped()
    gone = await ledger.drop([R], ["library"], by="p1", after_s=-60)
    debian = f"{LIBRARY}/deb/debian/dists"
    assert sorted(gone.distributions) == [f"{debian}/stable", f"{debian}/testing", f"{TEST}/yum/rocky"]
    assert gone.publications == ((D, deb(stable=M1, testing=M1).digest),)
    assert set(await ledger.distributions()) == {f"{LIBRARY}/yum/rocky"}
    assert {(m.environment, m.repository, m.publication) for m in (await ledger.history())[:2]} == {
        ("library", D, ""), ("test", R, ""),
    }  # fmt: skip


@pytest.mark.parametrize("step", ["content-published", "content-promoted", "content-publications-forgotten"])
async def test_what_ends_before_its_commit_has_not_happened_and_after_it_can_be_repeated(
    store: Store, step: str, disarmed: None
) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1))
    await published(ledger, yum(M2), environment=None)

    async def happens() -> None:
        match step:
            case "content-published":
                await ledger.publish(yum(M3), environment="library", kind="yum", by="ann")
            case "content-promoted":
                await ledger.promote([Move(R, "yum", yum(M1).digest)], to="test", by="ann")
            case _:
                await ledger.forget(0)

    async def standing() -> object:
        return (await ledger.publications(), await ledger.given(), await ledger.history())

    before = await standing()
    failpoints.arm({failpoints.VARIABLE: f"{step}.before-commit=error"})
    with pytest.raises(Unavailable):
        await happens()
    assert await standing() == before
    failpoints.arm({failpoints.VARIABLE: f"{step}.after-commit=error"})
    with pytest.raises(Unavailable):
        await happens()
    failpoints.arm({})
    after = await standing()
    assert after != before
    await happens()
    assert await standing() == after


# Jobs


async def test_the_same_is_asked_for_once_until_it_is_over(store: Store) -> None:
    ledger = Ledger(store)
    jobs = await asyncio.gather(*(ledger.ask("sync", R, "", by) for by in ("ann", "bob", "eve")))
    assert len({j.id for j in jobs}) == 1
    others = [await ledger.ask("sync", D, "", "ann"), await ledger.ask("verify", R, "", "ann")]
    others.append(await ledger.ask("verify", R, "p1", "ann"))
    assert len({j.id for j in (*jobs, *others)}) == 4
    taken = await ledger.take("p1/1", "p1", ALL)
    assert taken is not None
    assert (await ledger.ask("sync", R, "", "eve")).id == taken.id
    assert await ledger.end(taken.id, "p1/1", "done", "It is as it was", {"packages": 3})
    again = await ledger.ask("sync", R, "", "eve")
    assert (again.id > taken.id, again.state, again.asked_by) == (True, "asked", "eve")
    over = await ledger.job(taken.id)
    assert (over.state, over.sentence, over.result, over.is_over) == ("done", "It is as it was", {"packages": 3}, True)
    assert over.ended_at is not None
    assert over.started_at is not None
    assert over.asked_at <= over.started_at <= over.ended_at
    assert [j.id for j in await ledger.jobs(is_open=False)] == [taken.id]
    assert len(await ledger.jobs(is_open=True)) == 4
    assert [j.id for j in await ledger.jobs(2)] == [again.id, others[-1].id]


async def test_of_racing_takers_each_gets_another_job_and_the_last_none(store: Store) -> None:
    ledger = Ledger(store)
    asked = [await ledger.ask("sync", f"r{n}", "", "ann") for n in range(4)]
    taken = await asyncio.gather(*(Ledger(store).take(f"p{n}/1", f"p{n}", ALL) for n in range(6)))
    got = [j for j in taken if j is not None]
    assert sorted(j.id for j in got) == [j.id for j in asked]
    assert {(j.state, j.holder) for j in got} == {("running", f"p{n}/1") for n, j in enumerate(taken) if j is not None}


async def test_a_member_takes_what_is_for_it_and_of_a_kind_that_it_does(store: Store) -> None:
    ledger = Ledger(store)
    sync, verify = await ledger.ask("sync", R, "", "ann"), await ledger.ask("verify", "", "p2", "ann")
    assert await ledger.take("p1/1", "p1", ("verify", "reclaim")) is None
    assert await ledger.take("p1/1", "p1", ()) is None
    taken = await ledger.take("p2/1", "p2", ("verify", "reclaim"))
    assert taken is not None
    assert (taken.id, taken.member) == (verify.id, "p2")
    taken = await ledger.take("p1/1", "p1", ALL)
    assert taken is not None
    assert taken.id == sync.id


async def test_whose_job_it_is_says_how_far_it_is_and_nobody_else(store: Store) -> None:
    ledger = Ledger(store)
    job = await ledger.ask("sync", R, "", "ann")
    assert not await ledger.tell(job.id, "", 1, 2, "nobody has begun")
    assert await ledger.take("p1/1", "p1", ALL)
    assert await ledger.tell(job.id, "p1/1", 1 << 40, 1 << 41, "packages " + "x" * 1000)
    assert not await ledger.tell(job.id, "p1/2", 0, 0, "it died, and lives again")
    assert not await ledger.end(job.id, "p1/2", "done", "")
    found = await ledger.job(job.id)
    assert (found.done, found.of, len(found.sentence), found.state) == (1 << 40, 1 << 41, 500, "running")
    with pytest.raises(ValueError, match="does not end"):
        await ledger.end(job.id, "p1/1", "running", "")
    assert await ledger.end(job.id, "p1/1", "failed", "The origin did not answer")
    assert not await ledger.tell(job.id, "p1/1", 0, 0, "")
    for number in (0, -1, job.id + 1, 1 << 70):
        with pytest.raises(NotFound, match=f"There is no job {number}"):
            await ledger.job(number)


async def test_one_is_cancelled_before_it_begins_while_it_runs_and_not_afterwards(store: Store) -> None:
    ledger = Ledger(store)
    job = await ledger.ask("sync", R, "", "ann")
    for _ in range(2):
        gone = await ledger.cancel(job.id, by="bob")
        assert (gone.state, gone.sentence, gone.ended_at is not None) == ("cancelled", "Cancelled by bob", True)
    assert await ledger.take("p1/1", "p1", ALL) is None
    job = await ledger.ask("sync", R, "", "ann")
    assert await ledger.take("p1/1", "p1", ALL)
    for by in ("bob", "eve"):
        gone = await ledger.cancel(job.id, by=by)
        assert (gone.state, gone.is_unwanted, gone.sentence) == ("running", True, "Cancelled by bob")
    assert not await ledger.tell(job.id, "p1/1", 1, 2, "on")
    # Another is asked for, and nobody begins with it beside the one that is at it still.
    other = await ledger.ask("sync", R, "", "ann")
    assert other.id != job.id
    assert await ledger.take("p2/1", "p2", ALL) is None
    assert await ledger.end(job.id, "p1/1", "cancelled", "Cancelled by bob")
    taken = await ledger.take("p2/1", "p2", ALL)
    assert taken is not None
    assert taken.id == other.id
    assert await ledger.end(other.id, "p2/1", "done", "")
    with pytest.raises(Conflict, match=r"is over \(done\)"):
        await ledger.cancel(other.id, by="bob")
    with pytest.raises(NotFound):
        await ledger.cancel(99, by="bob")


async def test_what_a_dead_member_did_is_done_by_another_and_not_for_ever(store: Store) -> None:
    ledger = Ledger(store)
    job, other = await ledger.ask("sync", R, "", "ann"), await ledger.ask("sync", D, "", "ann")
    for life in range(3):
        assert await ledger.take(f"p1/{life}", "p1", ALL)
        assert await ledger.tell(job.id, f"p1/{life}", 1, 2, "half")
        if not life:
            assert await ledger.take("p2/1", "p2", ALL)
            assert await ledger.orphaned(["p1/0", "p2/1"]) == []
        (left,) = await ledger.orphaned(["p2/1"])
        assert left.id == job.id
        if life < 2:
            assert (left.state, left.holder, left.done, left.started_at) == ("asked", "", 0, None)
            assert not await ledger.tell(job.id, f"p1/{life}", 2, 2, "done, or so it believes")
    assert (left.state, left.sentence) == ("failed", "Members that did it went away 3 times")
    await ledger.cancel(other.id, by="ann")
    (left,) = await ledger.orphaned([])
    assert (left.id, left.state) == (other.id, "cancelled")


async def test_old_jobs_and_old_history_are_forgotten(store: Store) -> None:
    ledger = Ledger(store)
    await published(ledger, yum(M1))
    ended, asked = await ledger.ask("sync", R, "", "ann"), await ledger.ask("verify", "", "gone", "ann")
    assert await ledger.take("p1/1", "p1", ALL)
    assert await ledger.end(ended.id, "p1/1", "done", "")
    await ledger.forget(10)
    assert len(await ledger.jobs()) == 2
    for column in ("asked_at", "ended_at"):
        await made_older(store, "content_jobs", column, 31 * 86_400)
    await ledger.forget(10)
    (left,) = await ledger.jobs()
    assert (left.id, left.state) == (asked.id, "cancelled")
    await made_older(store, "content_promotions", "at", 401 * 86_400)
    await ledger.forget(10)
    assert await ledger.history() == []


@pytest.mark.parametrize("step", ["content-job-asked", "content-job-taken", "content-job-told"])
async def test_a_job_is_asked_for_taken_and_told_of_with_its_commit(store: Store, step: str, disarmed: None) -> None:
    ledger = Ledger(store)
    if step != "content-job-asked":
        await ledger.ask("sync", R, "", "ann")
    if step == "content-job-told":
        assert await ledger.take("p1/1", "p1", ALL)

    async def happens() -> object:
        match step:
            case "content-job-asked":
                return await ledger.ask("sync", R, "", "ann")
            case "content-job-taken":
                return await ledger.take("p1/1", "p1", ALL)
            case _:
                return await ledger.end(1, "p1/1", "done", "")

    before = await ledger.jobs()
    failpoints.arm({failpoints.VARIABLE: f"{step}.before-commit=error"})
    with pytest.raises(Unavailable):
        await happens()
    assert await ledger.jobs() == before
    failpoints.arm({failpoints.VARIABLE: f"{step}.after-commit=error"})
    with pytest.raises(Unavailable):
        await happens()
    failpoints.arm({})
    after = await ledger.jobs()
    assert after != before
    # Nobody heard that it was taken: it comes back when its holder is gone.
    await happens()
    assert await ledger.jobs() == after
