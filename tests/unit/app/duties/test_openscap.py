from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.app.duties.openscap import ReportsForwarded
from muster.features.openscap.ledger import Count
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


class Compliance:
    """What a feature's service says of its reports."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}
        self.now = 10_000.0
        self.is_away = False

    async def beat(self) -> None:
        if self.is_away:
            raise Unavailable("the store is away")
        self.counts = {"waiting": Count(2, 100, 1, 9_000.0), "sent": Count(5, 999, 3, 1.0)}


async def test_reports_are_counted_and_noted_when_they_wait_for_an_hour() -> None:
    compliance: Any = Compliance()
    registry = CollectorRegistry()
    duty = ReportsForwarded(compliance, registry)
    await duty.beat()
    assert registry.get_sample_value("muster_openscap_reports", {"state": "waiting"}) == 2
    assert registry.get_sample_value("muster_openscap_bytes", {"state": "sent"}) == 999
    assert registry.get_sample_value("muster_openscap_waiting_seconds") == 1000
    assert not duty.found().notes
    compliance.now = 20_000.0
    await duty.beat()
    assert duty.found().notes == ("2 compliance reports wait for Foreman, the oldest for 3 h",)
    assert not duty.found().down
    compliance.is_away = True
    await duty.beat()
    assert duty.found().notes
