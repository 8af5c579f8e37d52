"""How fast a member fetches from origins, from all of them together; and how slow one may be."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from muster.content.backend import GatewayTimeout
from muster.kernel.clock import Clock, SystemClock

# As much may come at once as otherwise in so long; pieces are smaller.
_BURST_S = 0.25
# Over so long the least pace is an average: who stalls for a moment, or begins slowly, makes up for it.
_AVERAGED_S = 60.0


class Pace:
    """So many bytes in a second, whoever of one process fetches them.

    Concurrency: any number of tasks of one loop; who came first goes on first.
    """

    def __init__(self, bytes_per_s: float, *, clock: Clock | None = None) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock if clock is not None else SystemClock()
        # When all that was taken would have come at this pace.
        self._due = self._clock.monotonic()

    async def take(self, count: int) -> None:
        """Return when so many bytes more may have come; whoever does not wait for it has taken them all the same."""
        now = self._clock.monotonic()
        self._due = max(self._due, now - _BURST_S) + count / self._bytes_per_s
        if self._due > now:
            await self._clock.sleep(self._due - now)


async def no_slower(
    pieces: AsyncGenerator[bytes, None], least_bytes_per_s: float, at: str, *, clock: Clock
) -> AsyncGenerator[bytes, None]:
    """Yield what comes, as long as it comes at a least pace; the time that whoever takes it needs does not count.

    Raises:
        GatewayTimeout: it is slower, ``at`` being who.
    """
    left_s, waited_s, came = _AVERAGED_S, 0.0, 0
    async with contextlib.aclosing(pieces) as coming:
        asked = clock.monotonic()
        async for piece in coming:
            took_s = clock.monotonic() - asked
            waited_s, came, left_s = waited_s + took_s, came + len(piece), left_s - took_s
            if left_s <= 0:
                raise GatewayTimeout(
                    f"{at} is too slow: {came} bytes came in {waited_s:.0f} s, and it has to give "
                    f"{least_bytes_per_s:g} a second, averaged over a minute (content.mirror.least_bytes_per_s)"
                )
            left_s = min(_AVERAGED_S, left_s + len(piece) / least_bytes_per_s)
            yield piece
            asked = clock.monotonic()
