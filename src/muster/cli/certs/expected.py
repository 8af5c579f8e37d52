"""What the cluster file expects of a bundle: the names it carries, and who may have issued it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muster.cli.certs.place import Place
from muster.cluster.file import ClusterFile, Member
from muster.kernel.errors import Rejected
from muster.kernel.names import ip_address
from muster.pki.bundles import BundlePaths, BundleRequest, KeyKind

BALANCER = "balancer"


def member_request(cluster: ClusterFile, member: Member, key_kind: KeyKind = "ec-p256") -> BundleRequest:
    """Return what a member's certificate must carry: its name, the cluster's names, and its address."""
    names = [member.name, *cluster.names]
    addresses = []
    try:
        addresses.append(str(ip_address(member.address)))
    except Rejected:
        names.append(type(member.name)(member.address))
    return BundleRequest("member", member.name, tuple(names), tuple(addresses), key_kind)


def carried_names(place: Place, at: BundlePaths) -> Sequence[str]:
    """Return the names that a bundle must carry."""
    if at.kind == "member" and place.cluster_file.exists():
        for member in place.cluster.members:
            if member.name == at.name:
                request = member_request(place.cluster, member)
                # Everybody asks for the cluster's name; an installer of Foreman's writes no addresses.
                return (*request.dns_names, *(request.addresses if member.kind == "muster" else ()))
    # The balancer's name is nobody's business: its checks are known by their issuer.
    return (at.name,) if at.kind != "balancer" else ()


def issuers(place: Place, kind: str, name: str) -> tuple[Path, ...]:
    """Return who may have issued a bundle beside the cluster's CA: of Foreman and of Ruby members it may be the site's."""
    site = place.cluster.foreman.ca_file if place.cluster_file.exists() else None
    if site is None or kind == "balancer":
        return ()
    is_ours = kind == "member" and any(m.name == name and m.kind == "muster" for m in place.cluster.members)
    return () if is_ours else (site,)
