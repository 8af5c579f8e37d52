"""What each kind of job does on a member: synchronise a repository, verify what lies on its disk, reclaim room."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from muster.cluster.mirror import Kind, Mirror, Mirrored
from muster.content.kept import Kept
from muster.content.mirror import again, paths, repair, sync
from muster.content.mirror.jobs import Outcome, Progress, Run
from muster.content.mirror.keeping import Keeping
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.origins import Origins
from muster.content.mirror.packages import Packages
from muster.content.mirror.publications import Job, JobKind, Publication
from muster.content.sizes import size
from muster.content.staging import Staging
from muster.content.views import Views
from muster.kernel.errors import MusterError, Rejected
from muster.kernel.names import shown
from muster.store.leases import Lease

_VERIFIED_BYTES_PER_S = 200 << 20
# What was brought for a publication that is not put down yet.
_SPARED_S = 3600.0
# So long a synchronisation waits until clients get what it published.
_SHOWN_S = 60.0
_LOOK_S = 0.2
# So many files are named one by one; the log has all.
_NAMED = 200
# And so many in the sentence.
_SAID = 3
# Paths are longer than digests, and what a job tells has a limit.
_PATHS = 20


class Means(NamedTuple):
    """What a member mirrors with."""

    settings: Mirror
    packages: Packages
    origins: Origins
    keeping: Keeping


class Work:
    """One member's.

    Args:
        kept: metadata of what is followed, be it mirrored or not.
        means: None: this member mirrors nothing.
    """

    def __init__(self, ledger: Ledger, views: Views, staging: Staging, kept: Kept, means: Means | None) -> None:
        self._ledger, self._views, self._staging, self._kept, self._means = ledger, views, staging, kept, means
        # Of packages that metadata name by another digest.
        self._sha256_of: dict[str, str] = {}

    @property
    def runs(self) -> Mapping[JobKind, Run]:
        """What does a job, by its kind."""
        if self._means is None:
            return {"verify": self.verify}
        return {
            "verify": self.verify,
            "sync": partial(self._synchronise, self._means),
            "publish": partial(self._publish, self._means),
            "reclaim": partial(self._reclaim, self._means),
        }

    async def _synchronise(self, means: Means, job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        """Fetch a repository's state from its origin, put it down, and let the first environment have it.

        Raises:
            Rejected: this member does not mirror it.
            MusterError: it did not come whole, or is not what it says; nothing was put down.
        """
        mirrored, settings = _mirrored(means, job), means.settings
        origin = await means.origins.of(job.repository)
        # What was published again here is not the origin's.
        last = next((p for p in await self._ledger.publications(job.repository) if not p.of), None)
        means.keeping.is_syncing = True
        try:
            found = await sync.synchronised(
                job.repository, mirrored, origin, self._kept, means.packages.kept,
                last=last, progress=progress, connections=settings.connections,
                make_room=means.packages.make_room, sha256_of=self._sha256_of,
            )  # fmt: skip
            publication, environment = found.publication, settings.environments[0]
            had = await self._had(environment, job.repository)
            is_kept = last is not None and last.digest == publication.digest and had not in ("", publication.digest)
            # An origin that stands still changes nothing, so that somebody who went back stays there.
            is_new = not is_kept and await self._ledger.publish(
                publication, environment=environment, kind=mirrored.kind, by=job.asked_by, lease=lease
            )
        finally:
            means.keeping.is_syncing = False
        shown_s = None if is_kept else await self._shown(environment, mirrored.kind, publication, progress)
        with contextlib.suppress(MusterError):
            # What is not forgotten now is the next time.
            await self._ledger.forget(settings.publications, lease=lease)
        said = f"{publication.packages} packages in publication {publication.digest[:12]}"
        weak = f", and {found.weak} that have no digest that proves anything" if found.weak else ""
        without = weak + _left_out(found.left_out) + _missed(found.missed)
        result: dict[str, Any] = {
            "publication": publication.digest, "is_new": is_new, "environment": environment,
            "packages": publication.packages, "size_bytes": publication.size_bytes,
            "fetched": found.fetched, "fetched_bytes": found.fetched_bytes, "weak": found.weak, "shown_s": shown_s,
            "left_out": len(found.left_out), "left_out_paths": [shown(p, 200) for p in sorted(found.left_out)[:_PATHS]],
            "missed": list(found.missed[:_NAMED]),
        }  # fmt: skip
        said = f"{said}, for {environment}" if is_new else f"unchanged: {said}"
        if is_kept:
            return Outcome(f"{said}{without}; {environment} keeps {had[:12]}, which somebody gave it", result)
        return Outcome(f"{said}{without}{_late(shown_s)}", result)

    async def _publish(self, means: Means, job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        """Put the content of an older publication down as something newer, and let the first environment have it.

        Raises:
            Rejected: this member does not mirror it, or it is signed.
            NotFound: there is no such publication any more.
            MusterError: not all of its metadata is to be had; nothing was put down.
        """
        mirrored = _mirrored(means, job)
        environment = means.settings.environments[0]
        of = await self._ledger.publication(job.repository, job.publication)
        means.keeping.is_syncing = True
        try:
            for digest in of.parts.values():
                manifest = await self._staging.manifest(digest)
                if manifest is None or not await self._staging.has(manifest):
                    await self._staging.copied(digest)
            given = [
                d for d in (await self._ledger.distributions()).values()
                if (d.environment, d.repository) == (environment, job.repository)
            ]  # fmt: skip
            had = [m for d in given if (m := await self._staging.manifest(d.manifest)) is not None]
            above = max((float(m.revision) if mirrored.kind == "yum" else m.timestamp for m in had), default=-1.0)
            publication = await again.republished(mirrored, of, self._kept, now=time.time(), above=above)
            await self._ledger.publish(
                publication, environment=environment, kind=mirrored.kind, by=job.asked_by, lease=lease
            )  # fmt: skip
        finally:
            means.keeping.is_syncing = False
        shown_s = await self._shown(environment, mirrored.kind, publication, progress)
        result = {"publication": publication.digest, "of": of.digest, "environment": environment, "shown_s": shown_s}
        said = f"the content of {of.digest[:12]} as {publication.digest[:12]}, for {environment}"
        return Outcome(said + _late(shown_s), result)

    async def _had(self, environment: str, repository: str) -> str:
        """Return the publication of a repository that an environment has; empty: none."""
        rows = (await self._ledger.distributions()).values()
        return next((d.publication for d in rows if (d.environment, d.repository) == (environment, repository)), "")

    async def _shown(self, environment: str, kind: Kind, publication: Publication, progress: Progress) -> float | None:
        """Return how long it took until all members give it to clients; None: they do not yet."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = {paths.at(environment, kind, publication.repository, part): m for part, m in publication.parts.items()}
        while left:
            for path, manifest in list(left.items()):
                with contextlib.suppress(MusterError):
                    found = await self._views.shown(path)
                    if found is not None and found.manifest == manifest:
                        del left[path]
            if left and loop.time() - began > _SHOWN_S:
                return None
            if left:
                await progress(0, 0, f"waiting until all members have {publication.digest[:12]}")
                await asyncio.sleep(_LOOK_S)
        return round(loop.time() - began, 3)

    async def verify(self, _job: Job, progress: Progress, _lease: Lease | None) -> Outcome:
        """Read all that lies on this member's disk; what is damaged is brought anew, from whoever has it."""
        looked = [await self._verified(self._kept, self._mend_metadata, progress)]
        means = self._means
        if means is not None:
            looked.append(await self._verified(means.packages.kept, partial(_mend_package, means), progress))
        looked_at = sum(one.looked_at_bytes for one in looked)
        damaged, mended, lost = (
            [name for one in looked for name in getattr(one, what)] for what in ("damaged", "mended", "lost")
        )
        if lost and means is not None:
            means.keeping.look_again()
        said = f"{size(looked_at)} looked at, {len(damaged)} files damaged"
        if damaged:
            said += f": {len(mended)} brought anew, {len(lost)} lost"
        result = {
            "looked_at_bytes": looked_at, "damaged": damaged[:_NAMED], "mended": mended[:_NAMED], "lost": lost[:_NAMED],
        }  # fmt: skip
        return Outcome(said, result, is_well=not lost)

    async def _verified(self, kept: Kept, mend: Callable[[str], Awaitable[bool]], progress: Progress) -> repair.Outcome:
        return await repair.verified(kept, bytes_per_s=_VERIFIED_BYTES_PER_S, mend=mend, progress=progress)

    async def _mend_metadata(self, sha256: str) -> bool:
        await self._staging.copy(sha256)
        return True

    async def _reclaim(self, means: Means, _job: Job, progress: Progress, _lease: Lease | None) -> Outcome:
        """Remove packages that no publication names any more."""
        await progress(0, 0, "looking at what publications name")
        needed = await means.keeping.packages_needed()
        before = await means.packages.kept.counted()
        freed = await means.packages.kept.reclaim(needed, older_than_s=_SPARED_S)
        said = f"{size(freed)} of {size(before)} of packages freed"
        return Outcome(said, {"freed_bytes": freed, "kept_bytes": before - freed})


def _left_out(paths: Collection[str]) -> str:
    if not paths:
        return ""
    first, more = shown(min(paths), 100), f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"; left out, for their paths are none that can be given: {first}{more}"


def _missed(what: Sequence[str]) -> str:
    """Say what of an installation tree is not there."""
    more = f", and {len(what) - _SAID} more" if len(what) > _SAID else ""
    return f"; of its tree is not here: {', '.join(what[:_SAID])}{more}" if what else ""


def _late(shown_s: float | None) -> str:
    return "" if shown_s is not None else "; clients do not get it yet: muster content status says why"


def _mirrored(means: Means, job: Job) -> Mirrored:
    mirrored = means.settings.repositories.get(job.repository)
    if mirrored is None:
        raise Rejected(
            f"{job.repository} is not mirrored: the cluster file of the member that was to do it, as it was when that "
            "started, does not name it; restart members after a change (muster roll)"
        )
    return mirrored


async def _mend_package(means: Means, sha256: str) -> bool:
    wanted = await means.keeping.wanted(sha256)
    if wanted is None:
        # No publication names it any more: nobody misses it.
        return False
    await means.packages.fetch(wanted)
    return True
