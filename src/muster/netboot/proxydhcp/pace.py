"""How many questions are answered in a second: of all machines together, and of one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# A machine asks four times within half a minute; it may be that one of several systems on it asks at the same time.
ONE_PER_S, ONE_AT_ONCE = 5.0, 10.0
_MOST_SOURCES = 4096


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float

    def take(self, now: float, per_s: float, at_once: float) -> bool:
        self.left = min(at_once, self.left + max(0.0, now - self.at) * per_s)
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Pace:
    """Counts questions by what names who asks; memory is bounded, who asked longest ago is forgotten first."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._all = _Bucket(2 * per_s, 0.0)
        self._sources: OrderedDict[bytes, _Bucket] = OrderedDict()

    def allows(self, source: bytes, now: float) -> bool:
        """Count a question, and say whether it may be answered; ``now`` is in seconds, and never goes back."""
        bucket = self._sources.pop(source, None) or _Bucket(ONE_AT_ONCE, now)
        self._sources[source] = bucket
        if len(self._sources) > _MOST_SOURCES:
            self._sources.popitem(last=False)
        # One that asks too often must not use up what is left for the others.
        return bucket.take(now, ONE_PER_S, ONE_AT_ONCE) and self._all.take(now, self._per_s, 2 * self._per_s)
