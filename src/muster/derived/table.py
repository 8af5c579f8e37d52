"""What any other load balancer has to be told, as a table: ports, members, and what to ask them.

For appliances and clouds (F5, AVI, NLB, Azure, a Kubernetes Service) that are set up by hand or by their own tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muster.balancer.model import Balancing, Question, Server, Service
from muster.balancer.words import address, target, word
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site

_SPREAD = {
    "roundrobin": "round robin",
    "leastconn": "least connections",
    "random": "random",
    "source": "persistence by source address",
}

_OVER_TLS = ("HTTPS GET", "TLS handshake")
_PLAINLY = "status 200"


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member behind one service.

    Attributes:
        check: how it is asked: ``HTTPS GET``, ``HTTP GET``, ``TLS handshake`` or ``TCP connect``.
        path: what is asked for; empty without ``GET``.
        expects: of a ``GET``: the answer's status, and what must or must not stand in it.
        timeout_s: how long the answer may take.
        verified: whether the certificate must come from the cluster's CA, or from ``ca_file``, and carry the address.
        client_certificate: whether the question needs one; members answer ``/health/ready`` without.
        check_needs_proxy: the asking connection must start with a PROXY v2 header, or it is refused.
        proxy: whether clients' connections should start with a PROXY v2 header: ``no``, ``may`` or ``must``.
    """

    name: str
    id: int
    address: str
    port: int
    check: str
    check_port: int
    path: str
    expects: str
    timeout_s: float
    verified: bool
    ca_file: str | None
    client_certificate: bool
    check_needs_proxy: bool
    proxy: str


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One port of the cluster's address; traffic is passed on as it comes, TLS is never ended.

    Attributes:
        beside: what members of kind muster ask the program that serves the port on their host; empty: they serve it. Where
            some ask something else than the others, theirs stands behind their names.
    """

    name: str
    listen_port: int
    also_listen_ports: tuple[int, ...]
    passes: str
    spread: str
    idle_s: float
    check_every_s: float
    fall: int
    rise: int
    beside: str
    members: tuple[MemberRow, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Everything, for one cluster."""

    cluster: str
    address: str
    services: tuple[ServiceRow, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def tabled(cluster: ClusterFile, balancing: Balancing) -> Table:
    """Return what a balancer of any make must do for this cluster.

    Raises:
        Rejected: a name or address is none.
    """
    return Table(
        cluster=word(balancing.cluster),
        address=word(balancing.address),
        services=tuple(_service(cluster, service) for service in balancing.services),
        notes=_notes(cluster),
    )


def lines(table: Table) -> list[str]:
    """Return the table for people: one block per service, one line per member."""
    out = [f"Cluster {table.cluster}, address {table.address}. Pass TCP on; do not end TLS.", ""]
    for service in table.services:
        rhythm = f"check every {service.check_every_s:g} s, {service.fall} failures out, {service.rise} answers in"
        out.append(
            f"{service.name}: port {_ports(service)}, {service.passes}, {service.spread}, "
            f"idle {service.idle_s:g} s; {rhythm}"
        )
        if service.beside:
            out.append(f"  members of kind muster ask on their own host: {service.beside}")
        out += _aligned([("id", "member", "to", "check", "proxy v2"), *(_words(m) for m in service.members)])
        out.append("")
    return [*out, *table.notes]


def _ports(service: ServiceRow) -> str:
    return " and ".join(f"{port:d}" for port in (service.listen_port, *service.also_listen_ports))


def _words(member: MemberRow) -> tuple[str, ...]:
    where = f"{target(member.address, member.check_port)}{member.path}"
    extra = [
        *([member.expects] if member.expects not in ("", _PLAINLY) else []),
        *(["client certificate"] if member.client_certificate else []),
        *(["any certificate"] if member.check in _OVER_TLS and not member.verified else []),
        *([f"certificate of {member.ca_file}"] if member.verified and member.ca_file else []),
        *(["PROXY v2 first"] if member.check_needs_proxy else []),
    ]
    to = target(member.address, member.port)
    return str(member.id), member.name, to, ", ".join([f"{member.check} {where}", *extra]), member.proxy


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"  {row.rstrip()}" for row in padded]


