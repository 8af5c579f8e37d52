"""The origins of what is mirrored, each opened when it is asked for first.

How long what passes through to a client takes is the client's to say, so those never have all connections of an origin:
some are left for what comes to the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from muster.cluster.mirror import Mirror
from muster.content.backend import Answer
from muster.content.call import Asked
from muster.content.kept import Kept
from muster.content.mirror import origin
from muster.content.mirror.upstream import Upstream
from muster.kernel.errors import NotFound, Unavailable
from muster.kernel.pace import Pace


class Origins:
    """One process's. Use it in a ``with``.

    Args:
        kept: where metadata lies that is here already.

    Concurrency: one loop.
    """

    def __init__(self, mirror: Mirror, kept: Kept) -> None:
        self._mirror, self._kept = mirror, kept
        self._stack = contextlib.AsyncExitStack()
        self._opened: dict[str, Asked] = {}
        self._passing: dict[str, Asked] = {}
        # All of them together have one pace.
        self._pace = Pace(mirror.bytes_per_s) if mirror.bytes_per_s is not None else None

    async def __aenter__(self) -> Origins:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def of(self, name: str) -> Asked:
        """Return where a repository is fetched from.

        Raises:
            NotFound: there is none of that name in the cluster file that this process was started with.
        """
        found = self._opened.get(name)
        if found is None:
            mirrored = self._mirror.repositories.get(name)
            if mirrored is None:
                raise NotFound(
                    f"This member mirrors no {name}: its cluster file, as it was when it started, names none"
                )
            opening = origin.opened(name, mirrored, self._mirror, pace=self._pace)
            one = await self._stack.enter_async_context(opening)
            is_registry = mirrored.kind == "container"
            found = self._opened[name] = Upstream(name, mirrored, one, kept=self._kept.read) if is_registry else one
        return found

    async def passing(self, name: str) -> Asked:
        """As :meth:`of`, for what passes through to clients: half of the connections at most.

        Who finds all of those taken for as long as an origin may be silent gets Unavailable.
        """
        found = self._passing.get(name)
        if found is None:
            most = max(1, self._mirror.connections // 2)
            found = self._passing[name] = _Passing(await self.of(name), most, self._mirror.timeout_s)
        return found


class _Passing:
    """An origin as clients have it asked."""

    def __init__(self, origin: Asked, most: int, patience_s: float) -> None:
        self.name, self.url = origin.name, origin.url
        self._origin, self._most, self._patience_s = origin, most, patience_s
        self._rooms = asyncio.Semaphore(most)

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._rooms.acquire()
        except TimeoutError:
            raise Unavailable(
                f"{self.name} was not asked: {self._most} clients have been fetching from it through this member for "
                f"{self._patience_s:g} s"
            ) from None
        try:
            answer = await self._origin.ask(method, path, headers)
        except BaseException:
            self._rooms.release()
            raise
        return answer.releasing(self._rooms.release)
