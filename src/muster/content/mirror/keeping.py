"""Brings to one member's disk what clients are to get of what is mirrored, and says what it carries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from muster.cluster.mirror import Mirror
from muster.content.index import Expected, Index
from muster.content.kept import Full, Kept
from muster.content.known import Followed
from muster.content.manifest import Manifest
from muster.content.metadata.primary import Package
from muster.content.mirror import paths
from muster.content.mirror.carried import Carried
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.named import named
from muster.content.mirror.noted import is_relied_on
from muster.content.mirror.packages import Packages, Wanted
from muster.content.mirror.publications import Distribution
from muster.content.staging import Staging
from muster.content.views import Shown, Views
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.tasks import each, ended

_log = log.logger("content")

_AT_ONCE = 4
_PACKAGES_AT_ONCE = 8
_AGAIN_S = 2.0
_FULL_AGAIN_S = 10.0
_NOTED_S = 10.0


class _Failed(NamedTuple):
    """What did not come.

    Attributes:
        not_before: when it is tried again, by the loop's clock.
        since: when it failed first.
    """

    not_before: float
    since: float
    why: str
    is_said: bool


@dataclass(frozen=True)
class _Staying(Container[str]):
    """What of a disk stays: what publications need, and what a synchronisation that goes on relies on."""

    needed: Container[str]
    kept: Kept

    def __contains__(self, name: object) -> bool:
        return name in self.needed or is_relied_on(self.kept, str(name))


class Keeping:
    """One member's. Use :meth:`beat` again and again, :meth:`close` at the end.

    From when it is made, what it needs of ``packages`` is not removed to make room.

    Args:
        want: is told what this member carries, so that it becomes shown.
        told: is awaited when what is carried has changed.

    Attributes:
        note: what does not come to this disk, and why, in one sentence; empty: nothing.
        is_syncing: something is being fetched here that no publication names yet.

    Concurrency: one loop; beats do not overlap.
    """

    def __init__(
        self,
        settings: Mirror,
        ledger: Ledger,
        views: Views,
        staging: Staging,
        kept: Kept,
        packages: Packages,
        carried: Carried,
        *,
        want: Callable[[str, str], None],
        told: Callable[[], Awaitable[None]],
    ) -> None:
        self.note = ""
        self.is_syncing = False
        self._settings, self._ledger, self._views = settings, ledger, views
        self._staging, self._kept, self._packages, self._carried = staging, kept, packages, carried
        self._want, self._told = want, told
        self._rows: dict[str, Distribution] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, _Failed] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._is_untold = False
        # Manifests that this process has seen to be here, with all that they need: a disk that was stopped may have lost
        # something, and the policy may be another one.
        self._seen: dict[str, str] = {}
        # Indexes all of whose packages have to be here, and are.
        self._whole: set[str] = set()
        self._last_named: tuple[str, tuple[Package, ...]] = ("", ())
        packages.needed = self._staying

    async def beat(self) -> None:
        """Look at what clients are to get; what is not here is brought beside.

        Raises:
            Unavailable: the store does not answer; what is carried stays.
        """
        rows = await self._ledger.distributions()
        # What the cluster file does not name any more has no way to its packages.
        self._rows = {path: row for path, row in rows.items() if row.repository in self._settings.repositories}
        known = self._carried.known
        left = {path: followed for path, followed in known.repositories.items() if path in self._rows}
        if left != known.repositories:
            known.repositories = left
            self._is_untold = True
        now = asyncio.get_running_loop().time()
        for path, row in self._rows.items():
            failed = self._failed.get(path)
            if self._carries(row) or path in self._tasks or (failed is not None and failed.not_before > now):
                continue
            self._tasks[path] = asyncio.create_task(self._bring_whole(row), name="mirror")
        self._failed = {path: failed for path, failed in self._failed.items() if path in self._rows}
        self._seen = {path: manifest for path, manifest in self._seen.items() if path in self._rows}
        await self._say()
        # Where it was published a moment ago, no other member may be known to have it yet.
        waiting = [f"{path}: {f.why}" for path, f in sorted(self._failed.items()) if now - f.since > _NOTED_S]
        more = f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        self.note = f"what is mirrored does not come to this disk: {waiting[0]}{more}" if waiting else ""

    async def close(self) -> None:
        """End what is under way."""
        await ended(self._tasks.values())

    def look_again(self) -> None:
        """Let the next beat look whether all is here still: something was lost."""
        self._seen.clear()
        self._whole.clear()

    def is_of(self, path: str) -> bool:
        """Whether a repository is one of these."""
        return paths.is_mirrored(path)

    async def carried(self, path: str) -> Shown | None:
        """Return what this member carries, as if it were shown; None: nothing."""
        found = self._carried.known.repositories.get(path)
        manifest = await self._staging.manifest(found.manifests[0]) if found is not None else None
        return Shown(manifest.digest, found.manifests[0]) if found is not None and manifest is not None else None

    async def missing(self, path: str, manifest: Manifest) -> str:
        """Return what of a version is not on this disk that is no metadata and has to be; empty: nothing."""
        place = paths.split(path)
        mirrored = self._settings.repositories.get(place[0].name) if place is not None else None
        if mirrored is None or mirrored.policy != "immediate" or manifest.packages in self._whole:
            return ""
        packages = await self._named(path, manifest)
        if not await self._packages.kept.has(*(p.digest for p in packages if p.algorithm == "sha256")):
            return "not all of its packages are here yet"
        # Those of what is published are never removed to make room.
        self._whole.add(manifest.packages)
        return ""

    async def needed(self) -> frozenset[str] | None:
        """Return what has to stay on this disk of metadata, by SHA-256; None: that is not known at this moment.

        What comes to be relied on later stays, too (:meth:`is_relied_on`).
        """
        if self.is_syncing:
            return None
        manifests = await self._manifests()
        found = set(manifests)
        for digest in manifests:
            manifest = await self._staging.manifest(digest)
            if manifest is not None:
                found |= manifest.needed
        return frozenset(found)

    def is_relied_on(self, sha256: str) -> bool:
        """Whether a synchronisation that goes on relies on a file of metadata; any thread may ask."""
        return is_relied_on(self._kept, sha256)

    async def _staying(self) -> Container[str]:
        return _Staying(await self.packages_needed(immediate_alone=True), self._packages.kept)

    async def packages_needed(self, *, immediate_alone: bool = False) -> frozenset[str]:
        """Return the packages that a publication names, by SHA-256."""
        found: set[str] = set()
        for publication in await self._ledger.publications():
            mirrored = self._settings.repositories.get(publication.repository)
            if mirrored is None or (immediate_alone and mirrored.policy != "immediate"):
                continue
            for digest in publication.parts.values():
                manifest = await self._staging.manifest(digest)
                if manifest is not None and manifest.packages:
                    found |= await self._indexed(manifest.packages)
        return frozenset(found)

    async def wanted(self, sha256: str) -> Wanted | None:
        """Return which package of what is published has these bytes; None: none."""
        for publication in await self._ledger.publications():
            mirrored = self._settings.repositories.get(publication.repository)
            for part, digest in publication.parts.items() if mirrored is not None else ():
                manifest = await self._staging.manifest(digest)
                if mirrored is None or manifest is None or not manifest.packages:
                    continue
                if sha256 not in await self._indexed(manifest.packages):
                    continue
                path = paths.at(self._settings.environments[0], mirrored.kind, publication.repository, part)
                for one in (await named(self._kept, path, manifest)).packages.values():
                    if one.digest == sha256:
                        expected = Expected(one.size, "sha256", sha256)
                        return Wanted(publication.repository, f"/{quote(one.href)}", expected)
        return None

    async def _manifests(self) -> frozenset[str]:
        published = await self._ledger.publications()
        rows = await self._ledger.distributions()
        return frozenset(m for p in published for m in p.parts.values()) | {r.manifest for r in rows.values()}

    def _carries(self, row: Distribution) -> bool:
        found = self._carried.known.repositories.get(row.path)
        return self._seen.get(row.path) == row.manifest and found is not None and found.manifests[0] == row.manifest

    async def _bring_whole(self, row: Distribution) -> None:
        try:
            async with self._room:
                await self._bring(row)
            self._failed.pop(row.path, None)
        except (MusterError, TimeoutError, OSError) as e:
            self._fail(row.path, str(e) or "it took too long", _FULL_AGAIN_S if isinstance(e, Full) else _AGAIN_S)
        except Exception as e:  # noqa: BLE001 - boundary: what one repository breaks must not end the others
            _log.exception("Bringing a publication broke", path=row.path)
            self._fail(row.path, f"{type(e).__name__}: {e}", _FULL_AGAIN_S)
        finally:
            del self._tasks[row.path]

    def _fail(self, path: str, why: str, again_s: float) -> None:
        now = asyncio.get_running_loop().time()
        before = self._failed.get(path)
        since = before.since if before is not None else now
        is_said = before is not None and before.is_said
        if now - since > _NOTED_S and not is_said:
            _log.warning("A publication does not come", path=path, why=why)
            is_said = True
        self._failed[path] = _Failed(now + again_s, since, why, is_said)

    async def _bring(self, row: Distribution) -> None:
        manifest = await self._staging.manifest(row.manifest)
        # What keeps it away may be a file that is there, and damaged.
        if manifest is None or row.path in self._failed or not await self._staging.has(manifest):
            manifest = await self._staging.copied(row.manifest)
        mirrored = self._settings.repositories[row.repository]
        if mirrored.policy == "immediate":
            await self._bring_packages(row, manifest)
        shown = await self._views.shown(row.path)
        if shown is None or shown.manifest != row.manifest:
            # Before it is carried, so that nobody judges it by what its metadata says of its age.
            await self._views.want(row.path, manifest.digest, row.manifest, since=row.since)
        known = self._carried.known
        known.repositories = {**known.repositories, row.path: Followed((row.manifest,), is_open=True)}
        self._seen[row.path] = row.manifest
        self._is_untold = True
        if shown is None or shown.manifest != row.manifest:
            self._want(row.path, row.manifest)
        await self._say()

    async def _bring_packages(self, row: Distribution, manifest: Manifest) -> None:
        wanted = [
            Wanted(row.repository, f"/{quote(p.href)}", Expected(p.size, "sha256", p.digest))
            for p in await self._named(row.path, manifest) if p.algorithm == "sha256"
        ]  # fmt: skip

        async def bring(one: Wanted) -> None:
            if not await self._packages.kept.has(one.expected.digest):
                await self._packages.fetch(one)

        await each(wanted, bring, at_once=_PACKAGES_AT_ONCE)

    async def _named(self, path: str, manifest: Manifest) -> tuple[Package, ...]:
        """Return the packages that a version names; asked again and again until they are here, they are read once."""
        if self._last_named[0] != manifest.packages:
            found = await named(self._kept, path, manifest)
            self._last_named = manifest.packages, tuple(found.packages.values())
        return self._last_named[1]

    async def _indexed(self, digest: str) -> frozenset[str]:
        path = await self._kept.path(digest)
        if path is None:
            return frozenset()

        def read() -> frozenset[str]:
            with contextlib.closing(Index.opened(path)) as index:
                return frozenset(e.digest for e in index if e.algorithm == "sha256")

        return await asyncio.to_thread(read)

    async def _say(self) -> None:
        if not self._is_untold:
            return
        self._is_untold = False
        try:
            await self._told()
        except Unavailable:
            self._is_untold = True
            raise
