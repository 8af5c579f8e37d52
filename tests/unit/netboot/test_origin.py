from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any, cast

import aiohttp
import pytest
from multidict import CIMultiDict

from muster.netboot.answers import Span, length_of, span_of
from muster.netboot.origin import Known, conditions, validator


def answer(status: int = 200, *fields: tuple[str, str]) -> aiohttp.ClientResponse:
    """Return what an answer's head says."""
    head: Any = type("Answer", (), {"status": status, "headers": CIMultiDict(fields)})()
    return cast(aiohttp.ClientResponse, head)


def ago(seconds: float) -> str:
    return formatdate(time.time() - seconds, usegmt=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("ETag", '"a"')], '"a"'),
        ([("ETag", 'W/"a"'), ("Last-Modified", ago(999)), ("Date", ago(0))], ""),
        ([("ETag", "a"), ("Last-Modified", ago(999))], ""),
        ([("ETag", '"a\nb"')], ""),
        ([("ETag", f'"{"a" * 400}"')], ""),
        ([("Last-Modified", "yesterday"), ("Date", ago(0))], ""),
        ([("Last-Modified", ago(30)), ("Date", ago(0))], ""),
        ([("Last-Modified", ago(-999)), ("Date", ago(0))], ""),
        ([], ""),
    ],
)
def test_the_rest_is_asked_for_by_a_strong_validator_alone(fields: list[tuple[str, str]], said: str) -> None:
    assert validator(answer(200, *fields)) == said


def test_a_date_that_is_old_enough_is_one() -> None:
    modified = ago(90)
    assert validator(answer(200, ("Last-Modified", modified), ("Date", ago(0)))) == modified


@pytest.mark.parametrize(
    ("status", "text", "length", "span"),
    [
        (206, "bytes 5-9/10", "5", Span(5, 10)),
        (206, "bytes 5-9/10", None, Span(5, 10)),
        (206, "bytes 5-9/10", "4", None),
        (206, "bytes 5-8/10", "4", None),
        (206, "bytes 9-5/10", None, None),
        (206, "bytes 5-9/*", "5", None),
        (206, "bytes */10", None, None),
        (206, "bytes 5-9/10 ", "5", None),
        (206, f"bytes 5-{'9' * 30}/{'9' * 30}", None, None),
        (200, "bytes 5-9/10", "5", None),
    ],
)
def test_a_rest_is_one_that_goes_to_the_end_and_says_so(
    status: int, text: str, length: str | None, span: Span | None
) -> None:
    fields = [("Content-Range", text), *([("Content-Length", length)] if length else [])]
    assert span_of(answer(status, *fields)) == span


def test_two_lengths_are_none() -> None:
    assert length_of(answer(200, ("Content-Length", "5"))) == 5
    assert length_of(answer(200, ("Content-Length", "5"), ("Content-Length", "6"))) is None
    assert length_of(answer(200, ("Content-Length", "-5"))) is None


def test_what_is_known_is_said_as_an_origin_said_it() -> None:
    assert conditions(Known("u", 1, 1_700_000_000.9, '"a"')) == {
        "If-None-Match": '"a"', "If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT",
    }  # fmt: skip
    assert conditions(Known("u", 1, 0.0, 'bad"\r\nX: y')) == {}
