"""The places of content as mounts: below each of them everything is answered by one call."""

from __future__ import annotations

from muster.cluster.sections import ContentService
from muster.content import places
from muster.content.places import Place
from muster.content.service import Content
from muster.edge.replies import Reply, Streamed
from muster.edge.request import Request
from muster.edge.routes import Mount


def mounts(service: ContentService) -> tuple[Mount, ...]:
    """Return what is on a service's port."""
    return tuple(_mount(place) for place in places.on(service))


def _mount(place: Place) -> Mount:
    async def below(content: Content, request: Request) -> Reply | Streamed:
        return await content.answer(place, request)

    return Mount(place.prefix, (), unrouted=below, busy=True)
