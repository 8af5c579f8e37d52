"""What a member counts of the repositories it follows, and each process that answers of where its answers came from."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

Polled = Literal["carried", "nothing", "unreached"]
Source = Literal["disk", "sibling", "pulp", "origin"]


class FollowingMetrics:
    """What one member follows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.followed = Gauge(
            "muster_content_repositories", "Repositories that are followed because clients ask for them",
            registry=registry,
        )  # fmt: skip
        self.versions = Gauge(
            "muster_content_versions", "Versions of repositories that lie whole on this disk", registry=registry
        )
        self.kept = Gauge("muster_content_kept_bytes", "What content holds on this disk", registry=registry)
        self.limit = Gauge("muster_content_kept_limit_bytes", "What it may hold", registry=registry)
        self.behind = Gauge(
            "muster_content_behind", "Repositories for which this member is behind the others", registry=registry
        )
        self.waiting = Gauge(
            "muster_content_waiting_seconds",
            "For how long the repository that waits longest has had something newer that is not shown",
            registry=registry,
        )
        self._polls = Counter(
            "muster_content_polls", "Questions to the own Pulp which version it has, by its answer", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self._stagings = Counter(
            "muster_content_stagings", "Versions that were to be brought to this disk, by what came of it", ("outcome",),
            registry=registry,
        )  # fmt: skip

    def polled(self, outcome: Polled) -> None:
        self._polls.labels(outcome).inc()

    def staged(self, outcome: Literal["brought", "failed"]) -> None:
        self._stagings.labels(outcome).inc()


class AnswerMetrics:
    """Where the answers of one process came from."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "muster_content_answers",
            "Answers below repositories that are followed, by who had the bytes",
            ("source",),
            registry=registry,
        )

    def answered(self, source: Source) -> None:
        self._answers.labels(source).inc()
