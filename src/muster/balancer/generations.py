"""The sets of services of the three generations, and what is known of services beside them.

Source: ``seed`` is the table of the article *Load-Balanced Smart Proxies with HAProxy* (theforeman.org, May 2018), nine
rows, unchanged. ``installer`` is the table of today's Foreman documentation, six rows (docs/facts/deployment.md §1.5): 8443,
5647 and 5000 have no listener on a content proxy any more (docs/facts/deployment.md §1.6). ``foremanctl`` is what a proxy in
containers listens on (docs/facts/deployment.md §5): three rows, and the Smart Proxy on 8443.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from muster.cluster.file import OLDER_WORDS

Traffic = Literal["tls", "plain", "tls-tunnel"]
Balance = Literal["roundrobin", "leastconn", "random", "source"]
Destinations = Literal["all", "signer"]
Over = Literal["plain", "tls", "verified", "mutual"]
"""How an asking connection begins. ``tls``: whoever answers is believed, because who issued its certificate is not known
here; ``verified``: its certificate must carry the cluster's name and come from the CA; ``mutual``: ours is shown, too."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows that the program behind a port works, beyond taking a connection.

    Attributes:
        uri: path of a ``GET``; empty: a finished TLS handshake is enough, or with ``plain`` the connection.
        status: what it is answered with.
        holds: text that must stand in the answer; empty: any answer will do.
        lacks: text that must not.
        timeout_s: how long the answer may take.
        ca_file: who issued the certificate, when it is not the cluster's CA; a path on the host that asks.
    """

    uri: str = ""
    over: Over = "plain"
    status: int = 200
    holds: str = ""
    lacks: str = ""
    timeout_s: float = 1.0
    ca_file: str | None = None


CONNECTION = Proof()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a generation's table.

    Attributes:
        name: the label in lower case; the word of the cluster file, of the health question and of HAProxy's backend.
        proof: what the program that serves the port is asked, where no Muster member listens itself.
        proven_by: the service whose port and proof hold for this one, too, where it is offered.
    """

    label: str
    listen_port: int
    member_port: int
    traffic: Traffic
    balance: Balance
    destinations: Destinations = "all"
    proof: Proof = CONNECTION
    proven_by: str = ""

    @property
    def name(self) -> str:
        return self.label.lower()


# Apache's certificate and the Smart Proxy's are of one issuer, with the same names (docs/facts/deployment.md §2.1, §2.2).
# Without its database Pulp answers 500 (3.123), or 200 and says so in the body. That this is absent is asked for, and not
# that the opposite is there: HAProxy reads 16 kB, and a long list of workers would push it out of sight.
_PULP = Proof("/pulp/api/v3/status/", "verified", lacks='"database_connection":{"connected":false}', timeout_s=3.0)
# Puppet's CA is a PKI of its own (docs/facts/deployment.md §3.3), which balancers do not know; anybody may ask for its state
# (docs/facts/puppet-ca.md §1.5). ``server`` would be narrower, but before version 7 it is called ``master``.
_PUPPETSERVER = Proof("/status/v1/simple", "tls", holds="running", timeout_s=3.0)
_PUPPET_CA = Proof("/status/v1/simple/ca", "tls", holds="running", timeout_s=3.0)
# Open to anybody on both of its ports (docs/facts/smart-proxy-protocol.md §3).
_FOREMAN_PROXY = Proof("/version", "mutual")
_FOREMAN_PROXY_PLAIN = Proof("/version")
_APACHE = Proof(over="verified")
# mosquitto has the Smart Proxy's own certificate and wants one of its clients (docs/facts/deployment.md §2.2, §2.3).
_MOSQUITTO = Proof(over="mutual")

# Apache serves Pulp's content on 80, and Pulp's state on 443 only (docs/facts/deployment.md §3.5).
_HTTP = Row("HTTP", 80, 80, "plain", "roundrobin", proven_by="https")
_HTTPS = Row("HTTPS", 443, 443, "tls", "source", proof=_PULP)
_ANACONDA = Row("Anaconda", 8000, 8000, "plain", "roundrobin", proof=_FOREMAN_PROXY_PLAIN)
_PUPPET = Row("Puppet", 8140, 8140, "tls", "roundrobin", proof=_PUPPETSERVER)
_PUPPETCA = Row("PuppetCA", 8141, 8140, "tls", "roundrobin", "signer", proof=_PUPPET_CA)
_SMARTPROXY = Row("SmartProxy", 9090, 9090, "tls", "roundrobin", proof=_FOREMAN_PROXY)

SEED = (
    _HTTP,
    _ANACONDA,
    _HTTPS,
    Row("RHSM", 8443, 8443, "tls", "roundrobin", proof=_APACHE),
    Row("AMQP", 5647, 5647, "tls-tunnel", "roundrobin"),
    _PUPPET,
    _PUPPETCA,
    _SMARTPROXY,
    Row("Docker", 5000, 5000, "tls", "roundrobin", proof=_APACHE),
)

INSTALLER = (_HTTP, _HTTPS, _ANACONDA, _PUPPET, _PUPPETCA, _SMARTPROXY)
FOREMANCTL = (_HTTP, _HTTPS, replace(_SMARTPROXY, listen_port=8443, member_port=8443))

# Not in any documented table. Hosts of pull-mqtt listen for hours without a word (docs/facts/deployment.md §1.6), and a
# long connection goes where there are fewest (docs/facts/balancer.md §1.6).
_MQTT = Row("MQTT", 1883, 1883, "tls-tunnel", "leastconn", proof=_MOSQUITTO)

KNOWN: Mapping[str, Row] = {row.name: row for row in (*SEED, _MQTT)}
"""Every service there is a word for: one that is no part of a generation keeps the traffic and balance it has here."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Whose layout members have.

    Attributes:
        rows: the services it begins with.
        beside: what it may have, too, once the cluster file names it.
        lacks: services that nothing of Foreman's answers there, and why.
    """

    rows: tuple[Row, ...]
    beside: tuple[Row, ...]
    lacks: Mapping[str, str] = field(default_factory=dict)

    def row(self, name: str) -> Row | None:
        """Return the service of that name, of those it begins with and those beside them."""
        return next((r for r in (*self.rows, *self.beside) if r.name == name), None)


_GONE = {
    "amqp": "qpid and katello-agent, which answered on 5647, are gone",
    "docker": "images are answered on 443, and nothing listens on 5000",
}
GENERATIONS: Mapping[str, Generation] = {
    "seed": Generation(SEED, (_MQTT,)),
    "installer": Generation(
        INSTALLER,
        (_MQTT,),
        {"rhsm": "subscriptions are answered on 443 under /rhsm, and nothing listens on 8443", **_GONE},
    ),
    # Nothing of a proxy in containers answers these, but members of kind muster do (docs/facts/deployment.md §5).
    "foremanctl": Generation(
        FOREMANCTL,
        (_ANACONDA, _PUPPET, _PUPPETCA, _MQTT),
        {"rhsm": "subscriptions are answered on 443 under /rhsm, and 8443 is the Smart Proxy's port", **_GONE},
    ),
}


def generation_of(content: Mapping[str, Any]) -> tuple[str, Generation | None]:
    """Return the word of a file's generation, and the generation; works on raw content, and knows none of a wrong word."""
    word = content.get("generation", OLDER_WORDS.get(str(content.get("profile", "current"))))
    return str(word), GENERATIONS.get(word) if isinstance(word, str) else None
