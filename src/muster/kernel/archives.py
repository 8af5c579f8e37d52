"""Tar archives that somebody else made: read whole, with limits, and nothing unpacked."""

from __future__ import annotations

import contextlib
import io
import lzma
import tarfile
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded

_XZ_MEMORY = 256 << 20


def _gzip(raw: bytes, most: int) -> tuple[bytes, bool]:
    gz = zlib.decompressobj(wbits=31)
    return gz.decompress(raw, most), gz.eof


def _bzip2(raw: bytes, most: int) -> tuple[bytes, bool]:
    bz = BZ2Decompressor()
    return bz.decompress(raw, most), bz.eof


def _xz(raw: bytes, most: int) -> tuple[bytes, bool]:
    xz = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    return xz.decompress(raw, most), xz.eof


# What a compression begins with, and what returns so many bytes and whether that was all.
_COMPRESSIONS: Mapping[str, tuple[bytes, Callable[[bytes, int], tuple[bytes, bool]]]] = {
    "gzip": (b"\x1f\x8b", _gzip),
    "bzip2": (b"BZh", _bzip2),
    "xz": (b"\xfd7zXZ\0", _xz),
}


@contextlib.contextmanager
def opened(
    path: Path,
    *,
    what: str,
    limit_bytes: int,
    whole_bytes: int,
    too_much: str,
    compressions: Collection[str] = tuple(_COMPRESSIONS),
) -> Iterator[tarfile.TarFile]:
    """Yield an archive of at most ``limit_bytes``, which decompressed has at most ``whole_bytes``.

    Whoever reads it counts its entries, and looks at their sizes before he reads them. ``too_much`` says what it holds where
    it is larger: ``more than settings are``.

    Raises:
        Misconfigured: it cannot be read, is none, or is larger; also while it is read within.
    """
    whole = _unpacked(read_bounded(path, what=what, limit_bytes=limit_bytes), path, whole_bytes, too_much, compressions)
    try:
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as tar:
            yield tar
    # A size that no file has overflows in the library.
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as e:
        raise Misconfigured(f"{path} is no tar archive that can be read: {e}") from e


def _unpacked(raw: bytes, path: Path, most: int, too_much: str, compressions: Collection[str]) -> bytes:
    """Return the archive without its compression, whose limit counts before anything is made of it."""
    for name in compressions:
        head, decompressed = _COMPRESSIONS[name]
        if not raw.startswith(head):
            continue
        try:
            found, ended = decompressed(raw, most + 1)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as e:
            raise Misconfigured(f"{path} cannot be decompressed: {e}") from e
        if len(found) > most:
            raise Misconfigured(f"{path} holds {too_much}")
        if not ended:
            raise Misconfigured(f"{path} ends too early: it was copied in part")
        return found
    return raw
