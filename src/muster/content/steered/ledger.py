"""What the store says of steered repositories: how far Pulps are, what was decided, and who follows it.

What is decided is one row, which never changes; the newest of a repository counts. Pulps are led to it again and again, by
whoever has the role, so it need not be written down when that is done. How far they are with the next one is written
down before and after each step that takes long, so that who goes on asks after the task that runs, and begins no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from muster.content.steered.stages import Flip, Follower, Stage, Turned, turned_of
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.names import shown
from muster.store.leases import Leases
from muster.store.reading import Query
from muster.store.writing import Change

if TYPE_CHECKING:
    from muster.store.engine import Store
    from muster.store.leases import Lease
    from muster.store.reading import Readable

_STAGE = Query("SELECT content FROM content_stages WHERE repository = :repository")
_PUT = Change(
    "INSERT INTO content_stages (repository, job, content) VALUES (:repository, :job, :content)"
    " ON CONFLICT (repository) DO UPDATE SET job = excluded.job, content = excluded.content"
)
_OF_FLIPS = 'SELECT repository, generation, digest, packages, pulps, "of", job, "by", at FROM content_flips'
_FLIPS = Query(f"{_OF_FLIPS} WHERE repository = :repository ORDER BY generation DESC")
_NEWEST = Query(
    'SELECT f.repository, f.generation, f.digest, f.packages, f.pulps, f."of", f.job, f."by", f.at FROM content_flips f'
    " WHERE f.generation = (SELECT max(n.generation) FROM content_flips n WHERE n.repository = f.repository)"
    " ORDER BY f.repository"
)
_FLIP = Change(
    'INSERT INTO content_flips (repository, generation, digest, packages, pulps, "of", job, "by", at)'
    " VALUES (:repository, :generation, :digest, :packages, :pulps, :of, :job, :by, {now})"
)
_FORGET = Change("DELETE FROM content_flips WHERE repository = :repository AND generation <= :generation")
_FOLLOWERS = Query("SELECT repository, pulp, generation, why, since FROM content_followers ORDER BY repository, pulp")
_FOLLOW = Change(
    "INSERT INTO content_followers (repository, pulp, generation, why, since)"
    " VALUES (:repository, :pulp, :generation, :why, {now}) ON CONFLICT (repository, pulp) DO UPDATE"
    " SET generation = excluded.generation, why = excluded.why, since = excluded.since"
)
_KEPT = 20
_LONGEST_WHY = 500


class Flips:
    """What was decided of steered repositories. Every method raises ``Unavailable`` when the store does not answer."""

    def __init__(self, store: Readable) -> None:
        self._readable = store

    async def flips(self, repository: str) -> list[Flip]:
        """Return what was decided of a repository, the newest first."""
        async with self._readable.read() as uow:
            return [_flip(r) for r in await uow.rows(_FLIPS, repository=repository)]

    async def newest(self) -> dict[str, Flip]:
        """Return what counts, by repository."""
        async with self._readable.read() as uow:
            return {r["repository"]: _flip(r) for r in await uow.rows(_NEWEST)}

    async def followers(self) -> list[Follower]:
        """Return what is known of Pulps, by repository and Pulp."""
        async with self._readable.read() as uow:
            return [Follower(**r) for r in await uow.rows(_FOLLOWERS)]


class Steerings(Flips):
    """The same, to write; ``lease`` is the role in which it is done: ``Conflict`` when somebody else has it by now.

    Concurrency: any number of tasks; a write is one transaction.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._store = store
        self._leases = Leases(store)

    async def stage(self, repository: str) -> Stage | None:
        """Return how far the Pulps are with what all of them are to have; None: nobody ever began."""
        found = await self._store.ask(_STAGE, repository=repository)
        return Stage.of_json(json.loads(found[0]["content"])) if found else None

    async def put(self, stage: Stage, *, lease: Lease | None) -> None:
        """Write down how far they are."""
        row = {"repository": stage.repository, "job": stage.job, "content": json.dumps(stage.as_json())}
        async with self._store.write("content-staged") as uow:
            if lease is not None:
                await self._leases.fence(uow, lease)
            await uow.changed(_PUT, row)

    async def flip(
        self,
        stage: Stage,
        pulps: Mapping[str, Turned],
        *,
        digest: str,
        packages: int,
        by: str,
        lease: Lease | None,
    ) -> tuple[Flip, bool]:
        """Decide to what Pulps are turned; return what counts from now on, and whether that is new.

        What counts already, or was decided for the same job before a crash, is decided no second time. An origin that
        stands still changes nothing: where somebody had older content published again, that stays.
        """
        said = json.dumps({name: one.__dict__ for name, one in sorted(pulps.items())})
        async with self._store.write("content-flipped") as uow:
            if lease is not None:
                await self._leases.fence(uow, lease)
            before = [_flip(r) for r in await uow.rows(_FLIPS, repository=stage.repository)]
            newest = before[0] if before else None
            if newest is not None and newest.job == stage.job:
                return newest, True
            if newest is not None and _is_kept(before, stage, digest, pulps):
                return newest, False
            generation = newest.generation + 1 if newest is not None else 1
            await uow.changed(_FLIP, {
                "repository": stage.repository, "generation": generation, "digest": digest, "packages": packages,
                "pulps": said, "of": int(bool(stage.of)), "job": stage.job, "by": by,
            })  # fmt: skip
            await uow.changed(_FORGET, {"repository": stage.repository, "generation": generation - _KEPT})
            (row,) = [r for r in await uow.rows(_FLIPS, repository=stage.repository) if r["generation"] == generation]
            return _flip(row), True

    async def follows(self, repository: str, pulp: str, generation: int, why: str) -> None:
        """Note to which generation a Pulp was turned at last, and why that is not the newest."""
        row = {"repository": repository, "pulp": pulp, "generation": generation, "why": why[:_LONGEST_WHY]}
        async with self._store.write("content-followed") as uow:
            await uow.changed(_FOLLOW, row)


def chosen(flips: Sequence[Flip], repository: str, prefix: str) -> Flip:
    """Return the newest decision for the content whose digest begins so.

    Raises:
        NotFound: there is none.
        Rejected: several contents begin so, or this is no beginning of a digest of at least eight digits.
    """
    if not 8 <= len(prefix) <= 64 or not set(prefix) <= set("0123456789abcdef"):
        raise Rejected(f"{shown(prefix)} names no publication: that is 8 to 64 digits of its digest, 0 to 9 and a to f")
    found = {f.digest: f for f in reversed(flips) if f.digest.startswith(prefix)}
    if not found:
        raise NotFound(f"{repository} has no publication {prefix}: there never was, or it was forgotten")
    if len(found) > 1:
        raise Rejected(f"{len(found)} publications of {repository} begin with {prefix}; say more of the digest")
    return next(iter(found.values()))


def _is_kept(before: Sequence[Flip], stage: Stage, digest: str, pulps: Mapping[str, Turned]) -> bool:
    if before[0].says(digest, pulps):
        return True
    last = next((f for f in before if not f.of), None)
    return bool(not stage.of and before[0].of and last is not None and last.digest == digest)


def _flip(row: Mapping[str, Any]) -> Flip:
    values = {**row, "pulps": turned_of(json.loads(row["pulps"])), "of": bool(row["of"])}
    return Flip(**values)
