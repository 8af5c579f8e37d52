"""What a member has of what is mirrored: it stands for a Pulp, which is asked what it has of a repository.

A member carries a publication when all it has to have of it lies on its disk; until then it carries the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from muster.content.backend import Answer, once
from muster.content.call import Program
from muster.content.kept import Kept
from muster.content.known import Known
from muster.content.manifest import Manifest
from muster.content.mirror import paths

FILE = "mirror.json"
NAME = "the mirror"
_PIECE_BYTES = 256 << 10


class Carried:
    """One process's.

    Attributes:
        known: what is carried, by the paths at which clients get it; changed by whoever brings it.
    """

    def __init__(self, kept: Kept) -> None:
        self.known = Known()
        self._kept = kept

    def read(self, file: Path) -> None:
        """Take what was written of what is carried (:meth:`muster.content.known.Known.read`)."""
        self.known.read(file, or_stay=True)
        self.known.repositories = {path: one for path, one in self.known.repositories.items() if one.manifests}

    async def ask(self, method: str, path: str) -> Answer:
        """Return a file of what is carried, without its packages.

        Raises:
            Unavailable: the disk refused.
        """
        found = self.known.of(path)
        if found is None:
            return Answer.absent(NAME)
        at, below = found
        manifest = await self._kept.read(self.known.repositories[at].manifests[0])
        digest = Manifest.read(manifest).files.get(unquote(below)) if manifest is not None else None
        file = await self._kept.open(digest) if digest is not None else None
        if digest is None or file is None:
            return Answer.absent(NAME)
        # Its bytes are these and no others, so this is a strong validator.
        said = (("Content-Length", str(file.size)), ("ETag", f'"{digest}"'))
        if method == "HEAD":
            file.close()
            return Answer(NAME, 200, said, once(b""), lambda: None)

        async def pieces() -> AsyncGenerator[bytes, None]:
            for at in range(0, file.size, _PIECE_BYTES):
                yield await asyncio.to_thread(file.read, _PIECE_BYTES, at)

        return Answer(NAME, 200, said, pieces(), file.close)


class Fronted:
    """A Pulp, if there is one, and what is mirrored in front of it."""

    def __init__(self, pulp: Program | None, carried: Carried) -> None:
        self.carried = carried
        self._pulp = pulp

    @property
    def name(self) -> str:
        """Pulp's."""
        return self._pulp.name if self._pulp is not None else NAME

    @property
    def url(self) -> str:
        """Pulp's, where there is one."""
        return self._pulp.url if self._pulp is not None else ""

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Answer:
        """Return the answer of whoever has such paths; as :meth:`muster.content.backend.Backend.ask`."""
        if paths.is_mirrored(path):
            return await self.carried.ask(method, path.partition("?")[0])
        if self._pulp is None:
            return Answer.absent(NAME)
        return await self._pulp.ask(method, path, headers, body, length)
