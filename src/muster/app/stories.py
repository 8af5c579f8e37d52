"""Stories of machines that boot, as the root puts them together: features and servers tell, one duty writes."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import features as rooms
from muster.app.duties.stories import StoriesForgotten, StoriesTold
from muster.netboot.story import ledger, told
from muster.netboot.story.ledger import BootEvents
from muster.netboot.story.telling import Telling
from muster.store.leases import Leases

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from muster.app.duties.duty import Duty
    from muster.cluster.file import ClusterFile
    from muster.edge.feature import Features
    from muster.kernel.names import MACAddress
    from muster.store.engine import Store
    from muster.store.reading import Reading

_TELL = ("dhcp", "tftp", "httpboot", "templates")


def are_told(cluster: ClusterFile) -> bool:
    """Whether members see anything of machines that boot."""
    return cluster.netboot.proxy_dhcp is not None or any(rooms.enabled(cluster, name) for name in _TELL)


@dataclass(frozen=True)
class Stories:
    """What a member tells. Use :func:`opened`."""

    telling: Telling
    duties: Sequence[Duty]


def opened(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    served: Features,
    store: Store,
    member: str,
    holder: str,
    registry: CollectorRegistry,
) -> Stories | None:
    """Return who tells on this member; None: its cluster has nothing to tell. What waits at the end is written then."""
    if not are_told(cluster):
        return None

    async def whose(address: str) -> MACAddress | None:
        # Asked for when it is needed: features are opened after those that hear them.
        dhcp = served.served.get("dhcp")
        if dhcp is None or not dhcp.answers:
            return None
        found: MACAddress | None = await dhcp.service.whose(address)
        return found

    events = BootEvents(store, member)
    telling = Telling(events, registry, whose=whose)
    stack.push_async_callback(telling.close)
    return Stories(telling, [StoriesTold(telling), StoriesForgotten(events, Leases(store), holder)])


def read_by(cluster: ClusterFile) -> Callable[[Reading], Awaitable[Sequence[dict[str, Any]]]] | None:
    """Return what reads the stories of the machines that booted last, as ``muster netboot boots --json``; None: none are."""
    if not are_told(cluster):
        return None

    async def read(uow: Reading) -> Sequence[dict[str, Any]]:
        return [s.as_json() for s in told.recent(await ledger.newest(uow))]

    return read
