"""How fast something may come or go, and how slow."""

from __future__ import annotations

from muster.kernel.clock import Clock, SystemClock

# As much may come at once as otherwise in so long; pieces are smaller.
_BURST_S = 0.25
# Over so long the least pace is an average: who stalls for a moment, or begins slowly, makes up for it.
_AVERAGED_S = 60.0


class Pace:
    """So many bytes in a second, whoever of one process moves them.

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


class Least:
    """Whether what comes does so at a least pace, averaged over a minute.

    Attributes:
        came: bytes so far.
        waited_s: seconds that they took.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self.came, self.waited_s = 0, 0.0
        self._bytes_per_s = bytes_per_s
        self._left_s = _AVERAGED_S

    def is_kept(self, count: int, took_s: float) -> bool:
        """Count a piece that was waited for so long; false: that was too slow."""
        self.came, self.waited_s, self._left_s = self.came + count, self.waited_s + took_s, self._left_s - took_s
        if self._left_s <= 0:
            return False
        self._left_s = min(_AVERAGED_S, self._left_s + count / self._bytes_per_s)
        return True
