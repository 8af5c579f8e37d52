"""The ledger of what is mirrored: states of repositories, which of them each environment has, and work that is asked for.

A publication is put down once and never changes. What an environment has of a repository is one row for each part, all of
which change in one transaction, by compare and set, and with a line of history: clients of an environment are never to get
parts of two publications, and whoever looks finds out how it came about.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from muster.content.mirror import paths
from muster.content.mirror.publications import Distribution, Job, JobKind, JobState, Publication
from muster.content.mirror.recorded import (
    DISTRIBUTIONS,
    RUNNING,
    Recorded,
    distributions_of,
    job_in,
    job_of,
    publication_of,
)
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.store.leases import Leases
from muster.store.reading import Query
from muster.store.writing import Change

if TYPE_CHECKING:
    from muster.cluster.mirror import Kind
    from muster.store.engine import Store, Unit
    from muster.store.leases import Lease

# Every change of the rows changes at least one of these: one that comes is as new as nothing before it.
_STAMP = Query(
    "SELECT count(*) AS found, coalesce(sum(version), 0) AS versions, coalesce(sum(since), 0) AS since"
    " FROM content_distributions"
)
_AT = Query(f"{DISTRIBUTIONS.text} WHERE environment = :environment AND repository = :repository ORDER BY path")
_GIVEN = Query(f"{DISTRIBUTIONS.text} WHERE repository = :repository AND publication = :digest ORDER BY path")
_PUBLISH = Change(
    'INSERT INTO content_publications (repository, digest, parts, origin, packages, size_bytes, "of", made_at,'
    " published_at) VALUES (:repository, :digest, :parts, :origin, :packages, :size_bytes, :of, {now}, {now})"
    " ON CONFLICT (repository, digest) DO UPDATE SET published_at = excluded.published_at"
)
# Nothing changes, but the row is locked: it is not forgotten before the unit ends.
_HOLD = Change(
    "UPDATE content_publications SET published_at = published_at WHERE repository = :repository AND digest = :digest"
)
_HELD = Query(
    'SELECT repository, digest, parts, origin, packages, size_bytes, "of", made_at FROM content_publications'
    " WHERE repository = :repository AND digest = :digest"
)
_GIVE = Change(
    "INSERT INTO content_distributions (path, environment, repository, part, publication, manifest, since, version)"
    " VALUES (:path, :environment, :repository, :part, :publication, :manifest, {now}, 1) ON CONFLICT (path) DO NOTHING"
)
# What members show follows in this order, to the millisecond, and a store that takes over may have another clock.
_MOVE = Change(
    "UPDATE content_distributions SET environment = :environment, repository = :repository, part = :part,"
    " since = CASE WHEN manifest = :manifest THEN since WHEN since + 0.002 > {now} THEN since + 0.002 ELSE {now} END,"
    " publication = :publication, manifest = :manifest,"
    " version = version + 1 WHERE path = :path AND version = :version"
)
_TAKE_AWAY = Change("DELETE FROM content_distributions WHERE path = :path AND version = :version")
_NOTE = Change(
    'INSERT INTO content_promotions (at, "by", environment, repository, publication, previous)'
    " VALUES ({now}, :by, :environment, :repository, :publication, :previous)"
)
_AGES = Query(
    "SELECT repository, digest, published_at, EXISTS (SELECT 1 FROM content_distributions d WHERE d.repository ="
    " p.repository AND d.publication = p.digest) AS is_given FROM content_publications p"
    " ORDER BY published_at DESC, repository, digest"
)
_FORGET = Change(
    "DELETE FROM content_publications WHERE repository = :repository AND digest = :digest AND NOT EXISTS (SELECT 1 FROM"
    " content_distributions d WHERE d.repository = content_publications.repository"
    " AND d.publication = content_publications.digest)"
)
_IS_OLD = Query(
    "SELECT EXISTS (SELECT 1 FROM content_jobs WHERE ended_at < :ended OR state = 'asked' AND asked_at < :ended) AS jobs,"
    " EXISTS (SELECT 1 FROM content_promotions WHERE at < :promoted) AS promotions"
)
_FORGET_JOBS = (
    Change("DELETE FROM content_jobs WHERE ended_at < :ended"),
    # Its member may have left the cluster.
    Change(
        "UPDATE content_jobs SET state = 'cancelled', sentence = 'Nobody took it within 30 days', ended_at = {now}"
        " WHERE state = 'asked' AND asked_at < :ended"
    ),
)
_FORGET_PROMOTIONS = Change("DELETE FROM content_promotions WHERE at < :promoted")

_ASK = Change(
    "INSERT INTO content_jobs (kind, repository, member, publication, state, asked_by, asked_at)"
    " VALUES (:kind, :repository, :member, :publication, 'asked', :by, {now}) ON CONFLICT DO NOTHING"
)
_ASKED = Query(
    "SELECT id FROM content_jobs WHERE kind = :kind AND repository = :repository AND member = :member"
    " AND publication = :publication AND state IN ('asked', 'running') AND is_unwanted = 0"
)
# One that is cancelled may still be at it: nobody begins beside it.
_NEXT = Query(
    "SELECT j.id FROM content_jobs j WHERE j.state = 'asked' AND j.member IN ('', :member)"
    " AND j.kind IN (:one, :two, :three, :four) AND NOT EXISTS (SELECT 1 FROM content_jobs r WHERE r.state = 'running'"
    " AND r.kind = j.kind AND r.repository = j.repository AND r.member = j.member) ORDER BY j.id LIMIT 20"
)
_TAKE = Change(
    "UPDATE content_jobs SET state = 'running', holder = :holder, started_at = {now}, done = 0, \"of\" = 0,"
    " sentence = '', tries = tries + 1 WHERE id = :id AND state = 'asked'"
)
_TELL = Change(
    'UPDATE content_jobs SET done = :done, "of" = :of, sentence = :sentence WHERE id = :id AND holder = :holder'
    " AND state = 'running' AND is_unwanted = 0"
)
_END = Change(
    "UPDATE content_jobs SET state = :state, sentence = :sentence, result = :result, ended_at = {now}"
    " WHERE id = :id AND holder = :holder AND state = 'running'"
)
_CANCEL = (
    Change(
        "UPDATE content_jobs SET state = 'cancelled', sentence = :sentence, ended_at = {now}"
        " WHERE id = :id AND state = 'asked'"
    ),
    Change(
        "UPDATE content_jobs SET is_unwanted = 1, sentence = :sentence WHERE id = :id AND state = 'running'"
        " AND is_unwanted = 0"
    ),
)
_LEAVE = (
    Change(
        "UPDATE content_jobs SET state = 'cancelled', ended_at = {now} WHERE id = :id AND holder = :holder"
        " AND state = 'running' AND is_unwanted = 1"
    ),
    Change(
        "UPDATE content_jobs SET state = 'failed', ended_at = {now}, sentence = :sentence WHERE id = :id"
        " AND holder = :holder AND state = 'running' AND tries >= :most"
    ),
    Change(
        "UPDATE content_jobs SET state = 'asked', holder = '', started_at = NULL, done = 0, \"of\" = 0, sentence = ''"
        " WHERE id = :id AND holder = :holder AND state = 'running' AND tries < :most"
    ),
)

_KINDS: tuple[JobKind, ...] = ("sync", "verify", "reclaim", "publish")
# Of two that change the same rows at once the second looks again; more often than so it is no coincidence.
_LOOKS = 5
# A unit is to be short; what is left is forgotten the next time.
_FORGOTTEN_AT_ONCE = 500
_LONGEST_SENTENCE = 500
_LONGEST_RESULT = 65_536
# A job that ends every member which takes it must not do so for ever.
_MOST_TRIES = 3
_JOBS_S = 30 * 86_400.0
_PROMOTIONS_S = 400 * 86_400.0
# A member may still have the cluster file of before: what came lately is not dropped because that does not name it.
_NAMED_WITHIN_S = 86_400.0


@dataclass(frozen=True)
class Move:
    """An environment shall have a publication of a repository.

    Attributes:
        publication: its whole digest.
        previous: what the environment had when somebody decided so, empty: nothing; None: whatever it has.
    """

    repository: str
    kind: Kind
    publication: str
    previous: str | None = None


class Outcome(NamedTuple):
    """What came of a :class:`Move`.

    Attributes:
        previous: what the environment had before; empty: nothing.
        is_changed: whether anything had to be changed.
    """

    repository: str
    publication: str
    previous: str
    is_changed: bool


class Dropped(NamedTuple):
    """What was removed because nobody names it any more: paths, and publications by repository and digest."""

    distributions: tuple[str, ...] = ()
    publications: tuple[tuple[str, str], ...] = ()


class Ledger(Recorded):
    """What is mirrored, in the store. Every method raises ``Unavailable`` when that does not answer.

    Concurrency:
        Any number of tasks on any number of members. A write is one transaction; of two that would change the same rows the
        second sees what the first did. What a write was fenced for (``lease``) it does in that role alone: ``Conflict`` when
        somebody else has taken over, and nothing was changed.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._store = store
        self._leases = Leases(store)
        self._known: tuple[object, Mapping[str, Distribution]] | None = None

    async def distributions(self) -> Mapping[str, Distribution]:
        """Return what every environment has, by path; asked each second, so the rows are read when they changed alone."""
        (found,) = await self._store.ask(_STAMP)
        stamp = (int(found["found"]), int(found["versions"]), float(found["since"]))
        known = self._known
        if known is None or known[0] != stamp:
            # Read after the stamp, they are as new as it or newer; then the next stamp is another.
            rows = await self._store.ask(DISTRIBUTIONS) if stamp[0] else []
            self._known = known = (stamp, distributions_of(rows))
        return known[1]

    async def publish(
        self, publication: Publication, *, environment: str | None, kind: Kind, by: str, lease: Lease | None = None
    ) -> bool:
        """Put a publication down and let an environment have it; without one it is only put down.

        One that is there already keeps what was said of it first, ``made_at`` among that, and becomes the newest.

        Returns:
            Whether the environment had something else before; without one false.

        Raises:
            Conflict: the lease is lost, or others change the same rows again and again; nothing was changed.
        """
        row = {
            "repository": publication.repository, "digest": publication.digest,
            "parts": json.dumps(dict(sorted(publication.parts.items()))), "origin": publication.origin,
            "packages": publication.packages, "size_bytes": publication.size_bytes, "of": publication.of,
        }  # fmt: skip
        for _ in range(_LOOKS):
            try:
                async with self._store.write("content-published") as uow:
                    if lease is not None:
                        await self._leases.fence(uow, lease)
                    await uow.changed(_PUBLISH, row)
                    if environment is None:
                        return False
                    return (await _moved(uow, environment, kind, publication, by)).is_changed
            except _Outrun:
                continue
        raise _contended(environment or "", [publication.repository])

    async def promote(self, moves: Sequence[Move], *, to: str, by: str) -> list[Outcome]:
        """Let an environment have publications of some repositories, all of them or, when one cannot be, none.

        What it has already is left as it is, and no line of history is written of that.

        Raises:
            NotFound: there is no such publication (any more).
            Rejected: it is of the kind that the repository was of before.
            Conflict: the environment has something else than when it was decided.
        """
        for _ in range(_LOOKS):
            try:
                async with self._store.write("content-promoted") as uow:
                    # In one order, so that two never wait for each other.
                    done = {m.repository: await _promoted(uow, m, to, by) for m in sorted(moves, key=_by_name)}
                    return [done[m.repository] for m in moves]
            except _Outrun:
                continue
        raise _contended(to, [m.repository for m in moves])

    async def forget(self, keep: int, *, lease: Lease | None = None) -> list[tuple[str, str]]:
        """Drop publications beyond the newest so many of each repository that no environment has, and old history.

        Jobs that ended 30 days ago go, too, those that nobody took for so long are cancelled, and lines of the history go
        after 400 days.

        Returns:
            Repository and digest of each publication that was dropped; at most some hundreds at once, the rest next time.
        """
        async with self._store.read() as uow:
            now = await uow.now()
            since = {"ended": now - _JOBS_S, "promoted": now - _PROMOTIONS_S}
            (old,) = await uow.rows(_IS_OLD, **since)
            beyond = _beyond(await uow.rows(_AGES), keep)
        if not beyond and not old["jobs"] and not old["promotions"]:
            return []
        async with self._store.write("content-publications-forgotten") as uow:
            if lease is not None:
                await self._leases.fence(uow, lease)
            for change in _FORGET_JOBS:
                await uow.changed(change, {"ended": since["ended"]})
            await uow.changed(_FORGET_PROMOTIONS, {"promoted": since["promoted"]})
            return await _forgotten(uow, beyond)

    async def drop(
        self,
        repositories: Collection[str],
        environments: Collection[str],
        *,
        by: str,
        lease: Lease | None = None,
        after_s: float = _NAMED_WITHIN_S,
    ) -> Dropped:
        """Drop what there is of repositories and environments other than these, which the cluster file names.

        What came within ``after_s`` stays: some member may know a newer cluster file than who calls.
        """
        async with self._store.read() as uow:
            before = await uow.now() - after_s
            unnamed = [
                d for d in distributions_of(await uow.rows(DISTRIBUTIONS)).values()
                if (d.repository not in repositories or d.environment not in environments) and d.since < before
            ]  # fmt: skip
            old = [
                (r["repository"], r["digest"]) for r in await uow.rows(_AGES)
                if r["repository"] not in repositories and r["published_at"] < before
            ]  # fmt: skip
        if not unnamed and not old:
            return Dropped()
        async with self._store.write("content-publications-dropped") as uow:
            if lease is not None:
                await self._leases.fence(uow, lease)
            gone = [d for d in unnamed if await uow.changed(_TAKE_AWAY, {"path": d.path, "version": d.version})]
            for environment, repository, publication in sorted(
                {(d.environment, d.repository, d.publication) for d in gone}
            ):
                await uow.changed(_NOTE, _line(by, environment, repository, "", publication))
            forgotten = await _forgotten(uow, old[:_FORGOTTEN_AT_ONCE])
        return Dropped(tuple(d.path for d in gone), tuple(forgotten))

    async def ask(self, kind: JobKind, repository: str, member: str, by: str, *, publication: str = "") -> Job:
        """Ask for work; while the same is asked for already, or done right now, that job is returned and no other made."""
        values = {"kind": kind, "repository": repository, "member": member, "publication": publication}
        for _ in range(_LOOKS):
            async with self._store.write("content-job-asked") as uow:
                await uow.changed(_ASK, {**values, "by": by})
                if found := await uow.rows(_ASKED, **values):
                    return await job_in(uow, found[0]["id"])
            # It ended between the two.
        raise Conflict(f"Work of kind {kind} on {repository or 'all repositories'} ends as fast as it is asked for")

    async def take(self, holder: str, member: str, kinds: Collection[JobKind]) -> Job | None:
        """Begin with the oldest job of these kinds that is for this member or for whoever; None: there is none.

        ``holder`` is unique to one life of a process. Of several that ask at once each gets another.
        """
        if not kinds:
            return None
        wanted = [k if k in kinds else "" for k in _KINDS]
        values = {"member": member, **dict(zip(("one", "two", "three", "four"), wanted, strict=True))}
        # Mostly there is none, and nobody has to write.
        if not await self._store.ask(_NEXT, **values):
            return None
        async with self._store.write("content-job-taken") as uow:
            for row in await uow.rows(_NEXT, **values):
                if await uow.changed(_TAKE, {"id": row["id"], "holder": holder}):
                    return await job_in(uow, row["id"])
        return None

    async def tell(self, job_id: int, holder: str, done: int, of: int, sentence: str) -> bool:
        """Say how far a job is; false: somebody has cancelled it, or it is not this holder's, who has to stop."""
        values = {"id": job_id, "holder": holder, "done": done, "of": of, "sentence": sentence[:_LONGEST_SENTENCE]}
        return bool(await self._told([(_TELL, values)]))

    async def end(
        self, job_id: int, holder: str, state: JobState, sentence: str, result: Mapping[str, Any] | None = None
    ) -> bool:
        """Say that a job is over, and what came of it; false: it was not this holder's any more.

        Raises:
            ValueError: that is no state in which a job is over, or the result is longer than 64 KiB.
        """
        text = json.dumps(dict(result or {}), sort_keys=True)
        if state not in ("done", "failed", "cancelled") or len(text) > _LONGEST_RESULT:
            raise ValueError(f"a job does not end {state} with {len(text)} characters of result")
        values = {
            "id": job_id, "holder": holder, "state": state, "sentence": sentence[:_LONGEST_SENTENCE], "result": text,
        }  # fmt: skip
        return bool(await self._told([(_END, values)]))

    async def cancel(self, id: int, *, by: str) -> Job:
        """Let nothing come of a job: one that nobody began with is over, one that runs is unwanted until its holder ends it.

        Cancelled once more it stays as it is.

        Raises:
            NotFound: there is none.
            Conflict: it is over.
        """
        job = await self.job(id)
        if not job.is_over:
            values = {"id": id, "sentence": f"Cancelled by {by}"[:_LONGEST_SENTENCE]}
            await self._told([(change, values) for change in _CANCEL])
            job = await self.job(id)
        if job.is_over and job.state != "cancelled":
            raise Conflict(f"Job {id} is over ({job.state}); nothing was changed")
        return job

    async def orphaned(self, alive_holders: Collection[str]) -> list[Job]:
        """Put back jobs whose holder is gone, so that another takes them; return what became of each.

        What is unwanted is cancelled instead, and what has lost its third holder has failed.
        """
        async with self._store.read() as uow:
            left = [j for j in map(job_of, await uow.rows(RUNNING)) if j.holder not in alive_holders]
        sentence = f"Members that did it went away {_MOST_TRIES} times"
        changes = [
            (change, {k: v for k, v in {
                "id": j.id, "holder": j.holder, "most": _MOST_TRIES, "sentence": sentence,
            }.items() if f":{k}" in change.text})
            for j in left for change in _LEAVE
        ]  # fmt: skip
        if not changes or not await self._told(changes):
            return []
        async with self._store.read() as uow:
            return [await job_in(uow, j.id) for j in left]

    async def _told(self, changes: Sequence[tuple[Change, Mapping[str, Any]]]) -> int:
        async with self._store.write("content-job-told") as uow:
            return sum([await uow.changed(change, values) for change, values in changes])


