from __future__ import annotations

import json
from typing import Any

import pytest

from muster.content.handed import Said
from muster.features.openscap.forwarding import PutOff, Refused, Taken, judged


def said(status: int, content: Any) -> Said:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Said(status, "application/json", body)


@pytest.mark.parametrize("id", ["7", 7])
def test_what_foreman_took_is_known_by_its_id(id: Any) -> None:
    assert judged(said(200, {"result": "ok", "id": id})) == Taken("7")
    assert judged(said(201, {"id": id})) == Taken("7")


def test_a_report_that_foreman_has_already_was_taken() -> None:
    assert judged(said(422, {"result": "fail", "errors": "Reported at has already been taken"})) == Taken()
    other = judged(said(400, {"errors": "Reported at has already been taken"}))
    assert isinstance(other, Refused)


@pytest.mark.parametrize("status", [400, 405, 413, 422])
def test_what_foreman_will_never_take_is_refused_in_its_words(status: int) -> None:
    assert judged(said(status, {"errors": "Policy  with id\n 7 not found."})) == Refused(
        f"Foreman answered {status}: Policy with id 7 not found."
    )
    assert judged(said(status, b"<html>")) == Refused(f"Foreman answered {status}")


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 429, 500, 502, 503])
def test_what_somebody_can_mend_is_put_off(status: int) -> None:
    assert judged(said(status, {"error": {"message": "m"}})) == PutOff(f"Foreman answered {status}: m")
    assert judged(said(status, b"[" * 100_000)) == PutOff(f"Foreman answered {status}")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id": null}', b'{"id": [1]}'])
def test_an_answer_without_an_id_is_asked_for_again(body: bytes) -> None:
    assert judged(said(200, body)) == PutOff("Foreman answered 200 without the report's id")


def test_words_of_foreman_are_cut() -> None:
    found = judged(said(422, {"errors": "x" * 9999}))
    assert isinstance(found, Refused)
    assert len(found.why) < 350


def test_words_that_no_store_keeps_are_kept_as_what_they_are() -> None:
    assert judged(said(422, {"errors": "a\0b\ud800"})) == Refused("Foreman answered 422: a\\x00b\\ud800")
    assert judged(said(200, {"id": "7\0"})) == Taken("7\\x00")
