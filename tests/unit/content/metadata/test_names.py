from __future__ import annotations

import posixpath
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.names import checksum, is_inside, whole_number
from tests.unit.content.metadata.documents import A, B, C


@pytest.mark.parametrize(
    "href",
    [
        "repodata/primary.xml.gz", "Packages/n/name-1.0-1~rc1^git+x.noarch.rpm", "a", "a b/ä.rpm",
        "..a/b..c/...", ".treeinfo",
        "a/name-1:2.0-1.rpm", "a&b<c>.rpm", "images/boot.iso", "x" * 1024, "a/" * 511 + "aa",
    ],
)  # fmt: skip
def test_a_path_inside_is_taken(href: str) -> None:
    assert is_inside(href)


@pytest.mark.parametrize(
    "href",
    [
        "", "/", "/a", "//a", "a/", "a//b", ".", "..", "./a", "a/.", "a/./b", "../a", "a/..", "a/../b",
        "http://a.test/b", "ftp:a", "a:b",
        "file:///a", "a\\b", "..\\a", "a?b", "a#b", "a%2fb", "%2e%2e/a", "a\nb", "a\n", "a\0", "a\x7f",
        "a\x85b", "a\u2028b", "\ud800",
        " a", "a ", "\u00a0a", "x" * 1025, "ä" * 513,
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_not(href: str) -> None:
    assert not is_inside(href)


@given(st.text("abc./:\\%?# ä-", max_size=20))
def test_what_is_taken_stays_inside_however_it_is_joined(href: str) -> None:
    if is_inside(href):
        assert posixpath.normpath(posixpath.join("/r", href)) == f"/r/{href}"
        for written in (href, quote(href)):
            found = urlsplit(urljoin("http://a.test/r/", written))
            assert (found.netloc, found.path) == ("a.test", f"/r/{written}")


@pytest.mark.parametrize(
    ("algorithm", "digest", "found"),
    [
        ("sha256", A, ("sha256", A)), ("SHA256", A.upper(), ("sha256", A)), ("sha384", B, ("sha384", B)),
        ("sha512", C, ("sha512", C)),
        ("sha", "d" * 40, ("sha1", "d" * 40)), ("sha1", "d" * 40, ("sha1", "d" * 40)),
        ("sha224", "d" * 56, ("sha224", "d" * 56)),
        ("md5", "d" * 32, ("md5", "d" * 32)),
        ("sha256", A[1:], None), ("sha256", A + "a", None), ("sha256", "g" * 64, None),
        ("sha256", A[1:] + "\n", None), ("sha256", "", None),
        ("sha256", "٠" * 64, None), ("sha512", A, None), ("", A, None), ("sha3", A, None),
        ("sha256 ", A, None), ("crc32", "d" * 8, None),
    ],
)  # fmt: skip
def test_a_checksum_is_one_of_its_algorithm(algorithm: str, digest: str, found: tuple[str, str] | None) -> None:
    assert checksum(algorithm, digest) == found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("1693", 1693), ("9" * 15, 10**15 - 1), ("", None), ("-1", None), ("1.0", None), ("1e3", None),
        ("9" * 16, None), (" 1", None), ("1\n", None), ("٣", None), ("+1", None),
    ],
)  # fmt: skip
def test_a_size_is_a_whole_number(text: str, number: int | None) -> None:
    assert whole_number(text) == number
