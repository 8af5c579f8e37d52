"""Packed files as their plain bytes, piece by piece, in bounded memory.

What follows a packed stream is treated as the programs of the same name do: gzip and bzip2 ignore what is no further
stream, xz takes zeros in fours alone, zstd nothing.
"""

from __future__ import annotations

import bz2
import itertools
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from muster.content.metadata.malformed import Malformed

_PIECE_BYTES = 64 << 10
# xz -9 needs 65 MiB; a zstd window of 128 MiB is the largest that its program opens unasked.
_XZ_MEMORY_BYTES = 128 << 20
_ZSTD_WINDOW_LOG = 27
# Programs that pack in parallel write a stream for each 64 KiB or more; 4 GiB are as many.
_STREAMS = 1 << 16


class _Stream(Protocol):
    """One packed stream, as bz2, lzma and zstd have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...


class _Gzip:
    """One member; zlib's object, in the manner of the others."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not self._is_full and not self._member.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, /, max_length: int) -> bytes:
        out = self._member.decompress(self._member.unconsumed_tail + data, max_length)
        # More may wait inside, even when all input was taken.
        self._is_full = len(out) == max_length
        return out


def _bzip2() -> tuple[_Stream, type[Exception]]:
    return bz2.BZ2Decompressor(), OSError


def _gzip() -> tuple[_Stream, type[Exception]]:
    return _Gzip(), zlib.error


def _xz() -> tuple[_Stream, type[Exception]]:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), lzma.LZMAError


def _zstd() -> tuple[_Stream, type[Exception]]:
    # Loaded by whoever meets such a file.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    limits: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=limits), zstd.ZstdError


@dataclass(frozen=True, slots=True)
class _Packing:
    """A way to pack.

    Attributes:
        magics: how its streams begin.
        opened: makes what unpacks one stream; with it, what that raises for broken ones.
        ignores_rest: whether what follows a stream and is none itself does not matter.
        pads: whether zeros in fours may follow a stream.
    """

    name: str
    suffix: str
    magics: tuple[bytes, ...]
    opened: Callable[[], tuple[_Stream, type[Exception]]]
    ignores_rest: bool = False
    pads: bool = False


_PACKINGS = (
    _Packing("gzip", ".gz", (b"\x1f\x8b",), _gzip, ignores_rest=True),
    _Packing("bzip2", ".bz2", (b"BZh",), _bzip2, ignores_rest=True),
    _Packing("xz", ".xz", (b"\xfd7zXZ\0",), _xz, pads=True),
    # Frames of data, and those that are skipped: of these pzstd writes one before each other.
    _Packing("zstd", ".zst", (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))), _zstd),
)
_LONGEST_MAGIC = max(len(m) for p in _PACKINGS for m in p.magics)
# zchunk, for which Python has nothing; whoever writes it writes the same in another packing, too.
_ZCHUNK = b"\0ZCK1"


def unpacked(pieces: Iterable[bytes], *, of: str, limit_bytes: int) -> Iterator[bytes]:
    """Yield the plain bytes in pieces of at most 64 KiB.

    How they are packed is what they begin with; the name ``of`` says only that they are packed at all. ``pieces`` is read to
    its end.

    Raises:
        Malformed: a broken or truncated stream, more than ``limit_bytes`` plain bytes, a name that promises a packing where
            there is none, or a packing that is not read here (zchunk).
    """
    chunks = (piece[at : at + _PIECE_BYTES] for piece in pieces for at in range(0, len(piece), _PIECE_BYTES))
    head = _filled(b"", chunks, _LONGEST_MAGIC)
    found = next((p for p in _PACKINGS if head.startswith(p.magics)), None)
    if found is None and (head.startswith(_ZCHUNK) or of.endswith(".zck")):
        raise Malformed.reading(of, "it is packed with zchunk, which is not read here")
    promised = next((p for p in _PACKINGS if of.endswith(p.suffix)), None)
    if found is None and promised is not None:
        raise Malformed.reading(of, f"it is not packed with {promised.name}")
    given = 0
    coming = itertools.chain((head,) if head else (), chunks)
    for piece in _streams(found, coming, of) if found is not None else coming:
        given += len(piece)
        if given > limit_bytes:
            raise Malformed.reading(of, f"it holds more than {limit_bytes} bytes")
        yield piece


def _streams(packing: _Packing, chunks: Iterator[bytes], of: str) -> Iterator[bytes]:
    """Yield what the streams hold that follow each other; no chunk is empty."""
    data = b""
    for _ in range(_STREAMS):
        stream, broken = packing.opened()
        while not stream.eof:
            if not data and stream.needs_input:
                data = next(chunks, b"")
                if not data:
                    raise Malformed.reading(of, f"its {packing.name} stream ends too early")
            try:
                piece = stream.decompress(data, max_length=_PIECE_BYTES)
            except broken as e:
                raise Malformed.reading(of, f"its {packing.name} stream is broken: {e}") from e
            data = b""
            if piece:
                yield piece
        data = stream.unused_data
        if packing.pads:
            data = _without_padding(data, chunks, of)
        data = _filled(data, chunks, _LONGEST_MAGIC)
        if not data:
            return
        # What could be the beginning of another stream is one that ends too early.
        if packing.ignores_rest and not any(data.startswith(m) or m.startswith(data) for m in packing.magics):
            for _ignored in chunks:
                pass
            return
    raise Malformed.reading(of, f"it holds more than {_STREAMS} {packing.name} streams")


def _filled(data: bytes, chunks: Iterator[bytes], length: int) -> bytes:
    while len(data) < length and (more := next(chunks, b"")):
        data += more
    return data


def _without_padding(data: bytes, chunks: Iterator[bytes], of: str) -> bytes:
    zeros = 0
    while True:
        rest = data.lstrip(b"\0")
        zeros += len(data) - len(rest)
        if rest or not (data := next(chunks, b"")):
            break
    if zeros % 4:
        raise Malformed.reading(of, "the zeros after its xz stream are not a multiple of four")
    return rest
