from __future__ import annotations

from typing import Any

from muster.observed.recorded import Record, bounded, differed


def test_what_is_long_is_cut_and_says_so() -> None:
    assert bounded({"a": ["x"], "b": {"c": "y"}}) == {"a": ["x"], "b": {"c": "y"}}
    found = bounded({"findings": [{"sentence": "x" * 5000}] * 300, "healthy": False})
    assert len(found["findings"]) == 200
    assert len(found["findings"][0]["sentence"]) == 2000
    assert found["cut"] is True


def test_what_is_too_much_all_the_same_is_left_out_whole() -> None:
    found = bounded({"findings": [{str(n): "x" * 2000 for n in range(20)}] * 200, "healthy": False})
    assert found == {"healthy": False, "cut": True}


def before(age_s: float, *drifts: dict[str, Any]) -> dict[str, float]:
    return differed({"parity": Record({"drifts": list(drifts)}, age_s, "member p1")})


def test_how_long_members_have_differed_goes_on_from_who_compared_them_last() -> None:
    drifts = (
        {"field": "a", "differing": ["p1"], "lasted_s": 600.0},
        # Of a version that did not say it.
        {"field": "b", "differing": ["p1"]},
        {"field": "c", "differing": [], "lasted_s": 600.0},
    )
    assert before(300.0, *drifts) == {"a": 900.0, "b": 300.0}


def test_after_a_long_pause_nobody_knows_whether_they_differed_all_the_time() -> None:
    assert before(1801.0, {"field": "a", "differing": ["p1"], "lasted_s": 600.0}) == {}
    assert differed({}) == {}
    # As where so much was found that only its verdict was kept.
    assert differed({"parity": Record({"alike": False, "cut": True}, 1.0, "member p1")}) == {}
