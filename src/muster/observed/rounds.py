"""The census now and then, for the metric: by one process of the cluster at a time, whichever has the role.

Whoever only waits for the role does not load what a census needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

from muster.kernel.clock import Chance, Clock
from muster.kernel.log import logger
from muster.observed.recorded import record
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

if TYPE_CHECKING:
    from muster.observed.census import Census, Parity

_log = logger("balancer")

ROLE = "census"
_EVERY_S = 300.0
# A member that hangs costs its timeout a few times over; the round is not worth more.
_LONGEST_S = 60.0


class Rounds:
    """One process's share in taking the census.

    Args:
        holder: unique to one life of this process.
        census: made anew for each round, because members, certificates and the time change.
        every_s: about how often; by chance a fifth more or less, so that processes do not ask for the role all at once.

    Attributes:
        last: what the last round found; None: another process takes them, or none has been taken.

    Concurrency: one beat at a time. A round may take a minute.
    """

    def __init__(
        self,
        store: Store,
        holder: str,
        census: Callable[[], Census],
        *,
        clock: Clock,
        chance: Chance,
        every_s: float = _EVERY_S,
    ) -> None:
        self.last: Parity | None = None
        self._store = store
        self._leases = Leases(store)
        self._holder = holder
        self._census = census
        self._clock = clock
        self._chance = chance
        self._every_s = every_s
        self._lease: Lease | None = None
        self._said: tuple[str, ...] = ()
        # Not at once: members that start one after another differ for a moment.
        self._due = clock.monotonic() + chance.uniform(0.1, 0.3) * every_s

    async def beat(self) -> bool:
        """Take the census when it is due and no other process does; whether :attr:`last` was looked at anew.

        Raises:
            Unavailable: the store did not answer, so who takes the census is unknown; what was found stays.
            Misconfigured: one of our own files cannot be used; nothing is known.
        """
        if self._clock.monotonic() < self._due:
            return False
        self._due = self._clock.monotonic() + self._chance.uniform(0.8, 1.2) * self._every_s
        # Longer than the longest pause between two rounds: who takes them keeps taking them.
        self._lease = await self._leases.acquire(ROLE, self._holder, 1.5 * self._every_s + _LONGEST_S)
        if self._lease is None:
            self.last, self._said = None, ()
            return True
        self.last = None
        census = self._census()
        try:
            async with asyncio.timeout(_LONGEST_S):
                self.last = await census.parity(self._store)
        except TimeoutError:
            _log.warning("The members were not compared in time", limit_s=_LONGEST_S)
            return True
        said = tuple(d.sentence for d in self.last.drifts if d.differing)
        if said and said != self._said:
            _log.warning("Members drifted apart", fields=len(said), first=said[0])
        elif self._said and not said:
            _log.info("Members are alike again")
        self._said = said
        # For who asks later. The facts of all members are many, and nobody reads them there.
        found = {k: v for k, v in self.last.as_json(census.cluster).items() if k != "facts"}
        await record(self._store, "parity", found, by=" ".join(self._holder.split()[:2]))
        return True

    async def resign(self) -> None:
        """Let another process take the census."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._leases.release(lease)


class DriftMetrics:
    """What the last round found, for Prometheus; only the process that took it shows any of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._drift = Gauge(
            "muster_census_drift", "Fields in which the member differs from most", ("member",), registry=registry
        )
        self._unasked = Gauge(
            "muster_census_unasked",
            "1 when the member could not be asked what it is made of",
            ("member",),
            registry=registry,
        )
        self._lasted = Gauge(
            "muster_census_drift_lasted_seconds", "For how long the member has differed from most in any field at least",
            ("member",), registry=registry,
        )  # fmt: skip
        self._at = Gauge(
            "muster_census_timestamp_seconds", "When this process last compared all members; 0: it does not",
            registry=registry,
        )  # fmt: skip
        self._members: frozenset[str] = frozenset()

    def show(self, found: Parity | None, at: datetime) -> None:
        """Show what a round found at that time; None: nothing, another process has it."""
        facts = found.facts if found is not None else {}
        # Not cleared and set anew: a scrape in between would miss members.
        for member in self._members - facts.keys():
            self._drift.remove(member)
            self._unasked.remove(member)
            self._lasted.remove(member)
        self._members = frozenset(facts)
        if found is None:
            self._at.set(0)
            return
        self._at.set(at.timestamp())
        for member in facts:
            self._drift.labels(member).set(len(found.of(member)))
            self._unasked.labels(member).set(member in found.unasked)
            lasted = (d.lasted_s for d in found.drifts if member in d.differing)
            self._lasted.labels(member).set(max(lasted, default=0.0))
