"""What is known of the services behind the members, for the register; and how full their disks are, for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge

from muster.app.duties.duty import Duty
from muster.app.listed import Listed
from muster.app.offers import modelled
from muster.cluster.file import Member
from muster.cluster.service import FREE, TOTAL, USED, Seen, Told
from muster.cluster.services import Services
from muster.edge.feature import Features
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

if TYPE_CHECKING:
    from muster.pki.context import Credentials

_log = log.logger("app")

ROLE = "services"
# Of 5 s beats: facts are a minute old at most, and five of those members that others ask.
_BEATS = 12
_ROUNDS = 5
_LEASE_S = 420.0
_FIGURES = (TOTAL, USED, FREE)


class StorageMetrics:
    """How full the disks are on which services keep what they serve; what is no longer said is gone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {
            name: Gauge(f"muster_{name}", f"Bytes {word} where a service keeps what it serves", ("member", "kind"),
                        registry=registry)
            for name, word in ((TOTAL, "in all"), (USED, "used"), (FREE, "free"))
        }  # fmt: skip
        self._shown: frozenset[tuple[str, str, str]] = frozenset()

    def show(self, member: str, seen: Sequence[Seen]) -> None:
        """Show what one member's services say."""
        said = {
            (name, member, one.name.partition("@")[0]): one.facts[name]
            for one in seen
            for name in _FIGURES
            if name in one.facts
        }
        for name, *labels in (s for s in self._shown if s[1] == member and s not in said):
            self._gauges[name].remove(*labels)
        for (name, *labels), value in said.items():
            self._gauges[name].labels(*labels).set(value)
        self._shown = frozenset(s for s in self._shown if s[1] != member) | said.keys()

    def keep(self, members: Collection[str]) -> None:
        """Show nothing more of any other member."""
        for member in {s[1] for s in self._shown} - {*members}:
            self.show(member, ())


class ServicesObserved(Duty):
    """Tells the register what this member's features have found out, and, as one process of all, what Ruby members say.

    Looks at what features know already; asks nothing of services itself. Without the store facts grow old, which they show.
    """

    name = "services"
    every_s = 5.0

    def __init__(
        self,
        member: str,
        features: Features,
        listed: Listed,
        store: Store,
        holder: str,
        credentials: Callable[[], Credentials],
        registry: CollectorRegistry,
    ) -> None:
        self._member = member
        self._features = features
        self._listed = listed
        self._services = Services(store)
        self._leases = Leases(store)
        self._lease: Lease | None = None
        self._holder = holder
        self._credentials = credentials
        self._metrics = StorageMetrics(registry)
        self._told: tuple[Seen, ...] | None = None
        self._beats = 0

    async def beat(self) -> None:
        seen = self._seen()
        self._metrics.show(self._member, seen)
        due = self._beats % _BEATS == 0
        asks = self._beats % (_BEATS * _ROUNDS) == 0
        self._beats += 1
        try:
            # At once when there is something new, such as its first word; else now and then, so that its age is right.
            if seen and (due or _lasting(seen) != _lasting(self._told or ())):
                known = {s.name: {"facts": s.facts} for s in seen}
                await self._services.tell(Told(self._member, f"asked by {self._member}", known))
                self._told = seen
            if asks:
                await self._ask_others()
        except MusterError as e:
            _log.debug("The services register was not told", why=str(e))

    async def end(self) -> None:
        with contextlib.suppress(MusterError):
            if self._lease is not None:
                await self._leases.release(self._lease)

    def _seen(self) -> tuple[Seen, ...]:
        found: list[Seen] = []
        for one in self._features.served.values():
            if one.feature.observed is not None and one.answers:
                found += one.feature.observed(one.service)
        return tuple(found)

    async def _ask_others(self) -> None:
        """Ask Ruby members for their features, when no other process of the cluster has taken that on.

        What is known of members that there are no longer is forgotten.
        """
        cluster = self._listed.cluster
        known = {self._member, *(str(m.name) for m in cluster.members)}
        self._metrics.keep(known)
        await self._services.forget(known)
        rubys = [m for m in cluster.members if m.kind == "foreman"]
        if not rubys:
            return
        self._lease = await self._leases.acquire(ROLE, self._holder, _LEASE_S)
        if self._lease is None:
            for member in rubys:
                self._metrics.show(str(member.name), ())
            return
        # It brings what asks over the wire, which members without such siblings never need.
        from muster.observed.services import told_by

        context, balancing = self._credentials().rubys(), modelled(cluster)

        async def heard(member: Member) -> Told | None:
            try:
                return await told_by(member, balancing, context)
            except MusterError as e:
                _log.debug("A Ruby member did not say what it knows of its Pulp", member=str(member.name), why=str(e))
                return None

        for member, told in zip(rubys, await asyncio.gather(*(heard(m) for m in rubys)), strict=True):
            found = told.services if told is not None else {}
            self._metrics.show(str(member.name), [Seen(n, said["facts"]) for n, said in found.items()])
            if told is not None:
                await self._services.tell(told)


def _lasting(seen: Sequence[Seen]) -> list[tuple[str, dict[str, Any]]]:
    """Return what is worth telling at once: figures of a disk change with every file."""
    return [(s.name, {k: v for k, v in s.facts.items() if k not in _FIGURES}) for s in seen]
