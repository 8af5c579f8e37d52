"""Which versions of which repositories lie whole on this member's disk, and what is being done to bring others there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from muster.content.manifest import Manifest
from muster.content.staging import Staging
from muster.content.views import Views
from muster.kernel import log
from muster.kernel.errors import MusterError

_log = log.logger("content")

_AT_ONCE = 4
# What failed is begun again no sooner.
_AGAIN_S = 2.0


class Shelf:
    """One member's. Use :meth:`close`.

    Args:
        came: is called when something came, or did not.

    Concurrency: one loop; each version is brought by one task.
    """

    def __init__(self, views: Views, staging: Staging, came: Callable[[], None]) -> None:
        self._views, self._staging, self._came = views, staging, came
        # By path and version: the digest of its manifest.
        self._whole: dict[str, dict[str, str]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    def has(self, path: str, version: str) -> bool:
        """Whether a version is here, whole."""
        return version in self._whole.get(path, {})

    def whole(self, path: str) -> Mapping[str, str]:
        """Return the versions of a repository that are here: their manifests."""
        return self._whole.get(path, {})

    def are_alike(self, path: str, version: str, other: str) -> bool:
        """Whether two versions of a repository are here and name the same packages."""
        whole = self.whole(path)
        found = [self._manifests.get(whole.get(v, "")) for v in (version, other)]
        return None not in found and len({m.packages for m in found if m is not None}) == 1

    def trouble(self, path: str, version: str = "") -> str:
        """Return why a version of a repository, or any of it, does not come; empty: nothing keeps it."""
        return next((why for (p, v), (_, why) in self._failed.items() if p == path and version in ("", v)), "")

    def bring_own(self, path: str, version: str, body: bytes, certificate: bytes | None, manifest: str | None) -> None:
        """Begin to bring the version that the own Pulp has now, unless that is under way.

        ``manifest`` is what the store says of it; None: nothing yet.
        """

        async def bring() -> None:
            if manifest is not None and (found := await self._found(manifest)) is not None:
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
            found = await self._found(manifest)
            self._place(path, version, manifest, found or await self._staging.copied(manifest))

        if not self.has(path, version):
            self._begin(path, version, bring)

    async def look(self, path: str, versions: Mapping[str, str]) -> None:
        """Find what the disk has of these versions, by their manifests; nothing is asked of anybody."""
        for version, manifest in versions.items():
            if not self.has(path, version) and (found := await self._found(manifest)) is not None:
                self._place(path, version, manifest, found)

    def needed(self, manifests: Iterable[str]) -> frozenset[str]:
        """Return what lies on the disk for these manifests, as far as they are known here."""
        found = [self._manifests[m].needed for m in manifests if m in self._manifests]
        return frozenset(manifests).union(*found)

    def drop(self, path: str, kept: Iterable[str]) -> None:
        """Forget the versions of a repository but these."""
        whole = self._whole.get(path, {})
        for version in whole.keys() - frozenset(kept):
            self._manifests.pop(whole.pop(version), None)
        for key in [k for k in self._failed if k[0] == path and k[1] not in whole]:
            del self._failed[key]

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _found(self, manifest: str) -> Manifest | None:
        """Return a manifest all of whose files are on the disk."""
        found = self._manifests.get(manifest) or await self._staging.manifest(manifest)
        return found if found is not None and await self._staging.has(found) else None

    def _place(self, path: str, version: str, manifest: str, found: Manifest) -> None:
        self._manifests[manifest] = found
        self._whole.setdefault(path, {})[version] = manifest

    def _begin(self, path: str, version: str, bring: Callable[[], Coroutine[Any, Any, None]]) -> None:
        key = (path, version)
        not_before, _ = self._failed.get(key, (0.0, ""))
        if key in self._tasks or time.monotonic() < not_before:
            return
        self._tasks[key] = asyncio.create_task(self._bring(key, bring), name="stage")

    async def _bring(self, key: tuple[str, str], bring: Callable[[], Coroutine[Any, Any, None]]) -> None:
        path, version = key
        try:
            async with self._room:
                await bring()
        except (MusterError, TimeoutError, OSError) as e:
            why = str(e) or "it took too long"
            if key not in self._failed:
                _log.warning("A version of a repository did not come", path=path, version=version[:12], why=why)
            self._failed[key] = (time.monotonic() + _AGAIN_S, why)
        except Exception as e:  # noqa: BLE001 - boundary: what one repository breaks must not end the others
            _log.exception("Bringing a version of a repository broke", path=path, version=version[:12])
            self._failed[key] = (time.monotonic() + _AGAIN_S, f"{type(e).__name__}: {e}")
        else:
            self._failed.pop(key, None)
        finally:
            del self._tasks[key]
            self._came()
