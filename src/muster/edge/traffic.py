"""What this member answered lately, by service: calls, errors, how long they took, and what its checks said.

A ring per service of ten-second slots over the last hour, of a fixed size: about 17 KB a service. Counting costs a call one
look-up and a search among ten bounds. Slots begin at multiples of ten seconds of the clock, so that those of several
members meet.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Rejected

SLOT_S = 10
SLOTS = 360
STEPS_S = (10, 60)
"""How long a slot may be that is told; the longer one joins six."""

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""A call is counted in the first bucket that it is not slower than; what is slower than all, in one more."""

STATES = "-rdu"
"""What checks said in a slot: nothing, ready, draining, unready; of several the last in this order."""

_STATE = {"ready": "r", "draining": "d", "unready": "u"}
_WIDTH = 2 + len(BOUNDS_S) + 1
_SERVER_ERROR = 500

Counts = dict[str, list[int]]
"""By service: calls, errors, calls by bucket."""


@dataclass
class _Ring:
    """One service's last hour; the slot of a time is at its number modulo ``SLOTS``."""

    counts: array[int] = field(default_factory=lambda: array("I", bytes(4 * _WIDTH * SLOTS)))
    states: bytearray = field(default_factory=lambda: bytearray(b"-" * SLOTS))

    def clear(self, slot: int) -> None:
        at = slot % SLOTS
        self.counts[at * _WIDTH : (at + 1) * _WIDTH] = array("I", bytes(4 * _WIDTH))
        self.states[at] = ord("-")

    def shift(self, slots: int) -> None:
        """Have everything be so many slots earlier."""
        first = slots % SLOTS
        self.counts = self.counts[first * _WIDTH :] + self.counts[: first * _WIDTH]
        self.states = self.states[first:] + self.states[:first]

    def row(self, slot: int) -> array[int]:
        at = slot % SLOTS
        return self.counts[at * _WIDTH : (at + 1) * _WIDTH]


class Traffic:
    """The rings of one process.

    Concurrency: one loop.
    """

    def __init__(self, clock: Clock | None = None, member: str = "") -> None:
        self.member = member
        self._clock = clock or SystemClock()
        self._rings: dict[str, _Ring] = {}
        self._open: Counts = {}
        self._worst: dict[str, str] = {}
        self._latest = self._now()
        self._began = self._latest

    def count(self, service: str, status: int, seconds: float) -> None:
        """Count a call that was answered."""
        row = self._open.get(service)
        if row is None:
            row = self._open[service] = [0] * _WIDTH
        row[0] += 1
        if status >= _SERVER_ERROR:
            row[1] += 1
        row[2 + bisect_left(BOUNDS_S, seconds)] += 1

    def judge(self, states: Mapping[str, str]) -> None:
        """Note what checks of services say: ``ready``, ``draining`` or ``unready``."""
        for service, state in states.items():
            said = _STATE.get(state, "-")
            if STATES.index(said) > STATES.index(self._worst.get(service, "-")):
                self._worst[service] = said

    def take(self) -> Counts:
        """Remove and return what was counted since this, or :meth:`turn`, was called last."""
        taken, self._open = self._open, {}
        return taken

    def add(self, counted: Mapping[str, Sequence[int]]) -> None:
        """Count what another process of this member has counted."""
        for service, row in counted.items():
            if len(row) == _WIDTH:
                mine = self._open.setdefault(service, [0] * _WIDTH)
                for at, n in enumerate(row):
                    mine[at] += int(n)

    def turn(self) -> None:
        """Put what was counted into the slot of now; called about every ten seconds."""
        now = self._now()
        if now < self._latest:
            # A clock that was ahead, by seconds or by a month, was set right: what it wrote was earlier, too.
            for ring in self._rings.values():
                ring.shift(self._latest - now)
            self._latest = now
        for ring in self._rings.values():
            for slot in range(max(self._latest + 1, now - SLOTS + 1), now + 1):
                ring.clear(slot)
        self._latest = now
        counted, worst = self.take(), self._worst
        self._worst = {}
        for service in counted.keys() | worst.keys():
            ring = self._rings.setdefault(service, _Ring())
            at = now % SLOTS
            for column, n in enumerate(counted.get(service, ())):
                # Ends of what four bytes hold are far beyond what a member answers in ten seconds.
                ring.counts[at * _WIDTH + column] += n
            before = chr(ring.states[at])
            ring.states[at] = ord(max(before, worst.get(service, "-"), key=STATES.index))

    def told(self, since: float = 0.0, step_s: int = 60) -> dict[str, Any]:
        """Return slots of ``step_s`` seconds, oldest first, those that end after ``since`` (seconds since the epoch).

        The newest may not be over.
        """
        wide = step_s // SLOT_S
        last = self._latest // wide
        first = max(last - SLOTS // wide + 1, int(since // step_s))
        steps = range(min(first, last), last + 1)
        services = {name: self._of(ring, steps, wide) for name, ring in sorted(self._rings.items())}
        return {
            "member": self.member,
            "step_s": step_s,
            "from": steps.start * step_s,
            "bounds_ms": [round(b * 1000) for b in BOUNDS_S],
            "services": services,
        }

    def _of(self, ring: _Ring, steps: range, wide: int) -> dict[str, Any]:
        calls, errors, buckets, states = [], [], [], []
        for step in steps:
            slots = [s for s in range(step * wide, (step + 1) * wide) if self._latest - SLOTS < s <= self._latest]
            rows = [ring.row(s) for s in slots]
            joined = [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * _WIDTH
            calls.append(joined[0])
            errors.append(joined[1])
            buckets.append(joined[2:] if joined[0] else [])
            states.append(max((chr(ring.states[s % SLOTS]) for s in slots), key=STATES.index, default="-"))
        return {"calls": calls, "errors": errors, "buckets": buckets, "states": "".join(states)}

    def _now(self) -> int:
        return int(self._clock.now().timestamp()) // SLOT_S


def added(rows: Iterable[Sequence[int]]) -> list[int]:
    """Return the sum of buckets; an empty one stands for none."""
    found = [0] * (len(BOUNDS_S) + 1)
    for row in rows:
        for at, n in enumerate(row):
            found[at] += n
    return found


def below_ms(buckets: Sequence[int], share: float = 0.95) -> float | None:
    """Return the bound, in ms, that so much of the calls were not slower than; None without calls.

    Of calls slower than the last bound that bound is returned: they took at least as long.
    """
    total = sum(buckets)
    if not total:
        return None
    reached = 0
    for at, n in enumerate(buckets):
        reached += n
        if reached >= share * total:
            return BOUNDS_S[min(at, len(BOUNDS_S) - 1)] * 1000
    return BOUNDS_S[-1] * 1000


async def rings(traffic: Traffic, request: Request) -> Reply:
    """Answer ``/cluster/rings.json?since=SECONDS&step_s=60``."""
    query = request.query()
    since, step = query.get("since", "0"), query.get("step_s", "60")
    if not (isinstance(since, str) and since.isascii() and since.isdigit() and len(since) <= 12):
        raise Rejected("since is no number of seconds since the epoch")
    if step not in {str(s) for s in STEPS_S}:
        raise Rejected(f"step_s is one of {', '.join(map(str, STEPS_S))}")
    return json_reply(traffic.told(float(since), int(str(step))))
