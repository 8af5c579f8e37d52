"""ProxyDHCP, as the root puts it together."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from muster import features as rooms
from muster.cluster.roster import Roster
from muster.netboot.ledger import Ledger
from muster.netboot.proxydhcp.answers import BootServer, Instructions
from muster.netboot.proxydhcp.holding import Holding
from muster.netboot.proxydhcp.metrics import ProxyDHCPMetrics
from muster.netboot.proxydhcp.server import ProxyDHCPServer
from muster.netboot.proxydhcp.serving import Serving
from muster.store.leases import Leases

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from muster.app.duties.duty import Duty
    from muster.app.listed import Listed
    from muster.balancer.model import Balancing
    from muster.cluster.file import ClusterFile
    from muster.kernel.happenings import Tell
    from muster.netboot.tree import Tree
    from muster.store.engine import Store

_MOUNT = "httpboot"
# Behind it are members' listeners without TLS.
_SERVICE = "anaconda"
_FALLBACK_PORT = 8000


def instructions(cluster: ClusterFile, balancing: Balancing) -> Instructions | None:
    """Return what machines are told; None: nothing, nobody asked for it."""
    settings = cluster.netboot.proxy_dhcp
    if settings is None:
        return None
    service = balancing.service(_SERVICE)
    port = service.listen_port if service is not None else _FALLBACK_PORT
    url = settings.ipxe_url
    if url is not None:
        url = url.replace("{address}", str(cluster.address)).replace("{port}", str(port))
    serves = rooms.enabled(cluster, _MOUNT) in ("http", True)
    return Instructions(settings, url, f"http://{cluster.address}:{port}/{_MOUNT}" if serves else None)


def everybodys(cluster: ClusterFile) -> BootServer | None:
    """Return the virtual address where loaders come from there; None: they come from ready members."""
    settings, address = cluster.netboot.proxy_dhcp, cluster.virtual_address
    if settings is None or address is None or address.version != 4 or settings.boot_server == "members":
        return None
    members = {m.address for m in cluster.members if m.kind == "muster"}
    if settings.boot_server is None and not all(b.address in members for b in cluster.balancers):
        # TFTP passes no balancer: on a host that is no member nobody would answer.
        return None
    return BootServer(str(cluster.address), ipaddress.IPv4Interface(address.address).ip)


async def opened(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    balancing: Balancing,
    store: Store,
    listed: Listed,
    tree: Tree | None,
    holder: str,
    registry: CollectorRegistry,
    *,
    tell: Tell,
    fit: Callable[[], bool],
) -> list[Duty]:
    """Return the duties that answer machines, none where nobody asked for it; its ports are opened by the first beat."""
    told = instructions(cluster, balancing)
    if told is None:
        return []
    from muster.app.duties.proxydhcp import BootServersKnown, ProxyDHCPKept

    counted = ProxyDHCPMetrics(registry)
    root = tree.root if tree is not None else None
    server = await stack.enter_async_context(ProxyDHCPServer(told, root, counted, tell=tell))

    def members() -> Mapping[str, str]:
        return {str(m.name): m.address for m in listed.latest.members if m.kind == "muster"}

    ledger = Ledger(store) if tree is not None else None
    serving = Serving(members, Roster(store), ledger, everybodys(cluster))
    kept = ProxyDHCPKept(server, Holding(Leases(store), holder), serving, tree, counted, fit=fit)
    return [BootServersKnown(serving), kept]
