"""What the rooms offer a cluster: the listeners of its members, and what balancers do since members answer there."""

from __future__ import annotations

from muster import features
from muster.authority import ports as authority
from muster.balancer import model
from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.content import ports as content
from muster.edge import ports as edge
from muster.edge.ports import Port


def offered(cluster: ClusterFile) -> tuple[Port, ...]:
    """Return every listener that the cluster's members have, those that are opened first in front."""
    return (
        *edge.PORTS,
        *authority.offered(cluster),
        *content.offered(cluster),
        *(p for ports in features.ports(cluster).values() for p in ports),
    )


def answered(cluster: ClusterFile) -> frozenset[str]:
    """Return the services whose port members listen on themselves: only there can they read a PROXY header."""
    return frozenset(port.service for port in offered(cluster))


def modelled(cluster: ClusterFile) -> Balancing:
    """Return what the cluster's balancers have to do.

    Raises:
        Misconfigured: as :func:`muster.balancer.model.modelled`.
    """
    return model.modelled(cluster, answered(cluster))