def _service(cluster: ClusterFile, service: Service) -> ServiceRow:
    return ServiceRow(
        name=word(service.name),
        listen_port=service.listen_port,
        also_listen_ports=service.also_listen_ports,
        passes={"plain": "TCP", "tls": "TLS", "tls-tunnel": "TLS, idle for hours"}[service.traffic],
        spread=_SPREAD[service.balance],
        idle_s=service.timeouts.tunnel_s or service.timeouts.idle_s,
        check_every_s=service.check.every_s,
        fall=service.check.fall,
        rise=service.check.rise,
        beside=_beside(service),
        members=tuple(_member(cluster, service, server) for server in service.servers),
    )


def _how(asked: Question) -> str:
    if asked.path:
        return "HTTP GET" if asked.over == "plain" else "HTTPS GET"
    return "TCP connect" if asked.over == "plain" else "TLS handshake"


def _expects(asked: Question) -> str:
    if not asked.path:
        return ""
    proof = asked.proof
    text = [f"with {proof.holds}"] if proof.holds else []
    text += [f"without {proof.lacks}"] if proof.lacks else []
    return " ".join([f"status {proof.status}", *text])


def _beside(service: Service) -> str:
    """Return what members of kind muster ask; of those that ask something else than the first, with their names."""
    asking: dict[str, list[str]] = {}
    for server in service.servers:
        if server.beside is not None:
            asking.setdefault(_program(server.beside), []).append(word(server.name))
    first, *others = asking or [""]
    return "; ".join([first, *(f"{', '.join(asking[one])}: {one}" for one in others)])


def _program(asked: Question) -> str:
    """Return what a member asks beside itself; whose certificate it gets there it does not mind."""
    expects = _expects(asked)
    return f"{_how(asked)} port {asked.port}{asked.path}{', ' if expects else ''}{expects}"


def _member(cluster: ClusterFile, service: Service, server: Server) -> MemberRow:
    asked: Question = server.question
    required = cluster.edge.proxy_protocol == "required"
    return MemberRow(
        name=word(server.name),
        id=server.id,
        address=address(server.address),
        port=server.port,
        check=_how(asked),
        check_port=asked.port,
        path=asked.path,
        expects=_expects(asked),
        timeout_s=service.timeouts.check_s if asked.kind != "connect" else asked.proof.timeout_s,
        verified=asked.over in ("verified", "mutual"),
        ca_file=asked.proof.ca_file,
        client_certificate=asked.kind != "ready" and asked.over == "mutual",
        check_needs_proxy=asked.proxied and required,
        proxy="no" if not server.proxied else "must" if required else "may",
    )


def _notes(cluster: ClusterFile) -> tuple[str, ...]:
    found = [
        f"Checks expect status 200 if nothing else stands there, over TLS from a certificate of the cluster's CA for "
        f"{cluster.address} (name it as SNI).",
        "404 to /health/ready means that the member drains: send it nothing new, leave its connections alone.",
        "When all checks fail, serve all members: then the checks are the likelier liars.",
    ]
    if cluster.edge.proxy_protocol != "off":
        known = ", ".join(b.address for b in cluster.balancers) or "none yet"
        found.append(f"PROXY headers are taken from the addresses of the file's balancers only: {known}.")
    return tuple(found)


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document("table.txt", "".join(f"{line}\n" for line in lines(tabled(cluster, balancing))), ""),)


OUTPUT = Output(
    word="table",
    help="Show what any other load balancer has to be told: ports, members, and what to ask them.",
    goes="To whoever looks after another load balancer: an appliance, or a cloud's.",
    rendered=_documents,
    as_json=lambda balancing, cluster, site: tabled(cluster, balancing).as_json(),  # noqa: ARG005
)
