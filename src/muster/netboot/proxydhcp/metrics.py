"""What a member counts of ProxyDHCP."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from muster.netboot.proxydhcp.answers import Silence

Ignored = Literal[
    Silence, "interface", "malformed", "other_member", "not_ready", "not_addressed", "pace", "busy", "slow", "unsent"
]
"""Why a question was not answered, beside :data:`~muster.netboot.proxydhcp.answers.Silence`: it came in by another
interface; it is no DHCP message; another member answers; this one may not; it went to everybody, where one is asked; too
many of them; too many at once; the disk did not say what there is; the kernel did not take the answer."""


Way = Literal["tftp", "http", "ipxe"]


class ProxyDHCPMetrics:
    """One member's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._questions = Counter(
            "muster_proxy_dhcp_questions", "DHCP messages that came, by port", ("port",), registry=registry
        )
        self._answers = Counter(
            "muster_proxy_dhcp_answers", "Machines that were told what to boot, by port and way", ("port", "way"),
            registry=registry,
        )  # fmt: skip
        self._ignored = Counter(
            "muster_proxy_dhcp_ignored",
            "DHCP messages that were not answered, by reason",
            ("reason",),
            registry=registry,
        )
        self._holds = Gauge(
            "muster_proxy_dhcp_holds", "Whether this member is the one that answers on port 67", registry=registry
        )

    def asked(self, port: int) -> None:
        self._questions.labels(str(port)).inc()

    def answered(self, port: int, way: Way) -> None:
        self._answers.labels(str(port), way).inc()

    def ignored(self, reason: Ignored) -> None:
        self._ignored.labels(reason).inc()

    def holds(self, *, holds: bool) -> None:
        self._holds.set(1 if holds else 0)
