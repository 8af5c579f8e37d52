"""``/metrics``: what this member counts, for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from muster.edge.replies import Reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.edge.traffic import Traffic
from muster.kernel.rings import LogRings
from muster.pki.complaints import ALARM_DAYS, alarms

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class EdgeMetrics:
    """Counters of the edge. Labels are route templates, never paths, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.traffic = Traffic()
        self._seconds = Histogram(
            "muster_request_seconds",
            "Time from a request's headers to its last byte",
            ("method", "route", "status"),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self.connections = Gauge("muster_connections", "Open connections", ("listener",), registry=registry)
        self.refused = Counter(
            "muster_connections_refused", "Connections closed before a request", ("listener", "why"), registry=registry
        )
        self.held = Gauge(
            "muster_edge_held_bytes", "What bodies, waiting requests and unsent replies hold", registry=registry
        )
        self.certificate_expiry = Gauge(
            "muster_certificate_expiry_timestamp_seconds", "When this member's certificate expires", registry=registry
        )
        self.certificate_alarm = Gauge(
            "muster_certificate_alarm",
            "1 when this member's certificate ends within so many days",
            ("days",),
            registry=registry,
        )
        self.ends = Gauge(
            "muster_expiry_timestamp_seconds", "When something ends that clients or checks depend on", ("what",),
            registry=registry,
        )  # fmt: skip
        self.alarm = Gauge(
            "muster_expiry_alarm", "1 when it ends within so many days", ("what", "days"), registry=registry
        )
        self._ending: frozenset[str] = frozenset()
        self._judged: frozenset[tuple[str, str]] = frozenset()
        self.store_up = Gauge("muster_store_up", "1 when the store answered last", registry=registry)
        self.ready = Gauge("muster_service_ready", "1 when the service is ready here", ("service",), registry=registry)
        self.unready = Gauge(
            "muster_service_unready",
            "1 for why the service is not ready here",
            ("service", "reason"),
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        key = (method, route, status)
        # labels() checks its arguments each time, which costs more than the observation.
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._seconds.labels(method, route, str(status))
        child.observe(seconds)

    def show_ends(self, ends: Mapping[str, datetime], now: datetime) -> None:
        """Show when things end and how near that is. What is no longer known of is gone."""
        # Not cleared and set anew: a scrape in between would silence an alarm.
        for what in self._ending - ends.keys():
            self.ends.remove(what)
            for days in ALARM_DAYS:
                self.alarm.remove(what, str(days))
        self._ending = frozenset(ends)
        for what, end in ends.items():
            self.ends.labels(what).set(end.timestamp())
            sounding = alarms(end, now)
            for days in ALARM_DAYS:
                self.alarm.labels(what, str(days)).set(days in sounding)

    def judge(self, verdicts: Mapping[str, str]) -> None:
        """Show by service why it is not ready, or that it is: an empty reason. Reasons that ended are gone."""
        why = frozenset((service, reason) for service, reason in verdicts.items() if reason)
        # Not cleared and set anew: duties judge many times a second, and a scrape in between would miss what holds.
        for ended in self._judged - why:
            self.unready.remove(*ended)
        self._judged = why
        for service, reason in verdicts.items():
            self.ready.labels(service).set(not reason)
        for service, reason in why:
            self.unready.labels(service, reason).set(1)

    def follow(self, rings: LogRings) -> None:
        """Count the log records that are not shared with the other members."""
        self.registry.register(_Unshared(rings))

    def on_scrape(self, refresh: Callable[[], None]) -> None:
        """Call this before every exposition."""
        self._refresh = refresh

    _refresh: Callable[[], None] = staticmethod(lambda: None)

    def with_workers(self, counted: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Add to every exposition what worker processes count; ``counted`` returns their own, by the worker's number."""
        self._workers = counted

    _workers: Callable[[], Awaitable[Mapping[str, str]]] | None = None

    async def exposition(self) -> bytes:
        self._refresh()
        texts = await self._workers() if self._workers is not None else {}
        shown: Any = _Joined(self.registry, texts) if texts else self.registry
        return await asyncio.to_thread(generate_latest, shown)


# What a worker knows and its member does not. The rest, certificates' ends for one, both would say.
_OF_WORKERS = (
    "muster_request_seconds", "muster_connections", "muster_connections_refused", "muster_edge_held_bytes",
    "muster_content_fills",
)  # fmt: skip
_OF_PROCESSES = "process_"


class _Joined(Collector):
    """A member's metrics, and with the label ``worker`` those of its workers."""

    def __init__(self, own: CollectorRegistry, texts: Mapping[str, str]) -> None:
        self._own = own
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        joined = {family.name: family for family in self._own.collect()}
        for worker, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                if family.name not in _OF_WORKERS and not family.name.startswith(_OF_PROCESSES):
                    continue
                into = joined.get(family.name)
                if into is None:
                    into = joined[family.name] = Metric(family.name, family.documentation, family.type)
                else:
                    # The registry's own objects are not ours to lengthen.
                    copied = Metric(into.name, into.documentation, into.type)
                    copied.samples = list(into.samples)
                    into = joined[family.name] = copied
                for sample in family.samples:
                    into.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
        yield from joined.values()


class _Unshared(Collector):
    """The rings count for themselves, under their own lock; here it is read."""

    def __init__(self, rings: LogRings) -> None:
        self._rings = rings

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(
            "muster_log_records_unshared",
            "Log records the other members never get, because there were too many",
            self._rings.dropped_unshared,
        )


async def metrics(counted: EdgeMetrics, _: Request) -> Reply:
    return reply(200, await counted.exposition(), CONTENT_TYPE_LATEST.encode())


MOUNT = Mount("/metrics", (Route("GET", "/", Access.CLUSTER, metrics),))
