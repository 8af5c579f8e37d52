"""What the calls under way may hold of this member's memory, all listeners together."""

from __future__ import annotations

from muster.kernel.errors import Unavailable


class Budget:
    """Counts bytes of bodies that are not whole, of requests that wait, and of replies that were not sent yet.

    Each of them has a limit of its own; this one bounds how many may be near theirs at once.

    Concurrency: one event loop.
    """

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size: int) -> bool:
        """Count so many bytes more; false, and nothing was counted, when that is too much."""
        if self.held_bytes + size > self.limit_bytes:
            return False
        self.held_bytes += size
        return True

    def give(self, size: int) -> None:
        """Count bytes taken before no longer."""
        self.held_bytes -= size


class Held:
    """What one call, or one question that several wait for, holds of it; None: nothing is counted."""

    __slots__ = ("_budget", "_bytes")

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._bytes = 0

    def hold(self, size: int) -> None:
        """Count so many bytes until :meth:`release`.

        Raises:
            Unavailable: unfinished calls hold too much.
        """
        budget = self._budget
        if budget is not None and size:
            if not budget.take(size):
                raise Unavailable(
                    f"Calls under way hold {budget.held_bytes >> 20} of {budget.limit_bytes >> 20} MiB "
                    "(edge.memory_bytes); try again"
                )
            self._bytes += size

    def release(self) -> None:
        """Count what was held no longer."""
        if self._budget is not None and self._bytes:
            self._budget.give(self._bytes)
            self._bytes = 0
