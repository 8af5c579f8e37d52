"""What SELinux has to allow HAProxy on balancers' hosts: a boolean, or labels where labels are enough.

HAProxy in its domain ``haproxy_t`` listens on and connects to ports of web servers and little else. A port that no policy
labels can be given a web server's label, which opens that one. A port that has a label already would lose it, and whoever
is confined to it its port; then the boolean is the smaller harm, although it opens every port, in both directions.

Source: docs/facts/deployment.md §1.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived.commands import command, script
from muster.derived.output import Document, Output, Site
from muster.kernel.errors import Misconfigured
from muster.version import VERSION

_WEB = "http_port_t"
_BOOLEAN = "haproxy_connect_any"
_OPEN = {
    _WEB: frozenset({80, 81, 443, 488, 8008, 8009, 8443, 9000}),
    "http_cache_port_t": frozenset({8080, 8118, 8123, *range(10001, 10011)}),
    "commplex_main_port_t": frozenset({5000}),
}
_TAKEN = {8000: "soundd_port_t", 8140: "puppet_port_t", 9090: "websm_port_t"}
_UNLABELLED = frozenset({1883, 5647, 8141})


@dataclass(frozen=True, slots=True)
class Port:
    """A port that HAProxy uses.

    Attributes:
        uses: what for.
        label: as the policy has it; None: not known here.
        is_open: whether HAProxy may use it as it is.
        is_free: whether it has no label and may be given one.
    """

    number: int
    uses: tuple[str, ...]
    label: str | None
    is_open: bool
    is_free: bool

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"port": self.number, "for": list(self.uses), "label": self.label, "open": self.is_open}


def ports(balancing: Balancing, cluster: ClusterFile) -> tuple[Port, ...]:
    """Return every port balancers listen on or connect to, with what the policy says of it.

    Raises:
        Misconfigured: the cluster has no balancer.
    """
    if not cluster.balancers:
        raise Misconfigured("The cluster file names no balancers, so there is no HAProxy for SELinux to allow anything")
    uses: dict[int, dict[str, None]] = {}
    for service in balancing.services:
        for port in service.listen_ports:
            uses.setdefault(port, {})[f"clients of {word(service.name)}"] = None
        for server in service.servers:
            uses.setdefault(server.port, {})[f"members' {word(service.name)}"] = None
            uses.setdefault(server.question.port, {})["checks"] = None
    for balancer in cluster.balancers:
        if balancer.metrics_port is not None:
            uses.setdefault(balancer.metrics_port, {})["metrics"] = None
    return tuple(_judged(number, tuple(found)) for number, found in sorted(uses.items()))


def commands(found: tuple[Port, ...]) -> tuple[str, ...]:
    """Return what has to be run, nothing where the policy is enough."""
    shut = [p for p in found if not p.is_open]
    if not all(p.is_free for p in shut):
        return (command("setsebool", "-P", _BOOLEAN, "on"),)
    return tuple(_labelled(p) for p in shut)


def _labelled(port: Port) -> str:
    # Not -m where -a fails: that would take a port from whom a newer policy gave it to.
    has = command("grep", "-Eq", rf"^{_WEB} +tcp +(.*, )?{port.number:d}(,|$)")
    add = command("semanage", "port", "-a", "-t", _WEB, "-p", "tcp", f"{port.number:d}")
    return f"semanage port -l | {has} || {add}"


def _judged(number: int, uses: tuple[str, ...]) -> Port:
    label = next((name for name, numbers in _OPEN.items() if number in numbers), None)
    return Port(number, uses, label or _TAKEN.get(number), label is not None, number in _UNLABELLED)


def _remarks(cluster: ClusterFile, found: tuple[Port, ...]) -> Iterator[str]:
    yield f"Rendered by Muster {VERSION} for the balancers' hosts of cluster {word(cluster.cluster)}."
    yield "Needed where HAProxy runs in the domain haproxy_t: ps -eZ | grep haproxy says whether it does."
    yield ""
    for port in found:
        yield f"{port.number:d}, for {', '.join(port.uses)}: {_reason(port)}"
    yield ""
    shut = [p for p in found if not p.is_open]
    if not shut:
        yield "HAProxy may use all of them as it is."
    elif all(p.is_free for p in shut):
        yield f"Those without a label get {_WEB}, unless they have it from the last time."
    else:
        yield f"{_BOOLEAN} lets HAProxy listen on any port and connect to any. Labels would be narrower, but one that a"
        yield "port has already would be taken from whoever is confined to it."


def _reason(port: Port) -> str:
    if port.is_open:
        return f"{port.label}, open to HAProxy"
    if port.is_free:
        return "has no label, may be given one"
    return f"{port.label}, whose label it stays" if port.label else "whose label is not known here, and stays"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    found = ports(balancing, cluster)
    return (Document("selinux.sh", script(_remarks(cluster, found), commands(found)), "sh", 0o755),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:  # noqa: ARG001
    found = ports(balancing, cluster)
    return {"ports": [p.as_json() for p in found], "commands": list(commands(found))}


OUTPUT = Output(
    word="selinux",
    help="Render the commands by which SELinux lets HAProxy use the cluster's ports, with the reason for each port.",
    goes="Run it as root on each balancer's host that has SELinux, once and after each change of a port.",
    rendered=_documents,
    as_json=_as_json,
)
