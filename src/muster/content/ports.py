"""The ports of content that members answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from muster.edge.ports import Port

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.cluster.sections import ContentService
    from muster.edge.routes import Mount


def _mounts(service: ContentService) -> tuple[Mount, ...]:
    from muster.content import api

    return api.mounts(service)


HTTPS = Port("content-https", "https", "member", partial(_mounts, "https"))
HTTP = Port("content-http", "http", None, partial(_mounts, "http"))
RHSM = Port("rhsm", "rhsm", "member", partial(_mounts, "rhsm"))
DOCKER = Port("docker", "docker", "member", partial(_mounts, "docker"))
PORTS = (HTTPS, HTTP, RHSM, DOCKER)


def offered(cluster: ClusterFile) -> tuple[Port, ...]:
    """Return the ports that the cluster file gives to members; none without a section ``content``."""
    return tuple(p for p in PORTS if cluster.content is not None and p.service in cluster.content.services)
