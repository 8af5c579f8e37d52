from __future__ import annotations

import os
from pathlib import Path

from muster.balancer.checks import _full, _meaning, limit_of


def test_a_balancer_is_nearly_full_at_nine_tenths() -> None:
    assert [f.code for f in _full({"CurrConns": "900", "Maxconn": "1000"})] == ["BALANCER-FULL"]
    assert list(_full({"CurrConns": "899", "Maxconn": "1000"})) == []
    assert list(_full({})) == []


def test_every_stage_of_a_check_has_a_cause_of_its_own() -> None:
    causes = [_meaning(code)[0] for code in ("L4TOUT", "L4CON", "L6RSP", "L7TOUT", "L7STS", "")]
    assert len(set(causes)) == len(causes)
    assert _meaning("L6TOUT") == _meaning("L6RSP")


def test_the_limit_is_that_of_the_process_asked_about() -> None:
    words = Path("/proc/self/limits").read_text().partition("Max open files")[2].split()
    assert limit_of(os.getpid()) == int(words[0])
    assert limit_of(None) > 0
