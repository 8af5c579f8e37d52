"""Archives of somebody else's: whatever is wrong with one is a sentence, and nothing larger than its limit is made of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.kernel.archives import opened
from muster.kernel.errors import Misconfigured


def archive(content: bytes = b"hello", *, name: str = "settings.yml", size: bytes | None = None) -> bytes:
    """One file in an archive; its size as it stands in the header may be another."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    whole = bytearray(out.getvalue())
    if size is not None:
        whole[124:136] = size
        whole[148:156] = b" " * 8
        whole[148:156] = b"%06o\0 " % sum(whole[:512])
    return bytes(whole)


def read(path: Path, whole_bytes: int = 1 << 20, **changes: tuple[str, ...]) -> dict[str, bytes]:
    limits = {"limit_bytes": 1 << 20, "whole_bytes": whole_bytes}
    with opened(path, what="archive", too_much="more than is good", **limits, **changes) as tar:  # type: ignore[arg-type]
        return {entry.name: io.BytesIO(found.read()).getvalue() for entry in tar if (found := tar.extractfile(entry))}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_it_is_read_however_it_is_compressed_and_no_further_than_its_limit(
    compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    place = tmp_path / "a.tar"
    place.write_bytes(compress(archive()))
    assert read(place) == {"settings.yml": b"hello"}
    if compress is not bytes:
        with pytest.raises(Misconfigured, match="holds more than is good"):
            read(place, 1000)
        place.write_bytes(place.read_bytes()[:-12])
        with pytest.raises(Misconfigured, match="copied in part"):
            read(place)


def test_a_compression_that_is_not_asked_for_is_none(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    place.write_bytes(lzma.compress(archive()))
    with pytest.raises(Misconfigured, match="no tar archive"):
        read(place, compressions=("gzip",))


def test_a_size_that_no_file_has_is_said_in_a_sentence(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    place.write_bytes(archive(size=b"\x80" + b"\x7f" * 11))
    with pytest.raises(Misconfigured, match="no tar archive"):
        read(place)
