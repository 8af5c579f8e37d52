"""Environments in a dictionary: the contract without a server. It can be told to fail, and to be slow."""

from __future__ import annotations

import asyncio
from typing import Any

from muster.features.puppet.contract import Environment
from muster.kernel.errors import MusterError, NotFound


class MemoryPuppet:
    """Keeps what it was given.

    Attributes:
        failure: raised by every operation while set.
        slow: ``files`` waits for it while set.
        asked: how often ``files`` was asked.
    """

    def __init__(self) -> None:
        self.known: dict[str, list[dict[str, Any]]] = {"production": []}
        self.failure: MusterError | None = None
        self.slow: asyncio.Event | None = None
        self.asked = 0

    async def environments(self) -> list[Environment]:
        self._may_fail()
        return [Environment(n, (f"/etc/puppet/code/environments/{n}/modules",)) for n in self.known]

    async def files(self, environment: str) -> list[dict[str, Any]]:
        self.asked += 1
        if self.slow is not None:
            await self.slow.wait()
        self._may_fail()
        if environment not in self.known:
            raise NotFound(f"Could not find environment '{environment}'")
        return self.known[environment]

    async def reached(self) -> None:
        self._may_fail()

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure
