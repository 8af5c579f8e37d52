"""Deadline: nobody waits for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from muster.kernel.errors import Unavailable
from muster.policy.chain import Call
from muster.policy.marks import Operation


@dataclass(frozen=True)
class Deadline:
    """Cancel an operation, all its attempts included, after ``seconds``.

    Raises:
        Unavailable: it took longer; whether a change happened is unknown.
    """

    seconds: float

    async def __call__(self, operation: Operation, call: Call) -> Any:
        try:
            async with asyncio.timeout(self.seconds) as limit:
                return await call()
        except TimeoutError as e:
            if not limit.expired():
                raise
            raise Unavailable(f"{operation} did not finish within {self.seconds:g} s") from e
