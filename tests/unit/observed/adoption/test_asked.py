"""Features that members say they run, compared; ``tests/contract/test_adopt_live.py`` asks servers."""

from __future__ import annotations

from muster.observed.adoption.asked import differing
from muster.observed.features import Running


def running(*features: str, unknown: tuple[str, ...] = ()) -> Running:
    return Running(frozenset(features), unknown=frozenset(unknown))


def test_a_feature_of_all_is_no_finding_and_one_of_some_names_both_sides() -> None:
    found = differing({"a": running("dns", "tftp"), "b": running("dns"), "c": running("dns", "tftp")})
    assert [(f.code, f.place) for f in found] == [("ADOPT-FEATURES", "tftp on b")]
    assert found[0].sentence == "Feature tftp runs on a, c and not on b, as they answer now"


def test_of_a_member_that_cannot_say_nothing_is_said() -> None:
    assert differing({"a": running("pulpcore"), "b": running(unknown=("pulpcore",))}) == []
    assert differing({"a": running("dns")}) == []
    assert differing({}) == []
