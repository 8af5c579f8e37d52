"""What options make of a transfer (``netboot/tftp/terms.py``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.netboot.tftp.packets import Mode, Opcode, Request
from muster.netboot.tftp.terms import Bounds, Terms, agreed

SIZE = 123_456


def asked(*options: tuple[str, str], mode: Mode = "octet", bounds: Bounds | None = None) -> Terms:
    sent = tuple((name.encode(), value.encode()) for name, value in options)
    return agreed(Request(Opcode.RRQ, b"f", mode, sent), SIZE, bounds or Bounds())


def said(terms: Terms) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in terms.answered]


def test_without_options_there_is_no_answer_to_them() -> None:
    assert asked() == Terms(512, 1, None, 0, ())


def test_options_are_answered_in_the_order_and_in_the_case_they_were_asked() -> None:
    terms = asked(("WindowSize", "8"), ("tsize", "0"), ("BLKSIZE", "1428"), ("timeout", "3"))
    assert said(terms) == [("WindowSize", "8"), ("tsize", "123456"), ("BLKSIZE", "1428"), ("timeout", "3")]
    assert (terms.blksize, terms.windowsize, terms.timeout_s) == (1428, 8, 3.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blksize", "7"),
        ("blksize", "0"),
        ("blksize", "-1"),
        ("blksize", "1428 "),
        ("blksize", "1428\n"),
        ("blksize", "0x200"),
        ("blksize", "١٢٣٤"),
        ("blksize", "9" * 21),
        ("blksize", ""),
        ("windowsize", "0"),
        ("windowsize", "65536"),
        ("timeout", "0"),
        ("timeout", "256"),
        ("utimeout", "9999"),
        ("utimeout", "255000001"),
        ("rollover", "2"),
        ("multicast", ""),
        ("multicast", "1"),
    ],
)
def test_an_option_that_means_nothing_is_left_out_and_the_others_count(name: str, value: str) -> None:
    terms = asked((name, value), ("tsize", "0"))
    assert said(terms) == [("tsize", "123456")]
    assert (terms.blksize, terms.windowsize, terms.timeout_s, terms.rollover) == (512, 1, None, 0)


def test_an_option_that_comes_twice_counts_once() -> None:
    assert said(asked(("blksize", "1024"), ("BLKSIZE", "2048"))) == [("blksize", "1024")]


def test_nobody_gets_a_larger_block_than_goes_through_the_network() -> None:
    bounds = Bounds(blksize=1468)
    assert asked(("blksize", "65464"), bounds=bounds).blksize == 1468
    assert asked(("blksize", "1024"), bounds=bounds).blksize == 1024
    assert said(asked(("blksize", "99999"))) == [("blksize", "65464")]


def test_blksize2_is_a_power_of_two_and_blksize_comes_before_it() -> None:
    assert said(asked(("blksize2", "1500"))) == [("blksize2", "1024")]
    assert said(asked(("blksize2", "65464"), bounds=Bounds(blksize=1468))) == [("blksize2", "1024")]
    assert said(asked(("blksize2", "1024"), ("blksize", "1400"))) == [("blksize", "1400")]


def test_a_text_that_is_converted_has_no_size_beforehand() -> None:
    assert said(asked(("tsize", "0"), ("blksize", "1000"), mode="netascii")) == [("blksize", "1000")]


def test_utimeout_is_in_microseconds_and_timeout_comes_before_it() -> None:
    assert asked(("utimeout", "250000")).timeout_s == 0.25
    assert said(asked(("utimeout", "250000"), ("timeout", "2"))) == [("timeout", "2")]


def test_rollover_is_answered_as_it_was_asked() -> None:
    assert (asked(("rollover", "1")).rollover, said(asked(("rollover", "0")))) == (1, [("rollover", "0")])


@given(st.integers(0, 70_000), st.integers(0, 70_000), st.integers(8, 65464), st.integers(1, 1000))
def test_no_window_is_larger_than_its_bounds(blksize: int, windowsize: int, most: int, window: int) -> None:
    bounds = Bounds(most, window, 256 << 10)
    terms = asked(("blksize", str(blksize)), ("windowsize", str(windowsize)), bounds=bounds)
    assert terms.blksize <= max(512, most)
    assert 1 <= terms.windowsize <= max(1, min(window, windowsize))
    assert terms.windowsize == 1 or terms.windowsize * terms.blksize <= 256 << 10
    for name, value in said(terms):
        assert int(value) == {"blksize": terms.blksize, "windowsize": terms.windowsize}[name]
