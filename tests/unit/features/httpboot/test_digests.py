from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from muster.content.files import Opened
from muster.content.validators import Digest
from muster.features.httpboot.digests import Digests


def opened(path: Path) -> Opened:
    file = Opened.of(os.open(path, os.O_RDONLY))
    assert file is not None
    return file


def known(digests: Digests, path: Path) -> Digest | None:
    file = opened(path)
    try:
        return digests.of(file)
    finally:
        file.close()


def sha256(content: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(content).hexdigest())


def test_the_digest_of_a_small_file_is_known_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with Digests() as digests:
        for content in (b"", b"one", b"other"):
            path.write_bytes(content)
            assert known(digests, path) == sha256(content)


def test_equal_bytes_in_another_file_have_the_same(tmp_path: Path) -> None:
    for name, moment in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).write_bytes(b"same")
        os.utime(tmp_path / name, (moment, moment))
    with Digests() as digests:
        assert known(digests, tmp_path / "a") == known(digests, tmp_path / "b")


def test_that_of_a_large_one_is_known_later_and_nobody_waits(tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    (tmp_path / "a").write_bytes(content)
    with Digests() as digests:
        assert known(digests, tmp_path / "a") is None
        end = time.monotonic() + 10
        while (found := known(digests, tmp_path / "a")) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert found == sha256(content)


def test_a_file_that_grows_meanwhile_has_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with Digests() as digests:
        file = opened(tmp_path / "a")
        (tmp_path / "a").write_bytes(b"xy")
        assert digests.of(file) is None
        file.close()


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def refused(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with Digests() as digests:
        monkeypatch.setattr(os, "pread", refused)
        with pytest.raises(OSError, match="Input/output error"):
            known(digests, tmp_path / "a")


def test_the_block_ends_although_files_are_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as f:
        f.truncate(4 << 30)
    started = time.monotonic()
    with Digests() as digests:
        assert known(digests, tmp_path / "a") is None
    assert time.monotonic() - started < 2
    assert known(digests, tmp_path / "a") is None
