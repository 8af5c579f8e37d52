"""How providers are, for monitoring."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from muster.policy.chains import Chains


class ChainMetrics(Collector):
    """How providers are, looked at when somebody asks: breakers, and what groups have yet to give them.

    ``muster_breaker_open{feature,provider}`` is 1 while calls are refused; ``muster_group_repairs{feature,provider,state}``
    counts changes ``pending`` and ``stuck``, the same on every member.
    """

    def __init__(self, chains: Chains) -> None:
        self._chains = chains

    def collect(self) -> Iterator[Metric]:
        breakers = GaugeMetricFamily(
            "muster_breaker_open", "Whether a provider is left alone because it did not answer",
            labels=["feature", "provider"],
        )  # fmt: skip
        for feature, link in self._chains.links():
            if link.breaker is not None:
                breakers.add_metric([feature, link.name or link.word], float(link.breaker.standing().state != "closed"))
        repairs = GaugeMetricFamily(
            "muster_group_repairs", "Changes that a provider of a group of all has not had",
            labels=["feature", "provider", "state"],
        )  # fmt: skip
        for feature, chain in self._chains.features.items():
            if chain.way is None or chain.way.mode != "all":
                continue
            for one in chain.standings():
                repairs.add_metric([feature, one.provider, "pending"], one.pending)
                repairs.add_metric([feature, one.provider, "stuck"], one.stuck)
        yield breakers
        yield repairs
