"""Which version of a repository a client was given, for files whose names tell no version from another.

``Packages.gz`` of one version of a deb suite has the name of any other's. A client that has the ``InRelease`` of one needs
that one's, also when another is shown by then, and from whichever member it asks. Who answered it remembers, in its own
memory; while a version is new the other members ask.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from muster.content.fill import Behind

PATH = "/.muster/given"
"""Below it other members ask, by :func:`key`."""

COUNTS_S = 600.0
"""For so long it counts; a run of apt has ended by then. As long a version is new."""

# Some 250 bytes each.
_MOST = 100_000
_WORDS = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,6}(?:\.[0-9]{1,6})?)\Z")


class Given(NamedTuple):
    """What a client was given: the digest of the version's manifest, and how long ago."""

    manifest: str
    age_s: float

    def written(self) -> bytes:
        """Return it as members tell it to each other."""
        return f"{self.manifest} {self.age_s:.3f}".encode()

    @classmethod
    def read(cls, body: bytes) -> Given | None:
        """Return what another member told; None: it is none."""
        found = _WORDS.match(body)
        return cls(found[1].decode(), float(found[2])) if found else None


class Clients(NamedTuple):
    """Who remembers, as it is asked in one process of a member.

    Attributes:
        note: remembers that a client was given a version: by :func:`key`, the digest of its manifest.
        noted: returns what this member remembers of a client.
    """

    note: Callable[[str, str], Awaitable[None]]
    noted: Callable[[str], Awaitable[Given | None]]


class Remembered:
    """A member's memory. Concurrency: one loop."""

    def __init__(self, *, most: int = _MOST, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._now = most, now
        self._given: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._given)

    async def note(self, key: str, manifest: str) -> None:
        """Remember what a client was given now; whoever was given something longest ago is forgotten first."""
        self._given[bytes.fromhex(key)] = manifest, self._now()
        self._given.move_to_end(bytes.fromhex(key))
        if len(self._given) > self._most:
            self._given.popitem(last=False)

    async def noted(self, key: str) -> Given | None:
        """Return what a client was given last, while that counts."""
        manifest, at = self._given.get(bytes.fromhex(key), ("", 0.0))
        age_s = self._now() - at
        return Given(manifest, age_s) if manifest and age_s < COUNTS_S else None

    async def asked(self, question: Any) -> Any:
        """As :meth:`note`, then :meth:`noted`, for another process of this member: a key, and a manifest or nothing."""
        key, manifest = question
        if manifest:
            await self.note(key, manifest)
        return await self.noted(key)


def key(repository: str, client: Behind) -> str:
    """Return what a client is called here: its certificate, or its address where it has none, for one repository.

    Clients without certificates behind one address are one.
    """
    who = client.certificate if client.certificate is not None else client.address.encode()
    return hashlib.blake2b(hashlib.sha256(who).digest() + repository.encode(), digest_size=16).hexdigest()
