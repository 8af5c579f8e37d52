"""Whether ``registry_url`` leads to the members' own container gateway, which answers where Foreman calls them."""

from __future__ import annotations

from urllib.parse import urlsplit

from muster.balancer.model import modelled
from muster.cluster.file import ClusterFile

_PATH = "/container_gateway"


def is_of_members(cluster: ClusterFile, url: str) -> bool:
    """Whether a URL, its ``{address}`` replaced, is that of a member's own container gateway."""
    parts = urlsplit(url)
    service = modelled(cluster, frozenset()).service("smartproxy")
    return (
        service is not None
        and parts.scheme == "https"
        and parts.path.rstrip("/") == _PATH
        and (parts.port or 443) == service.member_port
        and parts.hostname in {m.address.lower() for m in cluster.members if m.kind == "muster"}
    )
