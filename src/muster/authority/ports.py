"""The port on which members are the Puppet CA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.balancer.model import signs_itself
from muster.edge.ports import Port

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.edge.routes import Mount


def _mounts() -> tuple[Mount, ...]:
    from muster.authority import api

    return (api.MOUNT,)


# Its certificate is of the Puppet CA itself, which signs it as soon as it is open.
PUPPETCA = Port("puppetca", "puppetca", "room", _mounts)


def offered(cluster: ClusterFile) -> tuple[Port, ...]:
    """Return the port where members sign themselves; none where one real puppetserver does."""
    return (PUPPETCA,) if signs_itself(cluster) else ()
