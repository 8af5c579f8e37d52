from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.dhcp.isc.statements import MAX_NESTING, Statement, end_of_statement, statements, unquoted


def test_words_and_blocks_are_found_whatever_stands_between_them() -> None:
    found, wrong = statements('a b"c;d}" # x; {\n,1 {e f; {g}};;h=i;')
    assert not wrong
    inner = Statement(["e", "f"]), Statement([], [])
    assert found[0].words == ["a", "b", '"c;d}"', ",", "1"]
    assert [s.words for s in found[0].block or ()] == [s.words for s in inner]
    assert [s.words for s in found[1:]] == [["h", "=", "i"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('a;\nb "c', "a quote is not closed in line 2"),
        ("a {\n b;", "a block is not closed"),
        ("a;}\nb;", "a brace too many in line 1"),
    ],
)
def test_what_is_wrong_is_said_and_what_is_whole_is_there(text: str, says: str) -> None:
    found, wrong = statements(text)
    assert says in wrong
    assert found[0].words == ["a"]


def test_blocks_too_deep_are_left_out_and_what_follows_is_not() -> None:
    deep = MAX_NESTING + 2
    found, wrong = statements("a {" * deep + "x;" + "}" * deep + "b;")
    assert [s.words for s in found] == [["a"], ["b"]]
    assert wrong == [f"more than {MAX_NESTING} blocks within each other in line 1"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ('"a"', "a"),
        ("a", "a"),
        (r'"a\"b\\"', 'a"b\\'),
        (r'"\101\x42\n\q"', "AB\nq"),
        ('""', ""),
        (r'"\001RT\000 "', "\x01RT\0 "),
    ],
)
def test_escapes_are_resolved(word: str, says: str) -> None:
    assert unquoted(word) == says


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a;b;", 2),
        ("a {b;} c;", 6),
        ('a "};" ;', 8),
        ("a { b", -1),
        ("a", -1),
        ('a "b;', -1),
        ("# a;\nb;", 7),
        ("# a;", -1),
        ("}x;", 1),
    ],
)
def test_the_end_of_a_statement_is_found(text: str, end: int) -> None:
    assert end_of_statement(text) == end


@given(st.text(alphabet='ab{};"\\# \n,=', max_size=60))
def test_reading_one_after_the_other_is_reading_all(text: str) -> None:
    whole, wrong = statements(text)
    at, found = 0, []
    while (end := end_of_statement(text, at)) >= 0:
        found += statements(text[at:end])[0]
        at = end
    if not wrong:
        assert [repr(s) for s in found] == [repr(s) for s in whole]


@pytest.mark.parametrize(
    "text",
    [
        '"' * 99_999,
        "\\" * 100_000,
        '"\\' * 50_000,
        "{" * 100_000,
        "}\n" * 100_000,
        ("{" * 40 + "}" * 40) * 2000,
        "#" * 100_000,
        " " * 100_000,
    ],
)
def test_nasty_texts_take_linear_time(text: str) -> None:
    began = time.process_time()
    statements(text)
    end_of_statement(text)
    assert time.process_time() - began < 2