class _Outrun(Exception):
    """Somebody changed the rows since they were read."""


def refuse_other_kind(given: Iterable[Distribution], repository: str, publication: str, kind: Kind) -> None:
    """Refuse a publication that an environment has as one of another kind; no client could read it by its new path.

    Raises:
        Rejected: it is.
    """
    for one in given:
        has = _kind(one.path)
        if (one.repository, one.publication) == (repository, publication) and has != kind:
            raise Rejected(
                f"{one.environment} has publication {publication[:12]} of {repository} as {has}, and {repository} is {kind} "
                f"now; nothing was changed. muster content sync {repository} publishes what can be promoted"
            )


async def _promoted(uow: Unit, move: Move, to: str, by: str) -> Outcome:
    held = {"repository": move.repository, "digest": move.publication}
    if not await uow.changed(_HOLD, held):
        raise NotFound(
            f"{move.repository} has no publication {move.publication[:12]}: there never was, or it was forgotten; "
            "nothing was changed"
        )
    (row,) = await uow.rows(_HELD, **held)
    had = distributions_of(await uow.rows(_GIVEN, **held))
    refuse_other_kind(had.values(), move.repository, move.publication, move.kind)
    done = await _moved(uow, to, move.kind, publication_of(row), by)
    if done.is_changed and move.previous is not None and done.previous != move.previous:
        now = f"publication {done.previous[:12]}" if done.previous else "none"
        raise Conflict(
            f"{to} has another publication of {move.repository} than a moment ago, {now}; nothing was changed. Look again"
        )
    return done


