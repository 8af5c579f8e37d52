"""A file of which only what is appended is read, as long as it is the same: dhcpd.leases between two of dhcpd's rewrites."""

from __future__ import annotations

import os
from pathlib import Path

WHOLE_BYTES = 1 << 20
"""So much is told at once; less means that there was no more."""

_TAIL_BYTES = 256

Seen = tuple[int, int, int, int] | None


class Appended:
    """One file, read as far as somebody took what follows. Made and asked in threads; closed when nobody asks any more.

    Attributes:
        offset: how many bytes were taken.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = b""
        self.offset = 0
        # Open as long as it is followed, so that no other file can get its number.
        self._file = path.open("rb", buffering=0)

    def following(self) -> bytes | None:
        """Return what follows, a part of it if it is much; None: another file stands there, or other text than was taken.

        Raises:
            OSError: there is no such file now.
        """
        now, held = self._path.stat(), os.fstat(self._file.fileno())
        if (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino) or now.st_size < self.offset:
            return None
        # Written anew in its place and longer than before, it has something else where we stopped.
        start = self.offset - len(self._tail)
        # No more than there was when it was looked at: mostly that is nothing, and room for a MiB takes its time.
        found = os.pread(self._file.fileno(), min(len(self._tail) + WHOLE_BYTES, now.st_size - start), start)
        return found[len(self._tail) :] if found.startswith(self._tail) else None

    def took(self, piece: bytes) -> None:
        """Go on behind what was told; also behind a part of it."""
        self.offset += len(piece)
        self._tail = (self._tail + piece)[-_TAIL_BYTES:] if len(piece) < _TAIL_BYTES else piece[-_TAIL_BYTES:]

    def close(self) -> None:
        self._file.close()


def seen(path: Path) -> Seen:
    """Return what tells one version of a file from another; None: it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
