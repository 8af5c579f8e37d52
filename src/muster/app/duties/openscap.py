"""Do compliance reports of hosts reach Foreman?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.features.openscap.checks import STUCK_S
from muster.kernel import log
from muster.kernel.errors import MusterError

if TYPE_CHECKING:
    from muster.features.openscap.service import Compliance

_log = log.logger("app")


class ReportsForwarded(Duty):
    """Sends what waits, also what another member took that has died; counts what there is.

    No service leaves for what is wrong here: hosts hand in their reports all the same.
    """

    name = "compliance reports"
    every_s = 5.0

    def __init__(self, compliance: Compliance, registry: CollectorRegistry) -> None:
        self._compliance = compliance
        self._reports = Gauge(
            "muster_openscap_reports", "Compliance reports in the store, by their state", ("state",), registry=registry
        )
        self._bytes = Gauge(
            "muster_openscap_bytes", "What compliance reports in the store take, by their state", ("state",),
            registry=registry,
        )  # fmt: skip
        self._oldest = Gauge(
            "muster_openscap_waiting_seconds", "For how long the report has waited that Foreman lacks longest",
            registry=registry,
        )  # fmt: skip

    async def beat(self) -> None:
        try:
            await self._compliance.beat()
        except MusterError as e:
            _log.debug("Compliance reports were not looked at", why=str(e))
        for state, count in self._compliance.counts.items():
            self._reports.labels(state).set(count.reports)
            self._bytes.labels(state).set(count.bytes)
        self._oldest.set(self._waited_s())

    def found(self) -> Found:
        waited_s = self._waited_s()
        if waited_s <= STUCK_S:
            return NOTHING
        count = self._compliance.counts["waiting"].reports
        return Found(notes=(f"{count} compliance reports wait for Foreman, the oldest for {waited_s / 3600:.0f} h",))

    def _waited_s(self) -> float:
        waiting = self._compliance.counts.get("waiting")
        if waiting is None or waiting.oldest_at is None:
            return 0.0
        return max(0.0, self._compliance.now - waiting.oldest_at)
