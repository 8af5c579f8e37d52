from __future__ import annotations

import json
from typing import Any

import click
import pytest

from muster.cli.options import Days, Host, Reason, Seconds, line, one_line, print_json, print_parts


@pytest.mark.parametrize(("text", "days"), [("1", 1), ("30", 30), ("30d", 30), ("0036500d", 36_500), (825, 825)])
def test_days_are_read_with_their_letter_or_without(text: object, days: int) -> None:
    assert Days().convert(text, None, None) == days


@pytest.mark.parametrize(
    "text", ["0", "36501", "9999999", "9" * 5000, "-1", "", "d", "3 d", "30dd", "1e3", "²", "٣", "1_0"]
)
def test_what_no_certificate_can_last_is_no_number_of_days(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Days().convert(text, None, None)
    assert Days(0).convert("0", None, None) == 0


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "86401", "soon", ""])
def test_seconds_are_finite_and_within_their_range(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Seconds(0, 86_400).convert(text, None, None)
    with pytest.raises(click.BadParameter):
        Seconds().convert("inf", None, None)
    assert Seconds(0, 86_400).convert("0.5", None, None) == 0.5


@pytest.mark.parametrize("text", ["a..b", "a" * 80 + ".x", ".", "", "a b", "a\nb", "10.0.0.256", "[::1]", "a_b"])
def test_a_host_is_a_name_or_an_address(text: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        Host().convert(text, None, None)
    assert str(raised.value).isprintable()
    for good in ("proxy.example.com", "localhost", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
        assert Host().convert(good, None, None) == good


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "a\x00", "a\x9bb", "a\u202eb", "a\ud800", "x" * 201])
def test_a_reason_is_one_line_that_every_terminal_shows_as_it_is(text: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        Reason().convert(text, None, None)
    assert str(raised.value).isprintable()
    for good in ("", "upgrade to 3.2 — Größe ändern", "x" * 200):
        assert Reason().convert(good, None, None) == good


@pytest.mark.parametrize(("terminal", "lines"), [(False, 1), (True, 3)])
def test_a_sentence_is_one_line_where_programs_read_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool, lines: int
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich.console.Console.is_terminal", terminal)
    print_parts(lambda width: [line(f"{width} columns: " + "a sentence with a name in it " * 6)])
    told = capsys.readouterr().out
    assert told.startswith("80 columns: a sentence")
    assert len(told.splitlines()) == lines


def test_what_others_said_is_one_line_and_stays_readable() -> None:
    assert one_line("a\x1b[31m\r\nb\x9b") == "a\\x1b[31m\\r\\nb\\x9b"
    assert one_line("Größe: 5 — " + "x" * 500).endswith("x" * 500)


@pytest.mark.parametrize("text", ["a\x1b[31m\n", "\x9b31m", "\u202e", "\U000e0001", "\ud800", "Größe → 5"])
def test_json_holds_any_text_and_no_character_that_a_terminal_obeys(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content: Any = {"a": [text]}
    print_json(content)
    said = capsys.readouterr().out
    assert json.loads(said) == content
    assert said.replace("\n", "").isprintable()
