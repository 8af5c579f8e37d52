"""The two known sets of services.

Source: ``seed`` is the table of the article *Load-Balanced Smart Proxies with HAProxy* (theforeman.org, May 2018; seed
000), nine rows, unchanged. ``current`` is the table of today's Foreman documentation, six rows
(``reference/deployment.md`` §1.5): 8443, 5647 and 5000 have no listener on a content proxy any more (§1.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Traffic = Literal["tls", "plain", "tls-tunnel"]
Balance = Literal["roundrobin", "leastconn", "random", "source"]
Destinations = Literal["all", "signer"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a profile's table.

    Attributes:
        name: the label in lower case; the word of the cluster file, of the health question and of HAProxy's backend.
    """

    label: str
    listen_port: int
    member_port: int
    traffic: Traffic
    balance: Balance
    destinations: Destinations = "all"

    @property
    def name(self) -> str:
        return self.label.lower()


SEED = (
    Row("HTTP", 80, 80, "plain", "roundrobin"),
    Row("Anaconda", 8000, 8000, "plain", "roundrobin"),
    Row("HTTPS", 443, 443, "tls", "source"),
    Row("RHSM", 8443, 8443, "tls", "roundrobin"),
    Row("AMQP", 5647, 5647, "tls-tunnel", "roundrobin"),
    Row("Puppet", 8140, 8140, "tls", "roundrobin"),
    Row("PuppetCA", 8141, 8140, "tls", "roundrobin", "signer"),
    Row("SmartProxy", 9090, 9090, "tls", "roundrobin"),
    Row("Docker", 5000, 5000, "tls", "roundrobin"),
)

CURRENT = (
    Row("HTTP", 80, 80, "plain", "roundrobin"),
    Row("HTTPS", 443, 443, "tls", "source"),
    Row("Anaconda", 8000, 8000, "plain", "roundrobin"),
    Row("Puppet", 8140, 8140, "tls", "roundrobin"),
    Row("PuppetCA", 8141, 8140, "tls", "roundrobin", "signer"),
    Row("SmartProxy", 9090, 9090, "tls", "roundrobin"),
)

PROFILES: Mapping[str, tuple[Row, ...]] = {"seed": SEED, "current": CURRENT}
