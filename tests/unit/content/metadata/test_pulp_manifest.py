from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import is_inside
from muster.content.metadata.primary import Package
from muster.content.metadata.pulp_manifest import LIMIT_BYTES, packages
from tests.unit.content.metadata.documents import A, C

D = "d" * 64


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_each_line_is_a_file(end: str) -> None:
    body = (
        f"# of today\n\na/b.iso,{A},5\n  x y , {D.upper()} ,\t0 \nwith, commas,in it,{A},123456789012345{end}".encode()
    )
    assert packages(body) == (
        Package("a/b.iso", 5, "sha256", A), Package("x y", 0, "sha256", D),
        Package("with, commas,in it", 123456789012345, "sha256", A),
    )  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"\n\n", b"# nothing\n", b"   \n"])
def test_a_repository_may_be_empty(body: bytes) -> None:
    assert packages(body) == ()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/x",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "a%2fb",
        "a?b",
        "a#b",
        "a\\b",
        "http://h/x",
        "a\x01b",
        "x" * 1025,
    ],
)
def test_paths_that_lead_elsewhere_are_left_out(path: str) -> None:
    heard: list[str] = []
    body = f"{path},{A},5\nb,{A},5\nc,{A},5\nc,{A},6\n".encode()
    assert packages(body, left_out=heard.append) == (Package("b", 5, "sha256", A),)
    assert heard == [path, "c"]


def test_what_is_there_twice_counts_once_and_with_different_bytes_not_at_all() -> None:
    body = f"a,{A},5\nb,{A},5\na,{A},5\nb,{D},5\nc,{A},5\nc,{A},6\nb,{A},5\n".encode()
    assert packages(body) == (Package("a", 5, "sha256", A),)


@pytest.mark.parametrize(
    "line",
    [
        "a", "a,b", f"a,{A}", f"{A},5", f",{A},5", f"a,{A[:-1]},5", f"a,{C},5", f"a,{A[:-1]}g,5", f"a,{A},", f"a,{A},-5",
        f"a,{A},5.0", f"a,{A},5 bytes", f"a,{A},{'9' * 16}", "a,,5", f"a,5,{A}", f"a,{A},\u0665", "<html>,,",
    ],
)  # fmt: skip
def test_a_line_of_another_kind_is_an_error_that_says_which(line: str) -> None:
    with pytest.raises(Malformed, match=r"Reading x failed: line 2, .* is no path, SHA-256 and size"):
        packages(f"a,{A},5\n{line}\n".encode(), of="x")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xff", "not UTF-8 at byte 0"), (b"\n" * 200_001, "more than 200000 lines"),
        (b"#" * (LIMIT_BYTES + 1), "larger than"),
    ],
)  # fmt: skip
def test_what_is_too_large_or_no_text_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        packages(body)


def test_as_much_as_may_be_is_read() -> None:
    assert len(packages(b"".join(b"%05d,%b,1\n" % (n, A.encode()) for n in range(50_000)))) == 50_000
    assert packages(b"\n" * 200_000) == ()


@given(st.lists(st.text(alphabet="ab,/.#%\\\r \u2028é", max_size=12)))
def test_whatever_comes_is_read_or_refused(lines: list[str]) -> None:
    with contextlib.suppress(Malformed):
        found = packages("\n".join(f"{line},{A},5" for line in lines).encode())
        assert all(is_inside(one.href) for one in found)
        assert len({one.href for one in found}) == len(found)
