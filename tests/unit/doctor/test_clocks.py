from __future__ import annotations

from muster.doctor.clocks import compared


def test_clocks_that_agree_are_not_mentioned() -> None:
    assert compared({"a": 0.0, "b": 4.9, "c": -4.9}) == []
    assert compared({}) == []


def test_one_of_several_that_differs_is_the_wrong_one() -> None:
    (found,) = compared({"a": 0.0, "b": -600.0})
    assert (found.place, found.severity) == ("b", "error")
    assert "600 s behind this host's" in found.sentence


def test_when_all_of_several_differ_alike_this_host_is_wrong() -> None:
    (found,) = compared({"a": -600.0, "b": -602.0})
    assert found.place == "this host"
    assert "600 s ahead of that of all 2 members" in found.sentence


def test_when_they_differ_each_in_its_way_each_is_named() -> None:
    assert [f.place for f in compared({"a": -600.0, "b": 600.0})] == ["a", "b"]


def test_a_single_member_is_named_itself() -> None:
    assert [f.place for f in compared({"a": 10.0})] == ["a"]


def test_below_five_minutes_it_is_a_warning() -> None:
    assert [f.severity for f in compared({"a": 299.0, "b": 0.0})] == ["warning"]
