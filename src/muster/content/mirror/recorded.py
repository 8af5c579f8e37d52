"""What the store says of mirrored repositories, to read: publications, who has which, how that came about, and work."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.content.mirror.publications import Distribution, Job, Publication
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.names import shown
from muster.store.reading import Query

if TYPE_CHECKING:
    from muster.store.reading import Readable, Reading

_OF_PUBLICATIONS = (
    'SELECT repository, digest, parts, origin, packages, size_bytes, "of", made_at FROM content_publications'
)
# When several came at once, which is newest does not matter, but it has to be the same for whoever asks.
_NEWEST_FIRST = " ORDER BY published_at DESC, repository, digest"
_PUBLICATIONS = Query(_OF_PUBLICATIONS + _NEWEST_FIRST)
_PUBLICATIONS_OF = Query(f"{_OF_PUBLICATIONS} WHERE repository = :repository{_NEWEST_FIRST}")
DISTRIBUTIONS = Query(
    "SELECT path, environment, repository, part, publication, manifest, since, version FROM content_distributions"
)
_COUNTS = Query(
    "SELECT d.environment, d.repository, d.publication, d.since, p.packages, p.size_bytes, p.made_at, d.parts"
    " FROM (SELECT environment, repository, publication, max(since) AS since, count(*) AS parts"
    " FROM content_distributions GROUP BY environment, repository, publication) d"
    " LEFT JOIN content_publications p ON p.repository = d.repository AND p.digest = d.publication"
    " ORDER BY d.environment, d.repository"
)
_HISTORY = Query(
    'SELECT id, at, "by", environment, repository, publication, previous FROM content_promotions'
    " WHERE (environment = :environment OR :environment = '') AND (repository = :repository OR :repository = '')"
    " ORDER BY id DESC LIMIT :most"
)
_OF_JOBS = (
    "SELECT id, kind, repository, member, publication, state, asked_by, asked_at, started_at, ended_at, holder, done,"
    ' "of", sentence, result, is_unwanted, tries FROM content_jobs'
)
_JOBS = Query(f"{_OF_JOBS} ORDER BY id DESC LIMIT :most")
_OPEN = Query(f"{_OF_JOBS} WHERE state IN ('asked', 'running') ORDER BY id DESC LIMIT :most")
_OVER = Query(f"{_OF_JOBS} WHERE state NOT IN ('asked', 'running') ORDER BY id DESC LIMIT :most")
_JOB = Query(f"{_OF_JOBS} WHERE id = :id")
_ASKED_AT = Query(
    "SELECT repository, max(asked_at) AS asked_at FROM content_jobs WHERE kind = 'sync' GROUP BY repository"
)
_LAST_SYNCS = "SELECT max(id) FROM content_jobs WHERE kind = 'sync' AND state IN ('done', 'failed') GROUP BY repository"
_FAILED = Query(f"{_OF_JOBS} WHERE state = 'failed' AND id IN ({_LAST_SYNCS}) ORDER BY repository")
RUNNING = Query(f"{_OF_JOBS} WHERE state = 'running' ORDER BY id")

_PREFIX = re.compile(r"[0-9a-f]{8,64}\Z")
# What both databases count rows in.
_LARGEST_ID = (1 << 63) - 1


@dataclass(frozen=True)
class Count:
    """What an environment has of a repository.

    Attributes:
        parts: how many of its parts clients get.
        since: store time since when.
        made_at: when that publication was made first.
    """

    environment: str
    repository: str
    publication: str
    parts: int
    packages: int
    size_bytes: int
    made_at: float
    since: float


@dataclass(frozen=True)
class Moved:
    """An environment got another publication of a repository.

    Attributes:
        publication: what it has since; empty: nothing, it is mirrored no more.
        previous: what it had before; empty: nothing.
    """

    id: int
    at: float
    by: str
    environment: str
    repository: str
    publication: str
    previous: str


class Recorded:
    """What is recorded of mirrored repositories. Every method raises ``Unavailable`` when the store does not answer.

    Concurrency:
        Any number of tasks; each call sees one snapshot.
    """

    def __init__(self, store: Readable) -> None:
        self._readable = store

    async def publications(self, repository: str | None = None) -> list[Publication]:
        """Return the publications there are, of one repository or of all, the newest first.

        The newest is what somebody came to last: an origin that goes back to an earlier state makes that one the newest.
        """
        async with self._readable.read() as uow:
            return await publications_in(uow, repository)

    async def publication(self, repository: str, digest_or_prefix: str) -> Publication:
        """Return the one publication of a repository whose digest begins so.

        Raises:
            NotFound: there is none.
            Rejected: this is no beginning of a digest of at least eight digits, or several begin so.
        """
        async with self._readable.read() as uow:
            return chosen(await publications_in(uow, repository), repository, digest_or_prefix)

    async def given(self) -> dict[str, Distribution]:
        """Return what every environment has, by path: anew each time, for who asks once."""
        async with self._readable.read() as uow:
            return distributions_of(await uow.rows(DISTRIBUTIONS))

    async def counts(self) -> list[Count]:
        """Return what every environment has, by environment and repository."""
        async with self._readable.read() as uow:
            rows = await uow.rows(_COUNTS)
        return [
            Count(
                r["environment"], r["repository"], r["publication"], int(r["parts"]), r["packages"] or 0,
                r["size_bytes"] or 0, r["made_at"] or 0.0, r["since"],
            )
            for r in rows
        ]  # fmt: skip

    async def history(
        self, environment: str | None = None, repository: str | None = None, limit: int = 50
    ) -> list[Moved]:
        """Return what environments got, the newest first."""
        async with self._readable.read() as uow:
            rows = await uow.rows(_HISTORY, environment=environment or "", repository=repository or "", most=limit)
        return [Moved(**r) for r in rows]

    async def jobs(self, limit: int = 50, *, is_open: bool | None = None) -> list[Job]:
        """Return jobs, the newest first: all, those that something will come of, or those that are over."""
        query = _JOBS if is_open is None else _OPEN if is_open else _OVER
        async with self._readable.read() as uow:
            return [job_of(r) for r in await uow.rows(query, most=limit)]

    async def running(self) -> list[Job]:
        """Return the jobs that somebody does, all of them."""
        async with self._readable.read() as uow:
            return [job_of(r) for r in await uow.rows(RUNNING)]

    async def failed(self) -> list[Job]:
        """Return the last synchronisation of each repository of which that failed."""
        async with self._readable.read() as uow:
            return [job_of(r) for r in await uow.rows(_FAILED)]

    async def synchronised_s(self) -> dict[str, float]:
        """Return how long ago somebody last asked for each repository to be synchronised, whatever came of it."""
        async with self._readable.read() as uow:
            now = await uow.now()
            return {row["repository"]: now - row["asked_at"] for row in await uow.rows(_ASKED_AT)}

    async def job(self, id: int) -> Job:
        """Return a job.

        Raises:
            NotFound: there is none of that number, or it was forgotten.
        """
        async with self._readable.read() as uow:
            return await job_in(uow, id)


async def publications_in(uow: Reading, repository: str | None = None) -> list[Publication]:
    """As :meth:`Recorded.publications`, within a unit that reads more."""
    if repository is None:
        return [publication_of(r) for r in await uow.rows(_PUBLICATIONS)]
    return [publication_of(r) for r in await uow.rows(_PUBLICATIONS_OF, repository=repository)]


async def job_in(uow: Reading, number: int) -> Job:
    """As :meth:`Recorded.job`, within a unit that does more."""
    rows = await uow.rows(_JOB, id=number) if 0 < number <= _LARGEST_ID else []
    if not rows:
        raise NotFound(f"There is no job {number}: there never was, or it ended more than 30 days ago")
    return job_of(rows[0])


def chosen(publications: Sequence[Publication], repository: str, digest_or_prefix: str) -> Publication:
    """Return the publication that somebody means; raises as :meth:`Recorded.publication`."""
    if _PREFIX.match(digest_or_prefix) is None:
        raise Rejected(
            f"{shown(digest_or_prefix)} names no publication: that is 8 to 64 digits of its digest, 0 to 9 and a to f"
        )
    found = [p for p in publications if p.repository == repository and p.digest.startswith(digest_or_prefix)]
    if not found:
        raise NotFound(f"{repository} has no publication {digest_or_prefix}: there never was, or it was forgotten")
    if len(found) > 1:
        raise Rejected(
            f"{len(found)} publications of {repository} begin with {digest_or_prefix}; say more of the digest"
        )
    return found[0]


def publication_of(row: Mapping[str, Any]) -> Publication:
    """Return the publication of a row."""
    return Publication(
        row["repository"], json.loads(row["parts"]), row["origin"], row["packages"], row["size_bytes"], row["of"],
        row["made_at"],
    )  # fmt: skip


def distributions_of(rows: list[dict[str, Any]]) -> dict[str, Distribution]:
    """Return the distributions of rows, by path."""
    return {r["path"]: Distribution(**r) for r in rows}


def job_of(row: Mapping[str, Any]) -> Job:
    """Return the job of a row."""
    values = {k: v for k, v in row.items() if k != "tries"}
    return Job(**{**values, "result": json.loads(row["result"]), "is_unwanted": bool(row["is_unwanted"])})
