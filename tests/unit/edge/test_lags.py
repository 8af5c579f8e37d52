from __future__ import annotations

from prometheus_client import CollectorRegistry

from muster.edge.lag_metrics import LagMetrics
from muster.edge.lags import Lag, Lags


def exposed(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    samples = (s for family in registry.collect() for s in family.samples)
    return {(s.labels["feature"], s.labels["provider"]): s.value for s in samples}


def test_how_old_it_is_is_looked_at_when_somebody_asks() -> None:
    lags, registry = Lags(), CollectorRegistry()
    registry.register(LagMetrics(lags))
    assert exposed(registry) == {}
    age_s = 1.0
    with lags.told("dhcp", "isc", "", lambda: Lag(age_s, 11.0)), lags.told("dhcp", "isc", "b", lambda: Lag(7.0, 11.0)):
        assert exposed(registry) == {("dhcp", "isc"): 1.0, ("dhcp", "b"): 7.0}
        age_s = 42.0
        assert exposed(registry)["dhcp", "isc"] == 42.0
    assert exposed(registry) == {}


def test_late_is_more_than_what_is_in_order() -> None:
    assert [Lag(age_s, 11.0).is_late for age_s in (0.0, 11.0, 11.1)] == [False, False, True]
