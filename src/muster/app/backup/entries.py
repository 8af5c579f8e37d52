"""The tar archive within: written and read as a stream, each entry a plain file with a short header and nothing else.

Any tar reads what is written. What is read may be anybody's: whoever knows a recipient can encrypt for him. So it is not
unpacked, and of all that a tar can hold only what is written here is taken: no links, no devices, no longer names.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown

_BLOCK = 512
_PIECE = 1 << 20
_MOST_ENTRIES = 1_000_000


@dataclass(frozen=True)
class Sum:
    """What an entry is checked by."""

    size: int
    sha256: str


class Packed:
    """An archive that is being written.

    Attributes:
        sums: of every entry so far, by name.
    """

    def __init__(self, out: IO[bytes], *, at: int) -> None:
        self._out, self._at = out, at
        self.sums: dict[str, Sum] = {}

    def add(self, name: str, content: bytes) -> None:
        """Write one entry.

        Raises:
            ValueError: its name is longer than an entry's can be.
        """
        self._out.write(header(name, len(content), self._at))
        self._out.write(content)
        self._out.write(bytes(-len(content) % _BLOCK))
        self.sums[name] = Sum(len(content), hashlib.sha256(content).hexdigest())

    def end(self) -> None:
        self._out.write(bytes(2 * _BLOCK))


def header(name: str, size: int, at: int) -> bytes:
    """Return the header of an entry.

    Raises:
        ValueError: its name is longer than an entry's can be.
    """
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, at, 0o600
    entry.uname = entry.gname = "root"
    return entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end."""


@dataclass(frozen=True)
class Entry:
    """One entry as it is read, once, before the next.

    Attributes:
        pieces: its content, in order.
    """

    name: str
    size: int
    pieces: Callable[[], Iterator[bytes]]

    def content(self, limit_bytes: int) -> bytes:
        """Return it whole.

        Raises:
            Misconfigured: it is larger, which is found before it is read.
        """
        if self.size > limit_bytes:
            raise Misconfigured(f"{shown(self.name)} in it has {self.size} bytes; {limit_bytes} are the most")
        return b"".join(self.pieces())


def entries(stream: Readable, where: str) -> Iterator[Entry]:
    """Yield an archive's entries; what nobody read of one is passed over. Whatever follows the end is refused.

    Raises:
        Misconfigured: it is no such archive.
    """
    seen: set[str] = set()
    while True:
        block = stream.read(_BLOCK)
        if block == bytes(_BLOCK):
            _refuse_more(stream, where)
            return
        entry = _entry(block, where)
        if entry.name in seen:
            raise Misconfigured(f"{where} holds {shown(entry.name)} twice")
        seen.add(entry.name)
        if len(seen) > _MOST_ENTRIES:
            raise Misconfigured(f"{where} holds more than {_MOST_ENTRIES} entries")
        left = [entry.size + -entry.size % _BLOCK, entry.size]

        def pieces(left: list[int] = left) -> Iterator[bytes]:
            while left[0]:
                piece = stream.read(min(_PIECE, left[0]))
                if not piece:
                    raise Misconfigured(f"{where} ends within an entry")
                left[0] -= len(piece)
                yield piece[: left[1]]
                left[1] -= min(left[1], len(piece))

        yield Entry(entry.name, entry.size, pieces)
        for _ in pieces():
            pass


def _entry(block: bytes, where: str) -> tarfile.TarInfo:
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as e:
        raise Misconfigured(f"{where} is no archive that muster backup made: {e}") from e
    if entry.type != tarfile.REGTYPE or entry.size < 0:
        raise Misconfigured(f"{where} holds {shown(entry.name)}, which is no plain file")
    return entry


def _refuse_more(stream: Readable, where: str) -> None:
    while piece := stream.read(_PIECE):
        if piece.strip(b"\0"):
            raise Misconfigured(f"{where} holds something behind its end")
