"""The origins of what is mirrored, each opened when it is asked for first."""

from __future__ import annotations

import contextlib

from muster.cluster.mirror import Mirror
from muster.content.call import Asked
from muster.content.mirror import origin
from muster.content.mirror.pace import Pace
from muster.content.mirror.upstream import Upstream
from muster.kernel.errors import NotFound


class Origins:
    """One process's. Use it in a ``with``.

    Concurrency: one loop.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._stack = contextlib.AsyncExitStack()
        self._opened: dict[str, Asked] = {}
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
            found = self._opened[name] = Upstream(name, mirrored, one) if mirrored.kind == "container" else one
        return found
