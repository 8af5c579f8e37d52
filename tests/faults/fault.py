"""A row of the fault matrix: what is inflicted on whom, what is promised, and what came of it.

Source: docs/facts/balancer.md §6, "Fault matrix to promise and measure".
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.load import Operation, Summary, summary

from tests.servers import available
from tests.servers.local import Local

# This machine has other work, too: a promised duration counts as late only when it is exceeded so many times.
NOISE = 3.0
# No noise explains what takes so many times as long, and so much more: the mechanism does not work.
STALLED = 10.0
STALLED_S = 5.0
# What one busy neighbour costs here.
_NEIGHBOUR_MS = 100.0

_PROGRAMS = {"faketime": "faketime", "iptables": "iptables"}


@dataclass
class Outcome:
    """What a fault did.

    Attributes:
        operations: every call clients made meanwhile.
        fault_at: when it was inflicted (``time.monotonic``); None when there is no one moment.
        measured: figures beside those of the operations, units in their names.
        broken: a sentence for every promise that was not held; empty when all were.
        late: a sentence for everything that was held, but took longer than promised on a machine with other work. The
            chaos run counts it; a test only prints it, since no test may depend on how fast its machine is. What took so
            much longer that it only looks held is broken.
    """

    operations: list[Operation] = field(default_factory=list)
    fault_at: float | None = None
    measured: dict[str, float | int | str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    @property
    def summary(self) -> Summary:
        return summary(self.operations)

    @property
    def recovery_s(self) -> float:
        """How long after the fault the last trouble of a client ended."""
        return self.summary.recovery_s(self.fault_at) if self.fault_at is not None and self.operations else 0.0

    def promise(self, held: bool, otherwise: str) -> None:
        """Note the sentence when the promise was not held."""
        if not held:
            self.broken.append(otherwise)

    def promise_no_failure(self, operations: Sequence[Operation], whose: str) -> None:
        found = summary(operations)
        why = "; ".join(f"{count}× {reason}" for reason, count in found.why.items())
        self.promise(bool(operations), f"{whose}: nobody called")
        self.promise(found.failed == 0, f"{whose}: {found.failed} of {found.expected} failed ({why})")

    def promise_within(self, name: str, took_s: float, promised_s: float) -> None:
        """Measure a duration under the name.

        A noisy machine may take it :data:`NOISE` times as long as promised; beyond that it is late, and broken from
        :data:`STALLED` times and :data:`STALLED_S` on.
        """
        self.measured[name] = round(took_s, 3)
        stalled_s = STALLED * promised_s + STALLED_S
        if not took_s <= stalled_s:
            self.broken.append(
                f"{name}: {took_s:.2f} s, promised {promised_s:g} s; beyond {stalled_s:g} s it does not work"
            )
        elif not took_s <= NOISE * promised_s:
            self.late.append(
                f"{name}: {took_s:.2f} s, promised {promised_s:g} s, allowed here {NOISE * promised_s:g} s"
            )

    def promise_p99_unchanged(self, before: Sequence[Operation], since: Sequence[Operation]) -> None:
        """Measure the 99th percentile of calls before and since the fault."""
        was, became = p99_ms(before), p99_ms(since)
        self.measured |= {"p99_before_ms": round(was, 1), "p99_since_ms": round(became, 1)}
        if not became <= NOISE * was + _NEIGHBOUR_MS:
            self.late.append(f"p99 was {was:.0f} ms and became {became:.0f} ms")

    def as_row(self) -> str:
        row = self.summary.as_row() if self.operations else "no calls"
        if self.fault_at is not None and self.operations:
            row += f"; recovered {self.recovery_s:.2f} s after the fault"
        return row + "".join(f"; {name} {value}" for name, value in self.measured.items())


Inflicted = Callable[[Local, random.Random], Awaitable[Outcome]]


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        row: its number in the matrix.
        name: the fault in a few words, fit for a test's id.
        promise: what happens to clients, in the matrix's words.
        inflicted: do it to the running cluster, or to one of its own, and leave the cluster to recover by itself. Whom it
            hits, and when, comes from the random numbers alone.
        needs: what the machine must have, in the words of :func:`missing`.
        group: ``fault``, or ``attack`` where somebody means it.
    """

    row: int
    name: str
    promise: str
    inflicted: Inflicted
    needs: tuple[str, ...] = ()
    group: str = "fault"

    @property
    def id(self) -> str:
        return f"row-{self.row:02d}-{self.name}"


def missing(need: str) -> str | None:
    """Return why this machine lacks what a row needs, None when it has it."""
    if need == "root":
        return None if os.geteuid() == 0 else "only root may do this"
    if need in _PROGRAMS:
        found = shutil.which(need) or available.sbin(need)
        return None if found else f"no {need} on this machine (Debian package {_PROGRAMS[need]})"
    return available.missing(need)


async def moment(chance: random.Random, longest_s: float = 0.8) -> None:
    """Wait a part of a second that the random numbers choose, so that a fault does not always meet the same beat."""
    await asyncio.sleep(chance.uniform(0.05, longest_s))


def p99_ms(operations: Sequence[Operation]) -> float:
    found = summary(operations).p99_ms
    return math.inf if math.isnan(found) else found
