"""Listeners as values: which service's port a member answers itself, over what, with whose certificate, and what is there.

A room offers them; the root opens them, and tells the balancer's model which services they answer. Commands that only
model the balancing read the same values, so nothing that serves is loaded for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from muster.edge.routes import Mount


@dataclass(frozen=True)
class Port:
    """A listener of a member.

    Attributes:
        listener: its name in metrics and in the log.
        service: the balancer's service; it listens on that service's port of members.
        shows: whose certificate clients are shown: the ``member``'s bundle, or one that the ``room`` brings when it opens
            the port; None: plain HTTP, where nobody shows one.
        mounts: returns the routes, which are loaded with it; None: what the feature's manifest has for its port, else
            everything that Foreman calls.
        needed: a member cannot serve without it.
    """

    listener: str
    service: str
    shows: Literal["member", "room"] | None
    mounts: Callable[[], tuple[Mount, ...]] | None = None
    needed: bool = False


# What Foreman and hosts call: every feature, on either as its setting ``enabled`` says.
PORTS = (Port("https", "smartproxy", "member", needed=True), Port("http", "anaconda", None))
