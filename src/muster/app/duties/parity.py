"""Is this member like the others, and are all of them alike?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge

from muster.app.duties.duty import Duty
from muster.app.listed import Listed
from muster.app.offers import modelled
from muster.cluster.file import SCHEMA_VERSION, ClusterFile, Member
from muster.edge.feature import Features
from muster.kernel import log
from muster.kernel.clock import SystemClock, system_chance
from muster.kernel.errors import MusterError
from muster.observed.parity import compared, of_certificate, of_muster, of_wire
from muster.observed.rounds import DriftMetrics, Rounds
from muster.observed.statements import Statements
from muster.pki.bundles import BundlePaths
from muster.pki.bundles import paths as bundle_paths
from muster.pki.facts import CertificateFacts
from muster.store.engine import Store
from muster.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from muster.observed.census import Census

_log = log.logger("app")


def shown_to_members(cluster: ClusterFile, pki: Path, own: BundlePaths) -> BundlePaths:
    """Return what a member shows when it asks others what trusted hosts are told: the bundle of one, else its own."""
    clients = (bundle_paths(pki, "client", name) for name in cluster.trusted_names)
    return next((c for c in clients if c.certificate.exists()), own)


class Likeness:
    """What this member is made of, and in how much it differs from most of the others.

    Args:
        presented: returns what the certificate says that clients are shown. Not from the disk: what lies there may have
            been refused.
        also: returns what else it knows of itself: whether providers answer it, how its boot files stand.
    """

    def __init__(
        self,
        member: Member,
        listed: Listed,
        features: Features,
        presented: Callable[[], CertificateFacts | None],
        store: Store,
        registry: CollectorRegistry,
        also: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._also = also
        self._member = member
        self._listed = listed
        self._features = features
        self._presented = presented
        self._store = store
        self._drift = Gauge("muster_parity_drift", "Fields in which this member differs from most", registry=registry)
        self._drifted: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what this member is made of, field for field what :mod:`muster.observed.census` hears on the wire."""
        running = self._features.running()
        told = self._features.version
        version = {"version": told, "modules": dict.fromkeys(running, told)}
        features = {name: s.as_json() for name, s in self._features.served.items()}
        own = (str(self._member.name), self._member.address)
        presented = self._presented()
        return {
            **of_wire(version, features, running),
            "certificate": {"smartproxy": of_certificate(presented, own, datetime.now(UTC)) if presented else {}},
            "muster": {**of_muster(VERSION, SCHEMA_VERSION, self._listed.cluster), **self._also()},
        }

    async def compare(self) -> None:
        """Tell the store what this member is made of, and count the fields in which it differs from most of the others.

        Raises:
            Unavailable: the store did not answer.
        """
        name = str(self._member.name)
        statements = Statements(self._store)
        await statements.give(name, self.facts())
        drifts = compared(await statements.told(), self._listed.cluster.expected_differences)
        mine = tuple(d.field for d in drifts if name in d.differing)
        self._drift.set(len(mine))
        if mine != self._drifted:
            self._drifted = mine
            if mine:
                _log.warning("This member drifted from the others", fields=", ".join(mine))
            else:
                _log.info("This member is like the others again")


class CensusTaken(Duty):
    """Now and then, when no other process does: compares all members, Ruby ones and live ports included."""

    name = "parity"
    begins_at_once = False

    def __init__(
        self, store: Store, holder: str, listed: Listed, pki: Path, bundle: BundlePaths, registry: CollectorRegistry
    ) -> None:
        self.rounds = Rounds(store, holder, self._census, clock=SystemClock(), chance=system_chance())
        self._listed = listed
        self._pki = pki
        self._bundle = bundle
        self._metrics = DriftMetrics(registry)

    async def beat(self) -> None:
        try:
            if await self.rounds.beat():
                self._metrics.show(self.rounds.last, datetime.now(UTC))
        except MusterError as e:
            _log.debug("The members were not compared", why=str(e))

    async def end(self) -> None:
        with contextlib.suppress(MusterError):
            await self.rounds.resign()

    def _census(self) -> Census:
        """Return the census as this member can take it: as a trusted host where it has the bundle of one, else as itself."""
        # It brings an HTTP client with it, which only the one member needs that takes the census.
        from muster.content import drifts
        from muster.observed.census import Census

        cluster = self._listed.cluster
        shown = shown_to_members(cluster, self._pki, self._bundle)
        return Census(
            cluster,
            modelled(cluster),
            self._bundle.ca,
            shown.certificate,
            shown.key,
            datetime.now(UTC),
            openly=True,
            also=drifts.reading(cluster),
        )