async def _moved(uow: Unit, environment: str, kind: Kind, publication: Publication, by: str) -> Outcome:
    """Let an environment have a publication, whose row this unit holds.

    Raises:
        _Outrun: somebody changes the same; leave the unit.
    """
    repository, digest = publication.repository, publication.digest
    before = distributions_of(await uow.rows(_AT, environment=environment, repository=repository))
    wanted = {
        paths.at(environment, kind, repository, part): (part, manifest) for part, manifest in publication.parts.items()
    }
    had = {path: (d.part, d.manifest) for path, d in before.items()}
    # Of a publication of before the kind was changed paths may be left, which go now.
    previous = next((d.publication for d in before.values() if d.publication != digest), digest if before else "")
    if had == wanted and previous == digest:
        return Outcome(repository, digest, digest, is_changed=False)
    for path in sorted({*before, *wanted}):
        now = before.get(path)
        if path not in wanted:
            done = await uow.changed(_TAKE_AWAY, {"path": path, "version": now.version if now else 0})
        else:
            part, manifest = wanted[path]
            values = {
                "path": path, "environment": environment, "repository": repository, "part": part,
                "publication": digest, "manifest": manifest,
            }  # fmt: skip
            done = await uow.changed(*((_MOVE, values | {"version": now.version}) if now else (_GIVE, values)))
        if not done:
            raise _Outrun
    if previous != digest:
        await uow.changed(_NOTE, _line(by, environment, repository, digest, previous))
    if any(_kind(path) != kind for path in before):
        await _forget_other_kind(uow, repository, kind, environment, previous)
    return Outcome(repository, digest, previous, is_changed=True)


