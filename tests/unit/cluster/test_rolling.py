"""Rolls, each test citing the invariant it holds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from muster.cluster.rolling import REASON, Roll, arguments, left, shortages, wanted_out
from muster.cluster.roster import Wish
from muster.kernel.errors import Rejected
from muster.observed.survey import Answer, short_of

FRESH = Roll(("true",), ("a", "b", "c"))


def test_invariant_1_the_next_member_waits_for_the_one_that_is_out() -> None:
    going = FRESH.begun("a")
    with pytest.raises(Rejected, match="a is out; b must wait"):
        going.begun("b")
    assert going.finished("a").begun("b").out == "b"


def test_invariant_2_a_failed_member_stays_out() -> None:
    stopped = FRESH.begun("a").finished("a").begun("b").failed("b", "exit 1")
    assert (stopped.out, stopped.failure, stopped.done) == ("b", "exit 1", ("a",))
    with pytest.raises(Rejected):
        stopped.begun("c")


def test_invariant_3_a_resumed_roll_begins_with_the_member_that_was_out_and_repeats_nothing() -> None:
    cut = Roll(("true",), ("a", "b", "c"), done=("a",), out="c", failure="lost")
    assert cut.remaining == ("c", "b")
    assert cut.begun("c").failure == ""
    with pytest.raises(Rejected, match="a is not due"):
        Roll(("true",), ("a", "b"), done=("a",)).begun("a")


def test_a_roll_cut_at_every_step_and_resumed_elsewhere_visits_each_member_once() -> None:
    for cut_after in range(7):
        going, visited, steps = FRESH, [], 0
        while not going.is_finished:
            for step in ("begin", "finish"):
                name = going.remaining[0]
                going = going.begun(name) if step == "begin" else going.finished(name)
                visited += [name] if step == "finish" else []
                steps += 1
                if steps == cut_after:
                    going = Roll.from_json(json.loads(json.dumps(going.as_json())))
                    break
        assert visited == ["a", "b", "c"]


WEB_AND_CA = frozenset({"web", "ca"})
SERVES = {"a": WEB_AND_CA, "b": WEB_AND_CA, "c": frozenset({"web"})}


def test_invariant_4_each_member_is_taken_out_in_turn_and_services_left_short_are_named() -> None:
    assert shortages(FRESH, SERVES, SERVES, 1) == {}
    assert shortages(FRESH, SERVES, SERVES, 2) == {"a": ["ca"], "b": ["ca"]}
    assert shortages(FRESH, SERVES, SERVES, 3) == {"a": ["ca", "web"], "b": ["ca", "web"], "c": ["web"]}
    assert shortages(FRESH, SERVES, SERVES, 0) == {}


def test_a_member_that_is_rolled_is_back_for_the_next_ones_and_one_that_is_away_takes_nothing() -> None:
    without_a = {**SERVES, "a": frozenset()}
    assert shortages(FRESH, without_a, SERVES, 1) == {}
    assert shortages(Roll(("true",), ("b", "a")), without_a, SERVES, 1) == {"b": ["ca"]}
    resumed = FRESH.begun("a").failed("a", "exit 1")
    assert shortages(resumed, without_a, SERVES, 1) == {}


def test_members_that_are_not_rolled_count_and_names_are_compared_without_case() -> None:
    assert shortages(Roll(("true",), ("A",)), {"a": WEB_AND_CA}, {"a": WEB_AND_CA}, 1) == {"A": ["ca", "web"]}
    assert shortages(Roll(("true",), ("A",)), SERVES, SERVES, 1) == {}


@pytest.mark.parametrize(
    ("state", "target", "said"),
    [
        ("drained", "drain", "It stays drained"),
        ("ready", "ready", "It is not drained"),
        ("joining", "drain", "It is joining, and wished to be drained"),
        ("draining", "drain", "It is draining, and wished to be drained"),
        ("warming", "ready", "It is warming, and wished to be ready"),
    ],
)
def test_a_roll_that_stops_says_where_its_member_is_left(state: str, target: str, said: str) -> None:
    assert left(state, target) == said


def test_placeholders_become_the_members_and_no_shell_sees_them() -> None:
    words = arguments(["ssh", "{address}", "echo {member}; x"], member="p1.example.net", address="192.0.2.1")
    assert words == ["ssh", "192.0.2.1", "echo p1.example.net; x"]
    with pytest.raises(Rejected, match=r"\{host\} is no placeholder"):
        arguments(["ping", "{host}"], member="p1", address="a")


def test_services_that_would_be_short_of_ready_members_are_named() -> None:
    answers = [
        Answer("web", "p1", "ready"),
        Answer("web", "p2", "ready"),
        Answer("ca", "p1", "ready"),
        Answer("ca", "p2", "unready"),
        Answer("mail", "p1", "draining"),
    ]
    assert short_of(answers, "P1") == ["ca"]
    assert short_of(answers, "p1", min_ready=2) == ["web", "ca"]
    assert short_of(answers, "p2") == []
    assert short_of(answers, "p1", min_ready=0) == []


def test_who_is_out_because_somebody_wants_it_is_left_alone_and_not_come_back_to() -> None:
    going = Roll(("true",), ("p1", "p2", "p3"), done=("p1",), out="p2", failure="sh ended with 1")
    resting = Wish("drain", "host is off", "ada", 3, "maintenance")
    assert wanted_out(going, {"p3": resting}) == {"p3": "put into maintenance by ada: host is off"}
    own = Wish("drain", REASON, "ada", 4)
    assert wanted_out(going, {"p2": own, "p3": Wish("ready", "", "ada", 5)}) == {}
    # Another roll's, or somebody else's: it is not the one that this roll has out.
    assert wanted_out(going, {"p3": own, "p2": replace(own, reason="kernel")}) == {
        "p2": "drained by ada: kernel", "p3": "drained by ada: muster roll",
    }  # fmt: skip
    spared = going.left_alone("p2")
    assert (spared.remaining, spared.out, spared.failure, spared.passed) == (("p3",), "", "", ("p2",))
    assert Roll.from_json(spared.as_json()) == spared
    assert going.left_alone().out == "p2"
