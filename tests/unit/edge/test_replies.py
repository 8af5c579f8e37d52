from __future__ import annotations

import pytest

from muster.edge.replies import (
    HTML,
    JSON,
    TEXT,
    Reply,
    admits_json,
    empty_reply,
    error_reply,
    json_reply,
    not_found,
    reply,
    text_reply,
)
from muster.edge.request import ClientGone, TooLarge, TooSlow
from muster.kernel.errors import (
    Conflict,
    Denied,
    Misconfigured,
    MusterError,
    NotFound,
    Rejected,
    Unavailable,
    Unsupported,
)


def header(answer: Reply, name: bytes) -> bytes | None:
    values = [v for n, v in answer.headers if n == name]
    assert len(values) <= 1
    return values[0] if values else None


def test_json_has_no_spaces_and_no_newline() -> None:
    answer = json_reply({"a": [1, True, None], "b": "é"})
    assert answer.body == '{"a":[1,true,null],"b":"é"}'.encode()
    assert header(answer, b"content-type") == b"application/json"
    assert header(answer, b"content-length") == b"%d" % len(answer.body)


def test_json_with_what_is_not_text_is_still_valid_utf_8() -> None:
    assert json_reply({"a": "x\udcff"}).body.decode() == '{"a":"x?"}'
    assert text_reply(400, "x\udcff", accept=None).body == b"x?"


def test_success_with_nothing_to_say_is_empty_html() -> None:
    answer = empty_reply()
    assert (answer.status, answer.body) == (200, b"")
    assert header(answer, b"content-type") == b"text/html;charset=utf-8"
    assert header(answer, b"content-length") == b"0"
    assert header(answer, b"x-xss-protection") == b"1; mode=block"
    assert header(answer, b"x-frame-options") == b"SAMEORIGIN"


@pytest.mark.parametrize("kind", [JSON, HTML, TEXT])
def test_every_reply_says_what_server_it_comes_from_and_forbids_guessing(kind: bytes) -> None:
    answer = reply(200, b"x", kind)
    assert header(answer, b"x-content-type-options") == b"nosniff"
    assert (header(answer, b"server") or b"").startswith(b"foreman-proxy muster/")
    assert (header(answer, b"x-frame-options") is not None) == (kind == HTML)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/json;version=2", JSON),
        ("application/*", JSON),
        ("garbage", JSON),
        ("text/html, application/json;q=0.1", JSON),
        ("text/html,*/*;q=0.8", JSON),
        ("text/html", HTML),
        ("text/plain", HTML),
        ("application/xml", HTML),
    ],
)
def test_an_errors_content_type_follows_the_accept_header(accept: str | None, content_type: bytes) -> None:
    assert admits_json(accept) == (content_type == JSON)
    answer = error_reply(Rejected("no"), accept=accept)
    assert (answer.status, answer.body) == (400, b"no")
    assert header(answer, b"content-type") == content_type


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Conflict, 409),
        (NotFound, 404),
        (Rejected, 400),
        (Denied, 403),
        (Unavailable, 503),
        (Unsupported, 501),
        (Misconfigured, 500),
        (TooLarge, 413),
        (TooSlow, 408),
        (ClientGone, 400),
    ],
)
def test_an_error_has_its_status_and_503_says_when_to_come_back(error: type[MusterError], status: int) -> None:
    answer = error_reply(error("sentence"), accept=None)
    assert (answer.status, answer.body) == (status, b"sentence")
    assert (header(answer, b"retry-after") == b"5") == (status == 503)


def test_an_unknown_route_is_answered_as_the_ruby_proxy_does() -> None:
    answer = not_found()
    assert (answer.status, answer.body) == (404, b"Requested url was not found")
    assert header(answer, b"content-type") == JSON
    assert header(answer, b"x-cascade") == b"pass"
