"""How fast a member fetches from origins, from all of them together."""

from __future__ import annotations

from muster.kernel.clock import Clock, SystemClock

# As much may come at once as otherwise in so long; pieces are smaller.
_BURST_S = 0.25


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
