from __future__ import annotations

from muster.observed.checks import _of_answers
from muster.observed.survey import Answer


def test_a_member_that_drains_is_named_once_with_its_services() -> None:
    answers = [
        *(Answer(s, "proxy03.test", "draining", "drained by root: kernel") for s in ("anaconda", "smartproxy")),
        Answer("anaconda", "proxy02.test", "draining", "the member is stopping"),
    ]
    assert [(f.code, f.place, f.sentence) for f in _of_answers(answers)] == [
        ("MEMBER-DRAINING", "proxy03.test", "proxy03.test drains anaconda, smartproxy: drained by root: kernel"),
        ("MEMBER-DRAINING", "proxy02.test", "proxy02.test drains anaconda: the member is stopping"),
    ]
