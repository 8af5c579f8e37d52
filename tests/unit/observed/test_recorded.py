from __future__ import annotations

from muster.observed.recorded import bounded


def test_what_is_long_is_cut_and_says_so() -> None:
    assert bounded({"a": ["x"], "b": {"c": "y"}}) == {"a": ["x"], "b": {"c": "y"}}
    found = bounded({"findings": [{"sentence": "x" * 5000}] * 300, "healthy": False})
    assert len(found["findings"]) == 200
    assert len(found["findings"][0]["sentence"]) == 2000
    assert found["cut"] is True


def test_what_is_too_much_all_the_same_is_left_out_whole() -> None:
    found = bounded({"findings": [{str(n): "x" * 2000 for n in range(20)}] * 200, "healthy": False})
    assert found == {"healthy": False, "cut": True}