async def _forget_other_kind(uow: Unit, repository: str, kind: Kind, environment: str, previous: str) -> None:
    """Drop publications of the kind that a repository was of, which no client could read by its new paths.

    They do not say themselves of which kind they are. When the first environment gets one of the new kind all others are of
    the old one; later that is what an environment had before. What others still have stays until they get something else.
    """
    given = distributions_of(await uow.rows(DISTRIBUTIONS)).values()
    old = [previous]
    if not any(d.repository == repository and d.environment != environment and _kind(d.path) == kind for d in given):
        old = [r["digest"] for r in await uow.rows(_AGES) if r["repository"] == repository and not r["is_given"]]
    await _forgotten(uow, [(repository, digest) for digest in old])


def _kind(path: str) -> str:
    place = paths.split(path)
    return place[0].kind if place is not None else ""


def _line(by: str, environment: str, repository: str, publication: str, previous: str) -> dict[str, str]:
    return {
        "by": by, "environment": environment, "repository": repository, "publication": publication, "previous": previous,
    }  # fmt: skip


def _by_name(move: Move) -> str:
    return move.repository


def _beyond(rows: list[dict[str, Any]], keep: int) -> list[tuple[str, str]]:
    """Return which publications are beyond the newest so many and not given to anybody; the rows are the newest first."""
    counted: dict[str, int] = {}
    out = []
    for r in rows:
        counted[r["repository"]] = counted.get(r["repository"], 0) + 1
        if counted[r["repository"]] > keep and not r["is_given"]:
            out.append((r["repository"], r["digest"]))
    return out[-_FORGOTTEN_AT_ONCE:]


async def _forgotten(uow: Unit, publications: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop these, but for those that an environment got meanwhile; return which were dropped."""
    values = [{"repository": repository, "digest": digest} for repository, digest in sorted(publications)]
    # First all are held, then looked at anew: whoever lets an environment have one has done so before, or finds it gone.
    held = [v for v in values if await uow.changed(_HOLD, v)]
    return [(v["repository"], v["digest"]) for v in held if await uow.changed(_FORGET, v)]


def _contended(environment: str, repositories: Sequence[str]) -> Conflict:
    return Conflict(
        f"Others change again and again what {environment} has of {', '.join(repositories)}; nothing was changed. "
        "Try again"
    )
