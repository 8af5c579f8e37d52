from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content import index
from muster.content.index import Expected, Index
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.primary import Package
from muster.kernel.errors import NotFound, Unavailable

A, B, C = "a" * 64, "b" * 96, "c" * 128
THREE = [
    Package("Packages/a.rpm", 1, "sha256", A),
    Package("ä b.rpm", 2**40, "sha384", B),
    Package("c", 0, "sha512", C),
]


def many(count: int) -> list[Package]:
    return [
        Package(f"Packages/p/p{n}-1.0-1.noarch.rpm", n, "sha256", hashlib.sha256(b"%d" % n).hexdigest())
        for n in range(count)
    ]


def found(path: Path, href: str) -> Expected | None:
    with closing(Index.opened(path)) as opened:
        return opened.find(href)


def test_each_package_is_found_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "index"
    assert index.write(path, THREE) == 3
    with closing(Index.opened(path)) as opened:
        assert len(opened) == 3
        assert opened.find("Packages/a.rpm") == Expected(1, "sha256", A)
        assert opened.find("ä b.rpm") == Expected(2**40, "sha384", B)
        assert opened.find("c") == Expected(0, "sha512", C)
        for other in ("", "Packages/a.rp", "/c", "c/", "C", "%63", "a\u0308 b.rpm", "\ud800", "x" * 5000):
            assert opened.find(other) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4096, 4097, 10_000])
def test_any_number_of_packages_is_found(tmp_path: Path, count: int) -> None:
    path = tmp_path / "index"
    packages = many(count)
    assert index.write(path, packages) == count
    with closing(Index.opened(path)) as opened:
        assert len(opened) == count
        for package in packages:
            assert opened.find(package.href) == package[1:]
            assert opened.find(package.href + "x") is None


@pytest.mark.parametrize(("count", "most"), [(40, 1), (10_000, 3), (100_000, 4)])
def test_a_disk_is_asked_a_few_times_for_one_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, most: int
) -> None:
    path = tmp_path / "index"
    packages = many(count)
    index.write(path, packages)
    reads: list[int] = []
    pread = os.pread

    def counted(descriptor: int, length: int, at: int) -> bytes:
        reads.append(length)
        return pread(descriptor, length, at)

    with closing(Index.opened(path)) as opened:
        monkeypatch.setattr(os, "pread", counted)
        for package in random.Random(count).sample(packages, 40):
            for href in (package.href, package.href + "x"):
                reads.clear()
                opened.find(href)
                assert len(reads) <= most, href
                assert max(reads) <= 8192


def test_paths_whose_digests_lie_close_together_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(href: bytes) -> bytes:
        return b"\xff" * 16 if href == b"last" else int(href[1:]).to_bytes(16, "big")

    monkeypatch.setattr(index, "_key", close)
    path = tmp_path / "index"
    packages = [Package(f"p{n}", n, "sha256", A) for n in range(20_000)] + [Package("last", 7, "sha256", A)]
    index.write(path, packages)
    reads: list[int] = []
    pread = os.pread

    def counted(descriptor: int, length: int, at: int) -> bytes:
        reads.append(length)
        return pread(descriptor, length, at)

    with closing(Index.opened(path)) as opened:
        monkeypatch.setattr(os, "pread", counted)
        for package in (*packages[:300], *packages[9_000:9_300], *packages[-300:]):
            reads.clear()
            assert opened.find(package.href) == package[1:]
            assert len(reads) < 20


def test_the_same_packages_make_the_same_bytes(tmp_path: Path) -> None:
    packages = many(300)
    for name in ("one", "two"):
        random.Random(name).shuffle(packages)
        index.write(tmp_path / name, packages + packages[:7])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_path_with_different_bytes_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "index"
    first, second, same = THREE[0], THREE[0]._replace(digest="d" * 64), THREE[2]
    for packages in ([first, second, same], [second, same, first], [first, second, first, same, same]):
        assert index.write(path, packages) == 1
        assert (found(path, first.href), found(path, same.href)) == (None, Expected(0, "sha512", C))


def test_a_digest_that_proves_nothing_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "index"
    weak = [Package("a", 1, "sha1", "a" * 40), Package("b", 1, "md5", "a" * 32), Package("d", 1, "sha224", "a" * 56)]
    assert index.write(path, [*weak, *THREE]) == 3
    assert [found(path, p.href) for p in weak] == [None] * 3


