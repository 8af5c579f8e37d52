from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import get_args

import pytest

from muster.kernel import log
from muster.kernel.log import Threshold
from muster.kernel.rings import LEVELS, LogRings


@pytest.mark.parametrize(
    ("method", "level"),
    [("info", "INFO"), ("warning", "WARN"), ("error", "ERROR"), ("critical", "FATAL")],
)
def test_a_record_reaches_the_rings_with_the_protocols_level(method: str, level: str) -> None:
    rings = LogRings()
    log.configure(rings=rings, stream=io.StringIO())
    getattr(log.logger("dns"), method)("Zone refused", zone="example.com")
    (made,) = rings.records()
    assert made.level == level
    assert made.message.startswith("Zone refused ")
    assert "zone=example.com" in made.message


@pytest.mark.parametrize("level", get_args(Threshold))
def test_records_below_the_configured_level_are_nowhere(level: Threshold) -> None:
    rings, stream = LogRings(), io.StringIO()
    log.configure(rings=rings, level=level, stream=stream, form="json")
    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(log.logger("x"), method)(method)
    assert [r.level for r in rings.records()] == list(LEVELS[LEVELS.index(level) : 5])
    assert len(stream.getvalue().splitlines()) == len(rings.records())


def test_an_exceptions_traceback_is_the_records_backtrace() -> None:
    rings = LogRings()
    log.configure(rings=rings, stream=io.StringIO())
    try:
        raise ValueError("boom")
    except ValueError:
        log.logger("x").exception("Bug")
    (made,) = rings.records()
    assert made.level == "ERROR"
    assert "boom" not in made.message
    assert made.backtrace is not None
    assert made.backtrace.rstrip().endswith("ValueError: boom")


def test_a_record_made_during_a_request_carries_8_characters_of_its_id() -> None:
    rings = LogRings()
    log.configure(rings=rings, stream=io.StringIO())
    token = log.request_id.set("deadbeef-0000-1111")
    try:
        log.logger("x").info("Inside")
    finally:
        log.request_id.reset(token)
    log.logger("x").info("Outside")
    assert [r.request_id for r in rings.records()] == ["deadbeef", None]


def test_json_lines_name_the_member_and_are_whole() -> None:
    stream = io.StringIO()
    log.configure(stream=stream, form="json", member="proxy01.example.com")
    log.logger("x").info("Two\nlines", n=1)
    (line,) = stream.getvalue().splitlines()
    shown = json.loads(line)
    assert (shown["event"], shown["member"], shown["level"], shown["n"]) == (
        "Two\nlines",
        "proxy01.example.com",
        "info",
        1,
    )


def test_a_message_that_is_not_text_everywhere_is_replaced_and_a_long_one_cut() -> None:
    rings = LogRings()
    log.configure(rings=rings, stream=io.StringIO())
    log.logger("x").info("a\udcffb")
    log.logger("x").info("x" * 20_000)
    assert rings.records()[0].message.startswith("a?b")
    assert len(rings.records()[1].message) == 8192


def test_a_reader_that_went_away_does_not_stop_who_logs() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    rings = LogRings()
    log.configure(rings=rings, stream=Gone())
    log.logger("test").info("Still here")
    assert [r.message for r in rings.records()] == ["Still here room=test"]


def test_what_can_be_caused_at_will_is_logged_seldom_and_counted() -> None:
    now = [0.0]
    seldom = log.Seldom(most=3, within_s=60.0, kinds=2, now=lambda: now[0])
    assert [seldom.held_back("a") for _ in range(6)] == [0, 0, 0, None, None, None]
    assert seldom.held_back("b") == 0
    now[0] = 61.0
    assert [seldom.held_back("a") for _ in range(2)] == [3, 0]
    assert log.and_more(3) == " (3 more like it)"
    assert log.and_more(0) == ""
    # Who asks under ever new names is forgotten, and takes no memory.
    for n in range(100):
        assert seldom.held_back(f"c{n}") == 0
    assert len(seldom._seen) == 2


def test_what_libraries_log_takes_our_form_in_measure() -> None:
    rings, stream = LogRings(100, 10), io.StringIO()
    log.configure(rings=rings, form="json", stream=stream)
    for n in range(50):
        logging.getLogger("third.party").warning("Found invalid character %s", n)
    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("third.party").exception("It broke")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 11
    assert lines[0]["event"] == "Found invalid character 0"
    assert (lines[0]["room"], lines[0]["level"]) == ("third.party", "warning")
    assert "OSError: gone" in lines[-1]["exception"]
    assert [r.level for r in rings.records()] == ["WARN"] * 10 + ["ERROR"]


async def test_what_goes_wrong_in_the_loop_takes_our_form_in_measure() -> None:
    stream = io.StringIO()
    log.configure(form="json", stream=stream)
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    log.follow_loop(loop)
    try:
        for _ in range(30):
            loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 10
    assert all("ZeroDivisionError" in line["exception"] for line in lines)


def test_a_record_has_a_greatest_length_with_its_backtrace(kept: LogRings) -> None:
    try:
        raise ValueError("x" * 100_000 + " the end\udc80")
    except ValueError:
        log.logger("test").exception("It broke")
    (record,) = kept.records()
    assert record.backtrace is not None
    assert len(record.backtrace) <= 16_384
    assert record.backtrace.endswith(" the end?")


def test_a_library_that_slips_in_its_words_is_heard_and_goes_on(kept: LogRings) -> None:
    # Not by its logger: pytest's own handlers raise.
    slip = logging.LogRecord("third.party", logging.WARNING, __file__, 1, "%d of %d", ("one",), None)
    log._libraries.emit(slip)
    (record,) = kept.records()
    assert record.message.startswith("%d of %d, of which the values cannot be said (TypeError)")


@pytest.fixture
def kept() -> Iterator[LogRings]:
    rings = LogRings()
    log.configure(rings=rings, stream=io.StringIO())
    yield rings
    log.configure(level="ERROR")
