"""Who may reach which ports of a balancer's or a member's host: what every packet filter is told, in none's words.

Only TCP ports that the cluster file or its generation names are spoken of. Whatever else runs on a host, ``ssh`` first, is
nobody's business here, so that no administrator is locked out; UDP (DHCP, DNS, TFTP) never passes a balancer.

Source: docs/facts/deployment.md §1.6.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from muster.balancer.model import Balancing
from muster.balancer.words import ip, word
from muster.cluster.file import Balancer, ClusterFile, Member
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
"""An address is the network of it alone."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Ports of a host, and who may reach them.

    Attributes:
        name: a word for whoever they are for.
        why: whose ports these are, for people.
        ports: in ascending order.
        sources: none of which lies in another, IPv4 first; None: anybody.
    """

    name: str
    why: str
    ports: tuple[int, ...]
    sources: tuple[Network, ...] | None

    def of(self, version: int) -> tuple[Network, ...]:
        """Return the sources of one IP version."""
        return tuple(n for n in self.sources or () if n.version == version)


@dataclass(frozen=True, slots=True)
class VRRP:
    """What balancers tell each other about the virtual address.

    Attributes:
        peers: the others.
    """

    router_id: int
    peers: tuple[Network, ...]

    def of(self, version: int) -> tuple[Network, ...]:
        """Return the peers of one IP version."""
        return tuple(n for n in self.peers if n.version == version)


@dataclass(frozen=True, slots=True)
class Reach:
    """Who may reach a host.

    Attributes:
        host: its name, as people know it.
        directory: where its documents lie among those of all hosts.
        kind: what it is.
    """

    host: str
    directory: str
    kind: str
    openings: tuple[Opening, ...]
    vrrp: VRRP | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        openings = [
            {
                "for": o.name,
                "ports": list(o.ports),
                "from": None if o.sources is None else [str(n) for n in o.sources],
            }
            for o in self.openings
        ]
        vrrp = {"router_id": self.vrrp.router_id, "from": [str(n) for n in self.vrrp.peers]} if self.vrrp else None
        return {"host": self.host, "kind": self.kind, "tcp": openings, "vrrp": vrrp}


def reached(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Reach, ...]:
    """Return who may reach each balancer and each member; of one member alone where the site names it.

    Raises:
        Misconfigured: rules are made of addresses, and the file has a name, or nothing at all, where one is needed; or a
            host is balancer and member.
    """
    _refuse_shared(cluster)
    members = tuple(_member(balancing, cluster, m) for m in site.members(cluster))
    if site.member is not None:
        return members
    return (*(_balancer(balancing, cluster, b) for b in cluster.balancers), *members)


def shown(reaches: Iterable[Reach]) -> list[dict[str, Any]]:
    """Return them for programs."""
    return [one.as_json() for one in reaches]


def _balancer(balancing: Balancing, cluster: ClusterFile, which: Balancer) -> Reach:
    everybody = not cluster.network.clients
    own = () if everybody else (*_balancers(cluster), *_members(cluster))
    openings = [
        Opening(
            "clients",
            "what clients call at the cluster's address",
            tuple(sorted({p for s in balancing.services for p in s.listen_ports})),
            None if everybody else _sorted((*_given(cluster.network.clients), *own)),
        )
    ]
    # As of members: what is loaded last on a host counts for all that is there.
    there = {b.metrics_port for b in cluster.balancers if b.address == which.address and b.metrics_port is not None}
    if there:
        asking = _sorted((*_monitoring(cluster), *_balancers(cluster)))
        openings.append(Opening("monitoring", "the balancer's metrics", tuple(sorted(there)), asking))
    return Reach(
        str(which.name),
        f"balancers/{word(which.name)}",
        "balancer",
        tuple(o for o in openings if o.ports),
        _vrrp(cluster, which),
    )


def _member(balancing: Balancing, cluster: ClusterFile, member: Member) -> Reach:
    callers = (
        *_balancers(cluster),
        *_members(cluster),
        *_foreman(cluster),
        *_given(cluster.network.direct),
        *_monitoring(cluster),
    )
    # Each document is a whole host's, and takes the place of one that was loaded there for another member.
    there = {m.name.lower() for m in cluster.members if m.address == member.address}
    ports = sorted({s.port for service in balancing.services for s in service.servers if s.name in there})
    opening = Opening("callers", "what balancers, other members and Foreman call", tuple(ports), _sorted(callers))
    return Reach(str(member.name), word(member.name), "member", (opening,) if ports else ())


def _vrrp(cluster: ClusterFile, which: Balancer) -> VRRP | None:
    virtual = cluster.virtual_address
    others = [_one(b.address, f"balancer {b.name}") for b in cluster.balancers if b.name != which.name]
    peers = tuple(n for n in others if virtual is not None and n.version == virtual.version)
    return VRRP(virtual.router_id, _sorted(peers)) if virtual is not None and peers else None


def _balancers(cluster: ClusterFile) -> tuple[Network, ...]:
    return tuple(_one(b.address, f"balancer {b.name}") for b in cluster.balancers)


def _members(cluster: ClusterFile) -> tuple[Network, ...]:
    return tuple(_one(m.address, f"member {m.name}") for m in cluster.members)


def _foreman(cluster: ClusterFile) -> tuple[Network, ...]:
    given = _given(cluster.network.foreman)
    named = ip(urlsplit(cluster.foreman.url or "").hostname or "")
    found = given or ((ipaddress.ip_network(named),) if named is not None else ())
    if not found:
        raise Misconfigured(
            "Members' hosts would keep Foreman out, because the cluster file does not say from which address it calls: set "
            "network.foreman"
        )
    return found


def _monitoring(cluster: ClusterFile) -> tuple[Network, ...]:
    return _given(cluster.network.monitoring or cluster.network.direct)


def _given(networks: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(n) for n in networks)


def _one(address: str, whose: str) -> Network:
    found = ip(address)
    if found is None:
        raise Misconfigured(
            f"The address of {whose} is the name {address}, and packet filters are told addresses: write its IP address"
        )
    # Packets do not say which link they are of.
    return ipaddress.ip_network(str(found).partition("%")[0])


def _sorted(networks: Iterable[Network]) -> tuple[Network, ...]:
    # Packet filters refuse sets whose networks lie in each other.
    found = set(networks)
    v4 = ipaddress.collapse_addresses(sorted(n for n in found if isinstance(n, ipaddress.IPv4Network)))
    v6 = ipaddress.collapse_addresses(sorted(n for n in found if isinstance(n, ipaddress.IPv6Network)))
    return (*v4, *v6)


def _refuse_shared(cluster: ClusterFile) -> None:
    balancers = {str(b.address): b.name for b in cluster.balancers}
    for member in cluster.members:
        if str(member.address) in balancers:
            raise Misconfigured(
                f"Member {member.name} and balancer {balancers[str(member.address)]} have the address {member.address}; "
                "which of both a port is for no packet filter can tell on one host"
            )