def test_a_newer_one_takes_its_place_and_the_open_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.write(path, THREE, mode=0o640)
    with closing(Index.opened(path)) as before:
        index.write(path, THREE[:1])
        assert (before.find("c"), found(path, "c")) == (Expected(0, "sha512", C), None)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_one_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.write(path, THREE)

    def breaking() -> Iterator[Package]:
        yield THREE[0]
        raise Malformed("the rest is broken")

    with pytest.raises(Malformed, match="the rest is broken"):
        index.write(path, breaking())
    with pytest.raises(Malformed, match="more than 2 packages"):
        index.write(path, THREE, limit_packages=2)
    with pytest.raises(Unavailable):
        index.write(tmp_path / "none" / "index", THREE)
    assert found(path, "c") == Expected(0, "sha512", C)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Index.opened(tmp_path / "index")
    (tmp_path / "directory").mkdir()
    with pytest.raises(Unavailable):
        found(tmp_path / "directory", "c")


def test_one_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.write(path, THREE)
    body = path.read_bytes()
    for changed in (body[:9] + b"\2" + body[10:], b"SOMETHNG" + body[8:], b"<html></html>" * 20):
        path.write_bytes(changed)
        with pytest.raises(Malformed, match="no index of this version"):
            Index.opened(path)


def test_a_truncated_or_longer_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.write(path, THREE)
    body = path.read_bytes()
    for changed in [*(body[:n] for n in range(len(body))), body + b"\0", body + body[-89:]]:
        path.write_bytes(changed)
        with pytest.raises(Malformed):
            Index.opened(path)


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.write(path, THREE)
    body = path.read_bytes()
    for at in range(len(body)):
        path.write_bytes(body[:at] + bytes((body[at] ^ 0x41,)) + body[at + 1 :])
        with pytest.raises(Malformed):
            Index.opened(path)


def test_one_that_becomes_shorter_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.write(path, THREE)
    with closing(Index.opened(path)) as opened:
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(Malformed, match="became shorter"):
            opened.find("c")


@pytest.mark.parametrize("count", [0, 1, 4096, 4097])
def test_all_of_them_are_told_and_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    packages = many(count)
    index.write(tmp_path / "index", packages)
    reads = 0
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(descriptor, length, offset)

    with closing(Index.opened(tmp_path / "index")) as opened:
        monkeypatch.setattr(os, "pread", counted)
        assert sorted(opened) == sorted(p[1:] for p in packages)
        assert opened.totals() == (count, sum(p.size for p in packages))
        # In blocks, and not one by one.
        assert reads == 2 * -(-count // 4096)


def test_of_every_algorithm_and_size_the_whole_is_told(tmp_path: Path) -> None:
    index.write(tmp_path / "index", [*THREE, Package("the same", 1, "sha256", A)])
    with closing(Index.opened(tmp_path / "index")) as opened:
        assert sorted(opened) == sorted(p[1:] for p in (*THREE, THREE[0]))
        assert opened.totals() == (4, 2**40 + 2)
        (tmp_path / "index").write_bytes(b"")
        for asked in (opened.totals, lambda: list(opened)):
            with pytest.raises(Malformed, match="became shorter"):
                asked()


def test_a_closed_one_answers_nothing(tmp_path: Path) -> None:
    index.write(tmp_path / "index", THREE)
    opened = Index.opened(tmp_path / "index")
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="is closed"):
        opened.find("c")
    with pytest.raises(ValueError, match="is closed"):
        opened.totals()


@given(st.dictionaries(st.text("abc/ä", min_size=1, max_size=6), st.integers(0, 10**15 - 1), max_size=20))
def test_what_is_written_is_found(tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]) -> None:
    path = tmp_path_factory.mktemp("index") / "index"
    assert index.write(path, [Package(href, size, "sha256", A) for href, size in sizes.items()]) == len(sizes)
    with closing(Index.opened(path)) as opened:
        for href in (*sizes, "other"):
            expected = Expected(sizes[href], "sha256", A) if href in sizes else None
            assert opened.find(href) == expected
