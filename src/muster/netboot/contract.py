"""What the tree of boot files promises to whoever changes it and to whoever serves from it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from muster.kernel.errors import Rejected
from muster.kernel.names import shown

# Printable ASCII but the backslash, which some firmware means as a slash.
_COMPONENT = re.compile(r"[ -\[\]-~]{1,255}\Z")
_LIMIT_CHARACTERS = 1024
# What a file that is written here as a whole may have; larger ones are fetched, or imported.
LIMIT_WRITTEN_BYTES = 16 << 20
PASSED_BYTES = 4 << 20
"""How much of a file that is passed on from another member is held at once."""
FEATURES = ("tftp", "httpboot")
"""The features that serve from the tree: a member without them has it not."""
# Where members keep what is theirs; no boot file is below it.
HIDDEN = ".muster"


@dataclass(frozen=True, order=True, slots=True)
class BootPath:
    """The path of a boot file below the tree's root: ``pxelinux.cfg/default``. Hashable; never leads out of the root."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return a path as it is written: relative, of plain components.

        Raises:
            Rejected: it is absolute, leads elsewhere, or has other characters than printable ASCII.
        """
        parts = text.split("/") if len(text) <= _LIMIT_CHARACTERS else []
        if not parts or not all(_COMPONENT.match(p) and p not in (".", "..") for p in parts) or parts[0] == HIDDEN:
            raise Rejected(f"{shown(text)} is no path of a boot file: those are relative, of plain names")
        return cls(text)

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The directory it is in, empty at the root."""
        return self.text.rpartition("/")[0]

    def is_below(self, directory: str) -> bool:
        return self.text.startswith(f"{directory}/") if directory else True

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Put:
    """A file has this content from now on; at most :data:`LIMIT_WRITTEN_BYTES`."""

    path: BootPath
    content: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link stands at ``path``.

    Attributes:
        target: relative to the link's directory, as it is written into the link; it stays below the root, and may lead to
            what is not there yet.
    """

    path: BootPath
    target: str


@dataclass(frozen=True, slots=True)
class Remove:
    """There is no file or link at ``path``; none was there, or there is none any more."""

    path: BootPath


@dataclass(frozen=True, slots=True)
class RemoveBelow:
    """There is nothing below a directory whose name ends as given.

    Attributes:
        suffix: ``.efi``; empty: nothing at all.
        directly: in the directory itself only, and not further below it.
    """

    directory: BootPath
    suffix: str = ""
    directly: bool = False


Change = Put | Link | Remove | RemoveBelow


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a path.

    Attributes:
        kind: ``file`` or ``link``.
        digest: SHA-256 of a file's bytes, hexadecimal; empty of a link.
        size: in bytes; 0 of a link.
        target: of a link; empty of a file.
        version: of the tree, in which it came to stand there.
        modified_at: seconds since the epoch: when it was written, or, of what was fetched, what its origin said.
        origin: the URL it was fetched from; empty: it was written.
    """

    path: BootPath
    kind: Literal["file", "link"]
    version: int
    digest: str = ""
    size: int = 0
    target: str = ""
    modified_at: float = 0.0
    origin: str = ""


FetchState = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Fetch:
    """How far it is to fetch one boot file.

    Attributes:
        url: without a password.
        member: who fetches it, or did.
        done_bytes: that have come; of a file that stands already as its origin has it, its size.
        total_bytes: as the origin says; None: it does not, or was not heard.
        why: of a failed one, one sentence; else empty.
        started_at, ended_at: store time; None: not yet.
    """

    path: BootPath
    url: str
    state: FetchState
    member: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None
    why: str = ""
    started_at: float | None = None
    ended_at: float | None = None


class BootFiles(Protocol):
    """The cluster's tree of boot files, on one member.

    Attributes:
        root: the directory of this member in which the tree stands, for whoever serves it; foreign files may be in it,
            and are left alone. Files there are replaced by renaming, never written to.

    Concurrency: any number of calls of any number of members at once; those that change something take effect one after
    another, each as a whole.
    """

    root: Path

    async def read(self, path: BootPath) -> bytes:
        """Return a file's bytes as the cluster has them, or, without the store, as this member has them.

        Raises:
            NotFound: there is no such file; ``path`` may be a directory or a link.
            Rejected: it is larger than :data:`LIMIT_WRITTEN_BYTES`.
        """

    async def listed(self, directory: str = "") -> Sequence[Entry]:
        """Return everything below a directory, by path; empty where nothing is.

        Raises:
            Unavailable: the store did not answer.
        """

    async def lookup(self, path: BootPath) -> Entry | None:
        """Return what stands at a path; None: nothing, or a directory.

        Raises:
            Unavailable: the store did not answer.
        """

    async def change(self, changes: Sequence[Change], *, about: str = "") -> None:
        """Have all that is asked for, or none of it, and return when every ready member serves it.

        Who does not confirm it in time is made unready first, and comes back when it has caught up.

        Args:
            changes: carried out in their order.
            about: whose boot it is: a hardware address, for a boot's story; empty: nobody's.

        Raises:
            Rejected: too much, a link that leaves the root, or a file where a directory is, or the other way round;
                nothing was changed.
            Unavailable: the store did not answer, or no member has it yet; whether it will be is unknown.
        """

    async def fetch(self, path: BootPath, url: str, *, wait_s: float, about: str = "") -> Fetch:
        """Have a file fetched, once for the cluster, unless it stands already as its origin has it.

        Returns:
            how far it is: at its end when that came within ``wait_s`` seconds, and every ready member serves it by then;
            else on the way, and it goes on. One that is on the way already is waited for, and not begun again.

        Raises:
            Rejected: another scheme, or no such URL; nothing was begun.
            Unavailable: the store did not answer.
        """

    async def fetches(self) -> Sequence[Fetch]:
        """Return what is being fetched, and what was lately, newest first.

        Raises:
            Unavailable: the store did not answer.
        """

    def passed(self, entry: Entry, first: int, count: int) -> AsyncGenerator[bytes, None]:
        """Yield so many bytes of a file from a position on, from other members; for what ``root`` lacks meanwhile.

        Pieces are at most :data:`PASSED_BYTES` long, and each is asked for when it is wanted: who reads slowly holds up
        nobody. A file that is passed whole and is not what it is called ends in an error before its last piece.

        Raises:
            NotFound: nobody has it.
            Unavailable: whoever may have it did not give the next piece.
        """

    async def current(self) -> None:
        """Return when this member's directory is as the cluster's tree was when this was called, or nobody can tell.

        To be asked before something is served from ``root``; without a lapse it returns at once.

        Raises:
            Unavailable: it is behind, and does not come.
        """
