"""Do clients get the same version of a repository from this member as from all others?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.content.following import Following

_WITHIN_S = 0.5


class RepositoriesFollowed(Duty):
    """Follows what clients fetch. Takes content out while this member is behind the others; the only one stays."""

    name = "repositories"
    # It waits within its beat, where it hears that somebody waits for it.
    every_s = 0.02

    def __init__(self, following: Following, services: Sequence[str]) -> None:
        self.following = self._following = following
        self._services = services
        self._is_first = True

    async def beat(self) -> None:
        if not self._is_first:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WITHIN_S):
                    await self._following.woken.wait()
        self._is_first = False
        await self._following.beat()

    def found(self) -> Found:
        why, note = self._following.trouble, self._following.note
        if why and not self._following.is_alone:
            return Found(dict.fromkeys(self._services, why))
        # A sentence about what does not come is part of the other one.
        said = why or note
        return Found(notes=(said,)) if said else NOTHING

    async def end(self) -> None:
        await self._following.close()
