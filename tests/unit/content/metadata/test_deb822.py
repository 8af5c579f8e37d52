from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata import deb822
from muster.content.metadata.deb822 import Stanza
from muster.content.metadata.malformed import Malformed
from tests.unit.content.metadata.documents import bytewise

WANTED = frozenset({"a", "b"})


def read(body: bytes, **limits: int) -> list[Stanza]:
    given = {"limit_stanzas": 100, "limit_bytes": 1 << 20, **limits}
    found = list(deb822.stanzas([body], WANTED, of="/r/list", **given))
    assert found == list(deb822.stanzas(bytewise(body), WANTED, of="/r/list", **given))
    return found


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []), (b"\n\n", []),
        (b"A: 1\nC: 2\nb: 3\n", [{"a": ["1"], "b": ["3"]}]),
        (b"A: 1", [{"a": ["1"]}]),
        (b"\n\nA:1\n\n \t\nb:  2  \n\n", [{"a": ["1"]}, {"b": ["2"]}]),
        (b"A: 1\r\n\r\nB: 2\r\n", [{"a": ["1"]}, {"b": ["2"]}]),
        (b"A:\n one\n\ttwo\nC: x\n three\nB: y\n", [{"a": ["", "one", "two"], "b": ["y"]}]),
        (b"C: only\n", [{}]),
        ("A: ä:b\n".encode(), [{"a": ["ä:b"]}]),
        (b"C: \xff\xfe\n", [{}]),
    ],
)  # fmt: skip
def test_fields_are_told_stanza_by_stanza(body: bytes, expected: list[Stanza]) -> None:
    assert read(body) == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"A: 1\nfoo\n", "line 2 is no field"), (b": x\n", "line 1 is no field"), (b"A : x\n", "line 1 is no field"),
        (b" x\n", "line 1 goes on where no field began"), (b"A: 1\n\n x\n", "line 3 goes on"),
        (b"A: 1\na: 2\n", "a is there twice, at line 2"), (b"A: \xff\n", "line 1 is not UTF-8"),
        (b"A: 1\n \xff\n", "line 2 is not UTF-8"),
        (b"C: " + b"x" * (256 << 10) + b"\n", "a line is longer than 262144 bytes"),
        (b"C: " + b"x" * (256 << 10), "a line is longer than 262144 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_stanza_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading /r/list failed: .*{why}"):
        list(deb822.stanzas([body], WANTED, of="/r/list", limit_stanzas=10, limit_bytes=1 << 20))


def test_there_are_limits() -> None:
    assert len(read(b"A: 1\n\n" * 3, limit_stanzas=3)) == 3
    with pytest.raises(Malformed, match="more than 3 entries"):
        read(b"A: 1\n\n" * 4, limit_stanzas=3)
    assert read(b"A: 1\nC: 2\n", limit_bytes=10) == [{"a": ["1"]}]
    with pytest.raises(Malformed, match="larger than 10 bytes, at line 3"):
        read(b"A: 1\nC: 2\nD: 3\n", limit_bytes=10)


def test_a_value_of_one_line_has_no_other() -> None:
    assert deb822.single({}, "a", of="x") == ""
    assert deb822.single({"a": ["1"]}, "a", of="x") == "1"
    with pytest.raises(Malformed, match="a has several lines"):
        deb822.single({"a": ["1", "2"]}, "a", of="x")


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        read(body)


def test_memory_does_not_grow_with_a_list() -> None:
    one = b"A: 1\nC: " + b"x" * 1000 + b"\n\n"

    def coming() -> Iterator[bytes]:
        for _ in range(300):
            yield one * 20

    tracemalloc.start()
    try:
        count = sum(1 for _ in deb822.stanzas(coming(), WANTED, of="x", limit_stanzas=10_000, limit_bytes=1 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 6000
    assert peak < 1 << 20
