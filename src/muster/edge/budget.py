"""What the calls under way may hold of this member's memory, all listeners together."""

from __future__ import annotations


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
