from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import random
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.packed import unpacked
from tests.unit.content.metadata.documents import bytewise

PLAIN = b"<metadata>" + b"0123456789abcdef" * 20_000 + b"</metadata>"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "xml": bytes,
}
PACKED = [kind for kind in PACK if kind != "xml"]


def read(body: bytes, name: str = "primary.xml", *, limit_bytes: int = 1 << 20) -> bytes:
    return b"".join(unpacked([body], of=name, limit_bytes=limit_bytes))


@pytest.mark.parametrize("kind", PACK)
def test_every_packing_is_read_whatever_the_pieces(kind: str) -> None:
    body = PACK[kind](PLAIN)
    assert read(body, f"primary.{kind}") == PLAIN
    assert b"".join(unpacked(bytewise(body), of=f"primary.{kind}", limit_bytes=1 << 20)) == PLAIN
    assert all(len(piece) <= 64 << 10 for piece in unpacked([body], of="primary", limit_bytes=1 << 20))


@pytest.mark.parametrize("kind", PACKED)
def test_what_a_file_begins_with_counts_and_not_its_name(kind: str) -> None:
    assert read(PACK[kind](PLAIN), "primary.xml") == PLAIN
    assert read(PACK[kind](PLAIN), "primary.xml.gz") == PLAIN


@pytest.mark.parametrize("kind", PACKED)
def test_a_name_that_promises_a_packing_needs_one(kind: str) -> None:
    for body in (b"", b"<", b"<metadata/>"):
        with pytest.raises(Malformed, match="it is not packed with"):
            read(body, f"primary.xml.{kind}")


def test_an_empty_plain_file_is_empty() -> None:
    assert (read(b""), list(unpacked([], of="x", limit_bytes=1)), read(PACK["zst"](b""))) == (b"", [], b"")


@pytest.mark.parametrize("kind", PACKED)
def test_streams_that_follow_each_other_are_one_file(kind: str) -> None:
    pack = PACK[kind]
    body = pack(b"one") + pack(b"") + pack(PLAIN) + pack(b"three")
    assert read(body) == b"one" + PLAIN + b"three"
    assert b"".join(unpacked(bytewise(body), of="x", limit_bytes=1 << 20)) == b"one" + PLAIN + b"three"


@pytest.mark.parametrize("kind", PACKED)
def test_a_truncated_stream_is_an_error(kind: str) -> None:
    for body in (PACK[kind](PLAIN), PACK[kind](b"one") + PACK[kind](b"two" * 9)):
        for length in (6, len(body) // 2, len(body) - 1):
            with pytest.raises(Malformed, match="ends too early"):
                read(body[:length], "primary")


@pytest.mark.parametrize("kind", PACKED)
def test_a_broken_stream_is_an_error(kind: str) -> None:
    body = bytearray(PACK[kind](random.Random(1).randbytes(50_000)))
    body[len(body) // 2] ^= 0xFF
    with pytest.raises(Malformed, match="is broken"):
        read(bytes(body))


@pytest.mark.parametrize("kind", PACK)
def test_no_more_is_given_than_the_limit(kind: str) -> None:
    body = PACK[kind](bytes(1 << 20))
    assert len(read(body, limit_bytes=1 << 20)) == 1 << 20
    told: list[bytes] = []
    with pytest.raises(Malformed, match=f"it holds more than {300 << 10} bytes"):
        told.extend(unpacked([body], of="primary", limit_bytes=300 << 10))
    assert sum(map(len, told)) <= 300 << 10


@pytest.mark.parametrize(
    ("kind", "rest", "is_read"),
    [
        ("gz", b"\0" * 500, True), ("gz", b"garbage", True), ("gz", b"\0" + gzip.compress(b"more", mtime=0), True),
        ("bz2", b"\0\0", True), ("bz2", b"garbage", True), ("xz", b"\0" * 8, True),
        ("gz", b"\x1f", False), ("gz", b"\x1f\x8bgarbage!!", False), ("bz2", b"BZ", False), ("bz2", b"BZhx", False),
        ("xz", b"\0" * 7, False), ("xz", b"garbage", False), ("xz", b"\0\0\0\0garbage", False),
        ("zst", b"\0\0\0\0", False), ("zst", b"garbage", False),
    ],
)  # fmt: skip
def test_what_follows_is_treated_as_the_programs_do(kind: str, rest: bytes, is_read: bool) -> None:
    body = PACK[kind](b"whole") + rest
    for pieces in ([body], bytewise(body)):
        if is_read:
            assert b"".join(unpacked(pieces, of="x", limit_bytes=100)) == b"whole"
        else:
            with pytest.raises(Malformed):
                list(unpacked(pieces, of="x", limit_bytes=100))


def test_what_is_ignored_is_taken_all_the_same() -> None:
    left = iter([gzip.compress(b"whole"), b"garbage", b"garbage"])
    assert b"".join(unpacked(left, of="x", limit_bytes=100)) == b"whole"
    assert next(left, None) is None


def test_zeros_between_two_xz_streams_are_passed_over() -> None:
    assert read(lzma.compress(b"one") + bytes(8) + lzma.compress(b"two")) == b"onetwo"


def test_a_frame_that_is_skipped_is_no_data() -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"
    assert read(skipped + zstd.compress(b"one") + skipped + zstd.compress(b"two")) == b"onetwo"


def test_a_window_larger_than_the_program_opens_is_refused() -> None:
    # A frame's head alone: a window of 256 MiB.
    with pytest.raises(Malformed, match="is broken"):
        read(b"\x28\xb5\x2f\xfd\x00\x90" + bytes(20))


def test_zchunk_is_named() -> None:
    for body, name in ((b"\0ZCK1" + bytes(20), "primary.xml.zck"), (b"\0ZCK1", "x"), (b"other", "x.zck")):
        with pytest.raises(Malformed, match="zchunk, which is not read here"):
            read(body, name)


def test_streams_are_counted() -> None:
    with pytest.raises(Malformed, match="more than 65536 gzip streams"):
        read(gzip.compress(b"", mtime=0) * ((1 << 16) + 1))


@given(st.binary(max_size=200), st.sampled_from(PACKED), st.integers(0, 60), st.integers(0, 255))
def test_whatever_comes_is_read_or_refused(data: bytes, kind: str, at: int, byte: int) -> None:
    body = bytearray(PACK[kind](data))
    body[at % len(body)] = byte
    for seen in (bytes(body), data):
        with contextlib.suppress(Malformed):
            assert len(read(seen, limit_bytes=1000)) <= 1000
