"""Rolls, each test citing the invariant it holds."""

from __future__ import annotations

import json

import pytest

from muster.balancer.survey import Answer, short_of
from muster.cluster.rolling import Roll, arguments
from muster.kernel.errors import Rejected

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
