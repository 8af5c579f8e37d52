from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.primary import Package, packages
from tests.unit.content.metadata.documents import A, B, C, bytewise, package, primary

NAME = "Packages/n/name-1.0-1.noarch.rpm"


def read(body: bytes) -> list[Package]:
    found = list(packages([body]))
    assert found == list(packages(bytewise(body)))
    return found


def test_packages_are_told_with_what_their_bytes_are() -> None:
    body = primary(
        package(),
        package(href="a b/c+d~e^f&amp;ä.rpm", checksum=f'<checksum type="sha512" pkgid="YES">{C}</checksum>'),
        package(href="b", checksum=f'<checksum type="sha384" pkgid="YES">{B}</checksum>', size='<size package="0"/>'),
        package(href="c", checksum=f'<checksum type="sha" pkgid="YES">{A[:40]}</checksum>'),
    )
    assert read(body) == [
        Package(NAME, 1693, "sha256", A),
        Package("a b/c+d~e^f&ä.rpm", 1693, "sha512", C),
        Package("b", 0, "sha384", B),
        Package("c", 1693, "sha1", A[:40]),
    ]


def test_an_empty_repository_has_none() -> None:
    assert read(primary()) == []


def test_fields_count_in_their_place_alone() -> None:
    inner = '<format><location href="x"/><size package="1"/><checksum type="sha256">0</checksum></format>'
    assert read(primary(package(more=inner))) == [Package(NAME, 1693, "sha256", A)]


@pytest.mark.parametrize(
    "other",
    [
        package(location='<location xml:base="http://other.test/" href="x"/>'),
        package(location='<location xml:base="" href="x"/>'),
        package(href="http://other.test/x"), package(href="../x"), package(href="/x"), package(href="./x"),
        package(href="x//y"),
        package(href="x%20y"), package(href="x?y"), package(href="x&#9;y"), package(kind="patch"),
        '<package type="patch"><name>x</name></package>',
    ],
)  # fmt: skip
def test_what_no_client_fetches_by_that_path_is_left_out(other: str) -> None:
    assert [p.href for p in read(primary(other, package(), other))] == [NAME]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (package(location=""), "no location"), (package(location="<location/>"), "empty location"),
        (package(href=""), "empty location"),
        (package(size=""), "no size"), (package(size="<size/>"), "no size that is one"),
        (package(size='<size package="-1"/>'), "no size that"),
        (package(checksum=""), "no checksum"), (package(checksum="<checksum/>"), "no checksum that"),
        (package(checksum=f'<checksum type="sha256">{A}0</checksum>'), "no checksum that"),
        (package(checksum=f'<checksum type="sha256">{A}</checksum>' * 2), "checksum is there twice"),
        (package(more='<location href="x"/>'), "location is there twice"),
        ("<package", "no well-formed XML"), ("&e;", "no well-formed XML"), ("</metadata>", "no well-formed XML"),
    ],
)  # fmt: skip
def test_a_package_that_is_not_said_whole_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading /r/p.xml failed: .*{why}"):
        list(packages([primary(package(href="before"), wrong)], of="/r/p.xml"))


@pytest.mark.parametrize(
    "body",
    [
        b"", primary(package())[:-3], b"<repomd/>", b"<html></html>",
        primary(package()).replace(b"UTF-8", b"latin-1"),
        primary(package()).decode().encode("utf-16"),
        b"<!DOCTYPE metadata [<!ENTITY e 'x'>]>" + primary().partition(b"\n")[2],
    ],
)  # fmt: skip
def test_what_is_no_primary_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(packages([body]))


def test_packages_are_limited() -> None:
    body = primary(*[package(href=f"p/{n}") for n in range(11)])
    assert len(list(packages([body], limit_packages=11))) == 11
    with pytest.raises(Malformed, match="more than 10 entries"):
        list(packages([body], limit_packages=10))


def test_memory_does_not_grow_with_it() -> None:
    def coming(count: int) -> Iterator[bytes]:
        head, _, tail = primary("*", count=count).partition(b"*")
        yield head
        for n in range(count):
            yield package(href=f"Packages/p/{n}.rpm").encode()
        yield tail

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in packages(coming(count))) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(3000) < peak(300) + (64 << 10)


@given(st.binary(max_size=4), st.integers(0, 10_000))
def test_whatever_comes_is_read_or_refused(change: bytes, at: int) -> None:
    body = primary(package(), package(href="other"))
    at %= len(body)
    with contextlib.suppress(Malformed):
        list(packages([body[:at] + change + body[at + 1 :]]))
