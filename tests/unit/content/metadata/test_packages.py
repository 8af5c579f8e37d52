from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.packages import packages
from muster.content.metadata.packed import unpacked
from muster.content.metadata.primary import Package
from tests.unit.content.metadata.documents import A, C, bytewise

NAME = "pool/main/n/name/name_1.0-1_all.deb"


def stanza(*, name: str = f"Filename: {NAME}\n", size: str = "Size: 1693\n", digest: str = f"SHA256: {A}\n") -> str:
    return (
        f"Package: name\nVersion: 1.0-1\nArchitecture: all\nDepends: a (>= 1), b:any | c\n{name}{size}MD5sum: {A[:32]}\n"
        f"{digest}Description: ä\n two\n .\n lines\nTag: x::y,\n z\n\n"
    )


def read(*listed: str) -> list[Package]:
    body = "".join(listed).encode()
    found = list(packages([body]))
    assert found == list(packages(bytewise(body)))
    return found


def test_packages_are_told_with_what_their_bytes_are() -> None:
    assert read(
        stanza(),
        stanza(name="filename: pool/a b/c+d~e^f_ä.deb\n", digest=f"SHA512: {C}\n"),
        stanza(name="Filename: b\n", digest=f"SHA512: {C}\nSHA256: {A.upper()}\n", size="Size: 0\n"),
        stanza(name="Filename: c\n", digest=f"SHA1: {A[:40]}\n"),
        stanza(name="Filename: d\n", digest=""),
    ) == [
        Package(NAME, 1693, "sha256", A),
        Package("pool/a b/c+d~e^f_ä.deb", 1693, "sha512", C),
        Package("b", 0, "sha256", A),
        Package("c", 1693, "sha1", A[:40]),
        Package("d", 1693, "md5", A[:32]),
    ]


def test_an_empty_list_has_none() -> None:
    assert read() == read("\n") == []


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, bz2.compress, lzma.compress])
def test_it_is_read_as_it_is_packed(pack: Callable[[bytes], bytes]) -> None:
    body = pack((stanza() * 500).encode())
    found = list(packages(unpacked([body], of="Packages", limit_bytes=1 << 20)))
    assert found == [Package(NAME, 1693, "sha256", A)] * 500


@pytest.mark.parametrize(
    "href", ["./x.deb", "../x.deb", "/x.deb", "pool//x.deb", "x%20y.deb", "http://other.test/x.deb"]
)
def test_what_no_client_fetches_by_that_path_is_left_out(href: str) -> None:
    assert [p.href for p in read(stanza(name=f"Filename: {href}\n"), stanza())] == [NAME]
    heard: list[str] = []
    list(packages([stanza(name=f"Filename: {href}\n").encode()], left_out=heard.append))
    assert heard == [href]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (stanza(name=""), "no Filename"), (stanza(name="Filename:\n"), "no Filename"),
        (stanza(name="Filename: x\n y\n"), "filename has several lines"),
        (stanza(size=""), "no Size that is one"), (stanza(size="Size: -1\n"), "no Size that is one"),
        (stanza(size="Size: 1\n 2\n"), "size has several lines"),
        (stanza(digest=f"SHA256: {A}0\n"), "no digest that is one"), (stanza(digest="SHA256:\n"), "no digest"),
        (stanza(digest=f"SHA256: {A}\nSha256: {A}\n"), "sha256 is there twice"),
        (stanza(name="nothing\n"), "line 20 is no field"),
        (stanza(name=f"Filename: {NAME}\n{('Filler: ' + 'x' * 10_000 + chr(10)) * 110}"), "larger than 1048576 bytes"),
    ],
)  # fmt: skip
def test_a_package_that_is_not_said_whole_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading /r/Packages failed: .*{why}"):
        list(packages([(stanza() + wrong).encode()], of="/r/Packages"))


def test_there_are_no_more_than_the_limit() -> None:
    body = (stanza() * 3).encode()
    assert len(list(packages([body], limit_packages=3))) == 3
    with pytest.raises(Malformed, match="more than 2 entries"):
        list(packages([body], limit_packages=2))
