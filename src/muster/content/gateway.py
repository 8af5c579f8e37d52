"""Whether ``registry_url`` leads to the members' own container gateway, which answers where Foreman calls them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from muster.balancer.model import modelled
from muster.cluster.file import ClusterFile

PATH = "/container_gateway"
_ANY = "member.invalid"

Led = Literal["gateway", "foreman's port", "elsewhere"]


def is_of_members(cluster: ClusterFile, url: str) -> bool:
    """Whether a URL, its ``{address}`` replaced, is that of a member's own container gateway."""
    return _led_to(cluster, url, (m.address for m in cluster.members if m.kind == "muster")) == "gateway"


def led_to(cluster: ClusterFile, url: str) -> Led:
    """Return where ``registry_url`` leads, as it is written: to members' own container gateway, or beside it."""
    return _led_to(cluster, url.replace("{address}", _ANY), (_ANY,))


def url_of_members(cluster: ClusterFile) -> str:
    """Return the ``registry_url`` of members' own container gateway."""
    service = modelled(cluster, frozenset()).service("smartproxy")
    return f"https://{{address}}:{service.member_port if service is not None else 9090}{PATH}"


def _led_to(cluster: ClusterFile, url: str, addresses: Iterable[str]) -> Led:
    parts = urlsplit(url)
    service = modelled(cluster, frozenset()).service("smartproxy")
    if (
        service is None
        or parts.scheme != "https"
        or (parts.port or 443) not in {service.member_port, *(v.port for v in service.servers)}
        or parts.hostname not in {a.lower() for a in addresses}
    ):
        return "elsewhere"
    path = parts.path.rstrip("/")
    return "gateway" if path == PATH else "elsewhere" if path else "foreman's port"
