from __future__ import annotations

import os
from pathlib import Path

from muster.balancer.checks import _full, _meaning, _of_answers, limit_of
from muster.balancer.survey import Answer


def test_a_balancer_is_nearly_full_at_nine_tenths() -> None:
    assert [f.code for f in _full({"CurrConns": "900", "Maxconn": "1000"})] == ["BALANCER-FULL"]
    assert list(_full({"CurrConns": "899", "Maxconn": "1000"})) == []
    assert list(_full({})) == []


def test_a_member_that_drains_is_named_once_with_its_services() -> None:
    answers = [
        *(Answer(s, "proxy03.test", "draining", "drained by root: kernel") for s in ("anaconda", "smartproxy")),
        Answer("anaconda", "proxy02.test", "draining", "the member is stopping"),
    ]
    assert [(f.code, f.place, f.sentence) for f in _of_answers(answers)] == [
        ("MEMBER-DRAINING", "proxy03.test", "proxy03.test drains anaconda, smartproxy: drained by root: kernel"),
        ("MEMBER-DRAINING", "proxy02.test", "proxy02.test drains anaconda: the member is stopping"),
    ]


def test_every_stage_of_a_check_has_a_cause_of_its_own() -> None:
    causes = [_meaning(code)[0] for code in ("L4TOUT", "L4CON", "L6RSP", "L7TOUT", "L7STS", "")]
    assert len(set(causes)) == len(causes)
    assert _meaning("L6TOUT") == _meaning("L6RSP")


def test_the_limit_is_that_of_the_process_asked_about() -> None:
    words = Path("/proc/self/limits").read_text().partition("Max open files")[2].split()
    assert limit_of(os.getpid()) == int(words[0])
    assert limit_of(None) > 0
