"""Which versions of which repositories lie whole on this member's disk, and what is being done to bring others there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from muster.content.kept import Full, Oversized
from muster.content.manifest import Manifest
from muster.content.metadata.malformed import Malformed
from muster.content.metrics import FollowingMetrics
from muster.content.staging import Staging
from muster.content.views import Views
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.tasks import ended

_log = log.logger("content")

_AT_ONCE = 4
# What failed is begun again no sooner.
_AGAIN_S = 2.0
# A disk that is full gets no emptier by being written to.
_FULL_AGAIN_S = 10.0
# The same bytes are the same the next time, and may be a gigabyte: what takes their place is another version.
_BROKEN_AGAIN_S = 300.0


Missing = Callable[[str, Manifest], Awaitable[str]]
"""Returns what of a version of a repository is not here that is no metadata, in words; empty: nothing."""


async def _nothing(_path: str, _manifest: Manifest) -> str:
    return ""


class _Failed(NamedTuple):
    """What did not come.

    Attributes:
        not_before: when it is tried again, by the loop's clock.
        since: when it failed first.
    """

    not_before: float
    since: float
    why: str


class Shelf:
    """One member's. Use :meth:`close`.

    Args:
        came: is called when something came, or did not.
        missing: what else has to be here before a version is.

    Concurrency: one loop; each version is brought by one task.
    """

    def __init__(
        self,
        views: Views,
        staging: Staging,
        came: Callable[[], None],
        counted: FollowingMetrics,
        missing: Missing = _nothing,
    ) -> None:
        self._views, self._staging, self._came, self._counted = views, staging, came, counted
        self._missing = missing
        # By path and version: the digest of its manifest.
        self._whole: dict[str, dict[str, str]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        # By path and version.
        self._failed: dict[str, dict[str, _Failed]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    def has(self, path: str, version: str) -> bool:
        """Whether a version is here, whole."""
        return version in self._whole.get(path, {})

    def whole(self, path: str) -> Mapping[str, str]:
        """Return the versions of a repository that are here: their manifests."""
        return self._whole.get(path, {})

    @property
    def paths(self) -> frozenset[str]:
        """The repositories of which something is here."""
        return frozenset(self._whole)

    @property
    def count(self) -> int:
        """How many versions are here."""
        return sum(map(len, self._whole.values()))

    def trouble(self, path: str, versions: Container[str | None], *, for_s: float = 0.0) -> str:
        """Return why one of these versions of a repository has not come for so long; empty: nothing keeps any."""
        until = time.monotonic() - for_s
        failed = self._failed.get(path, {}).items()
        return next((one.why for version, one in failed if version in versions and one.since <= until), "")

    def bring_own(self, path: str, version: str, body: bytes, certificate: bytes | None, manifest: str | None) -> None:
        """Begin to bring the version that the own Pulp has now, unless that is under way.

        ``manifest`` is what the store says of it; None: nothing yet.
        """

        async def bring() -> None:
            if manifest is not None and (found := await self._found(manifest)) is not None:
                await self._see_all(path, found)
                self._place(path, version, manifest, found)
                return
            staged = await self._staging.staged(path, body, certificate)
            digest = await self._staging.keep(staged)
            if manifest is None:
                # Whoever notes it first is believed; what the store has is looked at next.
                await self._views.know(path, [(staged.digest, staged.revision, staged.timestamp, digest)])
            elif digest == manifest:
                self._place(path, version, manifest, staged)
            else:
                # Other files beside, or none.
                self._place(path, version, manifest, await self._staging.copied(manifest))

        if not self.has(path, version):
            self._begin(path, version, bring)

    def bring(self, path: str, version: str, manifest: str) -> None:
        """Begin to bring a version that is known in the store, unless that is under way."""

        async def bring() -> None:
            found = await self._found(manifest) or await self._staging.copied(manifest)
            await self._see_all(path, found)
            self._place(path, version, manifest, found)

        if not self.has(path, version):
            self._begin(path, version, bring)

    async def look(self, path: str, versions: Mapping[str, str]) -> None:
        """Find what the disk has of these versions, by their manifests; nothing is asked of anybody."""
        for version, manifest in versions.items():
            found = await self._found(manifest) if not self.has(path, version) else None
            if found is not None and not await self._missing(path, found):
                self._place(path, version, manifest, found)

    async def see(self, path: str, version: str | None) -> None:
        """Forget a version that is no more whole on the disk, so that it is brought again."""
        whole = self._whole.get(path, {})
        if version is not None and version in whole and await self._found(whole[version]) is None:
            whole.pop(version, None)
            _log.warning("Files of a version of a repository are gone from the disk", path=path, version=version[:12])

    def have_same_packages(self, path: str, one: str | None, other: str | None) -> bool:
        """Whether two versions that are both here, and are not the same, name the same packages."""
        whole = self.whole(path)
        found = [self._manifests.get(whole.get(version or "", "")) for version in (one, other)]
        return one != other and None not in found and len({m.packages for m in found if m is not None}) == 1

    def needed(self, manifests: Iterable[str]) -> frozenset[str]:
        """Return what lies on the disk for these manifests, as far as they are known here."""
        found = [self._manifests[m].needed for m in manifests if m in self._manifests]
        return frozenset(manifests).union(*found)

    def drop(self, path: str, kept: Iterable[str]) -> None:
        """Forget the versions of a repository but these."""
        whole = self._whole.get(path, {})
        for version in whole.keys() - frozenset(kept):
            manifest = whole.pop(version)
            # Repositories may have versions in common: one content view in two lifecycle environments.
            if not any(manifest in one.values() for one in self._whole.values()):
                self._manifests.pop(manifest, None)
        if not whole:
            self._whole.pop(path, None)
        self._failed.pop(path, None)

    async def close(self) -> None:
        """End what is under way."""
        await ended(self._tasks.values())

    async def _see_all(self, path: str, found: Manifest) -> None:
        if why := await self._missing(path, found):
            raise Unavailable(why)

    async def _found(self, manifest: str) -> Manifest | None:
        """Return a manifest all of whose files are on the disk."""
        found = await self._staging.manifest(manifest)
        return found if found is not None and await self._staging.has(found) else None

    def _place(self, path: str, version: str, manifest: str, found: Manifest) -> None:
        self._manifests[manifest] = found
        self._whole.setdefault(path, {})[version] = manifest
        self._failed.get(path, {}).pop(version, None)

    def _begin(self, path: str, version: str, bring: Callable[[], Coroutine[Any, Any, None]]) -> None:
        key = (path, version)
        failed = self._failed.get(path, {}).get(version)
        if key in self._tasks or (failed is not None and time.monotonic() < failed.not_before):
            return
        self._tasks[key] = asyncio.create_task(self._bring(key, bring), name="stage")

    async def _bring(self, key: tuple[str, str], bring: Callable[[], Coroutine[Any, Any, None]]) -> None:
        path, version = key
        try:
            async with self._room:
                await bring()
        except (MusterError, TimeoutError, OSError) as e:
            why = str(e) or "it took too long"
            if version not in self._failed.get(path, {}):
                _log.warning("A version of a repository did not come", path=path, version=version[:12], why=why)
            self._fail(path, version, why, _again_s(e))
        except Exception as e:  # noqa: BLE001 - boundary: what one repository breaks must not end the others
            _log.exception("Bringing a version of a repository broke", path=path, version=version[:12])
            self._fail(path, version, f"{type(e).__name__}: {e}", _AGAIN_S)
        else:
            self._counted.staged("brought")
            # Also of one that was only noted: it is placed the next time.
            self._failed.get(path, {}).pop(version, None)
        finally:
            del self._tasks[key]
            self._came()

    def _fail(self, path: str, version: str, why: str, again_s: float) -> None:
        self._counted.staged("failed")
        failed = self._failed.setdefault(path, {})
        now = time.monotonic()
        since = failed[version].since if version in failed else now
        failed[version] = _Failed(now + again_s, since, why)


def _again_s(why: Exception) -> float:
    if isinstance(why, Malformed | Oversized):
        return _BROKEN_AGAIN_S
    return _FULL_AGAIN_S if isinstance(why, Full) else _AGAIN_S
