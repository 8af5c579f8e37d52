"""Where certificate requests come from, and how many of one source are taken."""

from __future__ import annotations

import time
from collections import OrderedDict

from muster.kernel.errors import Unavailable

_WINDOW_S = 60.0
_SOURCES = 10_000


class Rates:
    """How many requests each source made within the last minute; old sources are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, source: str) -> None:
        """Count one.

        Raises:
            Unavailable: it is one too many.
        """
        if not self._limit:
            return
        now = time.monotonic()
        since, count = self._counts.pop(source, (now, 0))
        if now - since > _WINDOW_S:
            since, count = now, 0
        self._counts[source] = since, count + 1
        if len(self._counts) > _SOURCES:
            self._counts.popitem(last=False)
        if count >= self._limit:
            raise Unavailable(f"{source} sent {self._limit} certificate requests within a minute; try again later")
