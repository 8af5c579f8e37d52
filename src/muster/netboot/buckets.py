"""How many requests are answered: one bucket of tokens for all clients, one for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Literal

_CLIENTS: Final = 8192


@dataclass(slots=True)
class Bucket:
    """Holds up to ``most`` tokens, and gets ``per_s`` of them each second; full at first."""

    per_s: float
    most: float
    now: float
    _tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = self.most

    def take(self, now: float) -> bool:
        """Take a token; false: there is none."""
        self._tokens = min(self.most, self._tokens + max(0.0, now - self.now) * self.per_s)
        self.now = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Buckets:
    """The buckets of all clients, of whom so many are remembered as asked last.

    Args:
        each, all_: tokens a second, and the most at once: of one client, and of all together.
    """

    def __init__(
        self, each: tuple[float, float], all_: tuple[float, float], now: float, *, clients: int = _CLIENTS
    ) -> None:
        self._each = each
        self._all = Bucket(*all_, now)
        self._most = clients
        self._clients: OrderedDict[Hashable, Bucket] = OrderedDict()

    def full(self, client: Hashable, now: float) -> Literal["client rate", "rate"] | None:
        """Count one request; return which measure is full, None when it may be answered.

        A client that asks too often takes nothing from the others.
        """
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = Bucket(*self._each, now)
            if len(self._clients) > self._most:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        if not bucket.take(now):
            return "client rate"
        return None if self._all.take(now) else "rate"
