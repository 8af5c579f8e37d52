"""What comes next, by the numbers of the invariants in ``decide.py``."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from muster.content.steered.decide import MOST_ROUNDS, MOST_TRIES, Decision, decided
from muster.content.steered.stages import At, Stage

WAIT_S = 60.0


def stage(*, rounds: int = 0, **pulps: At) -> Stage:
    return Stage("rocky9", 1, rounds=rounds, pulps=pulps)


def synced(digest: str, ended: int = 1) -> At:
    return At("synced", "r", version="v", digest=digest, ended=ended)


STAGED = At("staged", "r", version="v", publication="p", digest="d", ended=1)


@pytest.mark.parametrize(
    ("at", "step"),
    [
        (At(), "ensure"),
        (At("ready", "r"), "sync"),
        (At("syncing", "r", "t"), "look"),
        (At("syncing", "r"), "look"),
        (At("synced", "r", version="v"), "read"),
        (At("publishing", "r", "t", "v", digest="d"), "look"),
        (synced("d"), "publish"),
    ],
)
def test_each_phase_has_its_step(at: At, step: str) -> None:
    found = decided(stage(a=at), WAIT_S)
    assert (dict(found.steps), found.ends) == ({"a": step}, "")


@pytest.mark.parametrize("phase", ["new", "ready", "syncing", "publishing"])
def test_1_nobody_is_turned_while_another_is_not_there_yet(phase: str) -> None:
    other = At(phase, "r", "t", "v", digest="d" if phase == "publishing" else "")  # type: ignore[arg-type]
    found = decided(stage(a=STAGED, b=other), WAIT_S)
    assert found.ends == ""
    assert set(found.steps) == {"b"}


def test_1_what_one_has_is_not_published_before_the_others_have_the_same() -> None:
    assert dict(decided(stage(a=synced("d"), b=At("syncing", "r", "t")), WAIT_S).steps) == {"b": "look"}
    assert dict(decided(stage(a=synced("d"), b=synced("d", 2)), WAIT_S).steps) == {"a": "publish", "b": "publish"}
    assert decided(stage(a=STAGED, b=STAGED), WAIT_S).ends == "flip"


@pytest.mark.parametrize(("away_s", "is_left"), [(WAIT_S - 1, False), (WAIT_S, True)])
def test_2_who_is_away_is_waited_for_and_then_gone_on_without(away_s: float, is_left: bool) -> None:
    found = decided(stage(a=STAGED, b=At("ready", "r", away_s=away_s, why="it is away")), WAIT_S)
    assert (found.ends == "flip") == is_left
    assert found.stage.pulps["b"].is_in != is_left
    assert found.stage.pulps["b"].why == "it is away"


def test_2_without_patience_only_those_that_are_away_are_left() -> None:
    found = decided(stage(a=At("syncing", "r", "t"), b=At(away_s=0.1)), 0.0)
    assert [at.is_in for at in found.stage.pulps.values()] == [True, False]


def test_2_what_fails_is_tried_again_so_many_times() -> None:
    few = decided(stage(a=STAGED, b=At(tries=MOST_TRIES - 1)), WAIT_S)
    assert dict(few.steps) == {"b": "ensure"}
    assert decided(stage(a=STAGED, b=At(tries=MOST_TRIES)), WAIT_S).ends == "flip"


def test_3_who_got_something_older_goes_again_and_not_for_ever() -> None:
    found = decided(stage(a=synced("old", 1), b=synced("new", 2)), WAIT_S)
    assert dict(found.steps) == {"a": "sync"}
    assert (found.stage.rounds, found.stage.pulps["a"].phase, found.stage.pulps["b"]) == (1, "ready", synced("new", 2))
    last = decided(stage(rounds=MOST_ROUNDS, a=synced("old", 1), b=synced("new", 2)), WAIT_S)
    assert (last.ends, last.steps) == ("fail", {})
    assert "nothing was changed" in last.why


def test_3_one_that_is_gone_on_without_is_compared_with_nobody() -> None:
    left = dataclasses.replace(synced("old"), phase="left")
    assert dict(decided(stage(a=left, b=synced("new", 2)), WAIT_S).steps) == {"b": "publish"}


def test_4_when_all_are_gone_on_without_nothing_is_changed() -> None:
    found = decided(stage(a=At(tries=MOST_TRIES, why="its disk is full"), b=At(away_s=WAIT_S, why="away")), WAIT_S)
    assert found.ends == "fail"
    assert "a: its disk is full; b: away" in found.why


def test_5_who_has_its_publication_is_waited_for_no_more() -> None:
    found = decided(stage(a=STAGED, b=dataclasses.replace(STAGED, away_s=10 * WAIT_S)), WAIT_S)
    assert (found.ends, found.stage.pulps["b"].is_in) == ("flip", True)


@pytest.mark.parametrize("seed", range(200))
def test_1_to_5_hold_whatever_pulps_do(seed: int) -> None:
    moments = random.Random(seed)
    origin = 1
    it = Stage("rocky9", 1, pulps={name: At() for name in "abc"})
    ended = itertools.count(1)
    for _ in range(300):
        origin += moments.random() < 0.1
        found: Decision = decided(it, WAIT_S)
        it = found.stage
        if found.ends == "flip":
            there = [at for at in it.pulps.values() if at.is_in]
            assert there
            assert all(at.phase == "staged" and at.publication for at in there), seed
            assert len({at.digest for at in there}) == 1, seed
            return
        if found.ends == "fail":
            assert it.rounds == MOST_ROUNDS or not any(at.is_in for at in it.pulps.values()), seed
            return
        assert found.steps, seed
        for name, step in found.steps.items():
            at = it.pulps[name]
            if moments.random() < 0.2:
                it = it.having(name, dataclasses.replace(at, away_s=at.away_s + 20, why="away"))
                continue
            match step:
                case "ensure":
                    at = At("ready", "r", tries=at.tries)
                case "sync":
                    at = At("syncing", "r", "t", tries=at.tries)
                case "look" if moments.random() < 0.1:
                    at = At("new", tries=at.tries + 1)
                case "look" if at.phase == "syncing":
                    at = At("synced", "r", version=f"v{origin}", ended=next(ended), tries=at.tries)
                case "look":
                    at = dataclasses.replace(at, phase="staged", publication="p")
                case "read":
                    at = dataclasses.replace(at, digest=at.version.replace("v", "d"))
                case "publish":
                    at = dataclasses.replace(at, phase="publishing", task="t")
            it = it.having(name, dataclasses.replace(at, away_s=0.0))
    raise AssertionError(f"it never ends, seed {seed}")
