"""Moments as the page shows them: in UTC, to the minute, and to a program exactly that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self


@dataclass(frozen=True)
class Moment:
    """A point in time, for ``<time datetime="machine">words</time>``."""

    machine: str
    words: str

    @classmethod
    def of(cls, at: datetime, *, to: str = "minute") -> Self:
        """Return a moment to the ``second``, ``minute`` or ``day``."""
        at = at.astimezone(UTC)
        if to == "day":
            return cls(f"{at:%Y-%m-%d}", f"{at:%Y-%m-%d}")
        if to == "second":
            return cls(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%H:%M:%S}")
        # What is told as an age begins a little earlier or later each time it is computed.
        at = (at + timedelta(seconds=30)).replace(second=0, microsecond=0)
        return cls(f"{at:%Y-%m-%dT%H:%MZ}", f"{at:%Y-%m-%d %H:%M} UTC")

    @classmethod
    def ago(cls, now: datetime, age_s: float) -> Self:
        """Return the moment so long before now, to the minute."""
        return cls.of(now - timedelta(seconds=age_s))
