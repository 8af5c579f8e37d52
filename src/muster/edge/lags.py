"""How old is what a member knows of the servers that its features follow, as of a DHCP server's leases.

Who asks its server each time knows nothing older than the question, and does not stand here; who follows something, reading
on as it is written, says of which moment all is known, and why not of now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Lag:
    """How far behind a follower is.

    Attributes:
        age_s: how long ago it last knew that it knew all.
        limit_s: how long that is in order.
        why: why it is behind, where that is known.
    """

    age_s: float
    limit_s: float
    why: str = ""

    @property
    def is_late(self) -> bool:
        return self.age_s > self.limit_s


@dataclass(frozen=True)
class Following:
    """One follower.

    Attributes:
        word: the provider's.
        name: its name in a group; empty: it is alone.
    """

    feature: str
    word: str
    name: str
    lag: Lag


class Lags:
    """The followers of one member.

    Concurrency: asking costs no call, and is done in any thread, as metrics are.
    """

    def __init__(self) -> None:
        self._followers: dict[tuple[str, str, str], Callable[[], Lag]] = {}

    @contextlib.contextmanager
    def told(self, feature: str, word: str, name: str, lag: Callable[[], Lag]) -> Iterator[None]:
        """Ask this follower, too, for the length of the block."""
        self._followers[feature, word, name] = lag
        try:
            yield
        finally:
            del self._followers[feature, word, name]

    def now(self) -> list[Following]:
        """Return how each follower is now."""
        return [Following(*who, lag()) for who, lag in list(self._followers.items())]
