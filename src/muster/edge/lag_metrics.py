"""Of followers' lags the metric, which what only reads settings does not load."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from muster.edge.lags import Lags


class LagMetrics(Collector):
    """``muster_provider_lag_seconds{feature,provider}``, looked at when somebody asks."""

    def __init__(self, lags: Lags) -> None:
        self._lags = lags

    def collect(self) -> Iterator[Metric]:
        found = GaugeMetricFamily(
            "muster_provider_lag_seconds", "How old is what this member knows of a server that it follows",
            labels=["feature", "provider"],
        )  # fmt: skip
        for one in self._lags.now():
            found.add_metric([one.feature, one.name or one.word], round(one.lag.age_s, 3))
        yield found
