"""What happens to a machine while it boots, as the rooms that see it say it; who hears it, they do not know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from muster.kernel.errors import MusterError
from muster.kernel.names import MACAddress, shown

Kind = Literal[
    "offered", "reserved", "released", "configured", "unconfigured", "proxydhcp", "tftp", "http", "template", "built"
]
"""What it is.

``offered``: an address is promised (``unused_ip``); ``reserved``, ``released``: DHCP keeps an address for it, or does no
more;
``configured``, ``unconfigured``: its boot loader's menu is written or deleted; ``proxydhcp``: it is told what to load;
``tftp``, ``http``: it asks for a file; ``template``: it asks Foreman for one; ``built``: it says that it is installed.
"""

FAILED = "failed"
"""The detail that says why nothing came of it."""

LONGEST = 300
"""Characters of a text that is told: a path ends with what it is."""

Detail = str | int | None


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    Attributes:
        mac: the machine's; None: who sees it knows the address alone.
        address: the machine's IP address; empty: it has none, or none that is known.
        detail: what else there is to say, by words; never a secret, nor a URL's query.
    """

    kind: Kind
    mac: MACAddress | None = None
    address: str = ""
    detail: Mapping[str, Detail] = field(default_factory=dict)


class Tell(Protocol):
    """Who tells the story."""

    def __call__(self, one: Happening, /) -> None:
        """Note it; never waits, and raises nothing."""


def untold(_: Happening, /) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def told(tell: Tell, kind: Kind, mac: MACAddress | None, address: str, **detail: Detail) -> Iterator[None]:
    """Tell what the block does when it has ended, and if it failed, why."""
    try:
        yield
    except MusterError as e:
        tell(Happening(kind, mac, address, {**detail, FAILED: shown(str(e), LONGEST)}))
        raise
    tell(Happening(kind, mac, address, detail))
