"""Server-sent events: to each viewer the sections that changed since what he has, and nothing that waits for him.

A viewer who takes long to read gets the newest look then, not those he missed: nothing is queued.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from muster.kernel.errors import Unavailable
from muster.web.model.glance import changes
from muster.web.model.log import Filter
from muster.web.model.moment import Moment
from muster.web.model.page import Page

if TYPE_CHECKING:
    from muster.web.render import Rendered

# How soon a stream notices that the member asks its clients to leave.
_LOOK_S = 0.5
# Balancers and proxies take a connection for dead that is silent for long.
_SILENT_S = 15.0
_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Looked(Protocol):
    """Who looks at the cluster for all viewers (:class:`muster.web.watch.Watch`)."""

    viewers: int

    async def page(self) -> Page: ...

    async def turned(self, within_s: float) -> Page | None: ...

    def followed(self) -> AbstractContextManager[None]: ...


async def looks(
    watch: Looked, rendered: Rendered, wanted: Filter, have: Iterable[str], closing: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Yield an event a look until the member closes; ``have`` are digests of sections that the viewer has, in any order."""
    known = set(have)
    before: Page | None = None
    with watch.followed():
        page: Page | None = await watch.page()
        silent_s = 0.0
        while not closing():
            if page is not None:
                sections = rendered.sections(page, wanted)
                fresh = {s.name: (s.digest, s.html) for s in sections if s.digest not in known}
                said = ". ".join(changes(before, page)) if before is not None else ""
                yield _event(page, fresh, said)
                known, before, silent_s = {s.digest for s in sections}, page, 0.0
            elif silent_s >= _SILENT_S:
                yield b": still here\n\n"
                silent_s = 0.0
            try:
                page = await watch.turned(_LOOK_S)
            except Unavailable:
                page = None
            silent_s += _LOOK_S
    # The browser asks again, at another member when there is a balancer in between.


def _event(page: Page, fresh: dict[str, tuple[str, str]], said: str) -> bytes:
    at = Moment.of(page.at, to="second")
    # The name of a member, which the cluster file has checked.
    asof = f'As of <time datetime="{at.machine}">{at.words}</time> UTC, by {_plain(page.by)}'
    look = {"sections": fresh, "asof": asof, "said": said}
    return b"event: look\ndata: " + _encoded(look).encode("utf-8", "replace") + b"\n\n"


def _plain(name: str) -> str:
    return "".join(c for c in name if c.isalnum() or c in ".-_: ")
