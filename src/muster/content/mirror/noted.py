"""What one run puts on a disk, so that nothing of it stays where nothing comes of the run."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container
from pathlib import Path
from weakref import WeakKeyDictionary

from muster.content.kept import Kept

# By disk: how many runs of this process rely on a file, be it that they added it or found it.
_RELIED: WeakKeyDictionary[Kept, Counter[str]] = WeakKeyDictionary()


def is_relied_on(kept: Kept, sha256: str) -> bool:
    """Whether a run that goes on relies on a file of a disk; any thread may ask."""
    return sha256 in _RELIED.get(kept, ())


class Noted:
    """A disk as one run sees it. Use :meth:`close`. Concurrency: any number of runs of one loop at once."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._relied = _RELIED.setdefault(kept, Counter())
        self._mine: set[str] = set()
        self._added: set[str] = set()

    def close(self) -> None:
        """Rely on nothing any more."""
        for name in self._mine:
            self._relied[name] -= 1
            if not self._relied[name]:
                del self._relied[name]
        self._mine.clear()

    async def dropped(self, needed: Container[str], is_needed: Callable[[str], bool]) -> None:
        """Remove what this run added, unless it is needed, or another run relies on it.

        Raises:
            Unavailable: the disk refused.
        """
        for name in sorted(self._added):
            if name not in needed and self._relied[name] <= 1 and not is_needed(name):
                await self._kept.drop(name)

    async def add(
        self,
        pieces: AsyncIterator[bytes],
        *,
        algorithm: str = "sha256",
        digest: str | None,
        size: int | None = None,
        largest: int,
    ) -> str:
        """As :meth:`muster.content.kept.Kept.add`."""
        if digest is not None and algorithm == "sha256":
            await self._note(digest)
            return await self._kept.add(pieces, digest=digest, size=size, largest=largest)
        # Before it gets its name: who is cancelled then would not know it.
        async with contextlib.aclosing(self._named(pieces)) as coming:
            return await self._kept.add(coming, algorithm=algorithm, digest=digest, size=size, largest=largest)

    async def add_bytes(self, body: bytes) -> str:
        """As :meth:`muster.content.kept.Kept.add_bytes`."""
        await self._note(hashlib.sha256(body).hexdigest())
        return await self._kept.add_bytes(body)

    async def has(self, *sha256: str) -> bool:
        """As :meth:`muster.content.kept.Kept.has`; what is there stays while this run lasts, as far as runs drop it."""
        for name in sha256:
            self._rely(name)
        return await self._kept.has(*sha256)

    async def read(self, sha256: str) -> bytes | None:
        """As :meth:`muster.content.kept.Kept.read`."""
        return await self._kept.read(sha256)

    async def path(self, sha256: str) -> Path | None:
        """As :meth:`muster.content.kept.Kept.path`; what is damaged is removed, so that it is fetched the next time."""
        found = await self._kept.path(sha256)
        if found is None:
            await self._kept.drop(sha256)
        return found

    async def _named(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        hashed = hashlib.sha256()
        async for piece in pieces:
            hashed.update(piece)
            yield piece
        await self._note(hashed.hexdigest())

    async def _note(self, name: str) -> None:
        self._rely(name)
        if name not in self._added and not await self._kept.has(name):
            self._added.add(name)

    def _rely(self, name: str) -> None:
        if name not in self._mine:
            self._mine.add(name)
            self._relied[name] += 1
