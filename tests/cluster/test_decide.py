"""Playbooks for ``decided``: each runs through, then again cut at every command and resumed by another steward.

The world (``world.py``) holds every command against the invariants; what is left to say here is where each story ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster.cluster.decide import Become, decided
from muster.cluster.life import Life, State
from muster.cluster.observations import Opinion
from muster.cluster.roster import Wish
from muster.cluster.view import MemberView, View
from muster.kernel.errors import Conflict
from tests.cluster.world import SERVICES, Hand, World, cuts, member

Cut = tuple[int, Literal["before", "after"]]
Story = Callable[[Cut | None], World]
ALL = frozenset(SERVICES)


def begun(cut: Cut | None, *args: Any, **settings: Any) -> World:
    world = World(*args, **settings)
    world.cut = cut
    return world


# Each story ends in a world that came to rest.


def founding(cut: Cut | None) -> World:
    return begun(cut, settled=False).rest()


def joining(cut: Cut | None) -> World:
    world = begun(cut)
    world.add("p4", runs=False)
    assert world.rest().states["p4"] == "joining"
    world.start("p4")
    return world.rest()


def draining_and_back(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p2", "drain")
    assert world.rest().states["p2"] == "drained"
    world.wish("p2", "ready")
    return world.rest()


def draining_taken_back_half_way(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p2", "drain")
    world.hand = Hand(world)
    for _ in range(2):
        world.turn()
        world.rest() if world.cut else world.hand.beat()
    world.wish("p2", "ready")
    return world.rest()


def maintenance_and_back(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p2", "maintenance")
    assert world.rest().states["p2"] == "maintenance"
    world.stop("p2")
    world.wish("p2", "ready")
    assert world.rest().states["p2"] == "warming"
    world.start("p2")
    return world.rest()


def maintenance_that_ends_in_a_drain(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p2", "maintenance")
    world.rest()
    world.wish("p2", "drain")
    return world.rest()


def removing(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p3", "removed")
    assert world.rest().states["p3"] == "removed"
    world.unlist("p3")
    world.rest()
    world.stop("p3")
    return world.rest()


def removing_what_never_came_up(cut: Cut | None) -> World:
    world = begun(cut)
    world.add("p4", runs=False)
    assert world.rest().states["p4"] == "joining"
    world.wish("p4", "removed")
    return world.rest()


def removing_out_of_maintenance(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p3", "maintenance")
    world.rest()
    world.wish("p3", "removed")
    return world.rest()


def adding_again(cut: Cut | None) -> World:
    world = removing(cut)
    world.add("p3")
    assert world.rest().states["p3"] == "removed"
    world.wish("p3", "ready")
    assert world.rest().states["p3"] == "joining" if not world.members["p3"].runs else True
    world.start("p3")
    return world.rest()


def striking_from_the_file(cut: Cut | None) -> World:
    world = begun(cut)
    world.unlist("p3")
    assert world.rest().states["p3"] == "ready"
    world.stop("p3")
    return world.rest()


def two_drains_at_once(cut: Cut | None) -> World:
    world = begun(cut, min_ready=2)
    world.wish("p2", "drain")
    world.wish("p3", "maintenance")
    return world.rest()


def all_drained_but_the_last(cut: Cut | None) -> World:
    world = begun(cut)
    for name in ("p1", "p2", "p3"):
        world.wish(name, "drain")
    return world.rest()


def the_sole_signer(cut: Cut | None) -> World:
    world = begun(cut, signer="p1")
    world.wish("p1", "drain")
    assert world.rest().states["p1"] == "ready"
    world.wish("p1", "drain", forced=True)
    return world.rest()


def a_forced_drain_of_everybody(cut: Cut | None) -> World:
    world = begun(cut)
    for name in ("p1", "p2", "p3"):
        world.wish(name, "drain", forced=True)
    return world.rest()


def a_lagging_member(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p3", "drain")
    world.rest()
    world.members["p3"].lags = "its content is one version behind"
    world.wish("p3", "ready")
    assert world.rest().states["p3"] == "warming"
    world.members["p3"].lags = ""
    return world.rest()


def a_ruby_member(cut: Cut | None) -> World:
    world = begun(cut)
    world.add("p4", kind="foreman", runs=False)
    assert world.rest().states["p4"] == "warming"
    world.start("p4")
    assert world.rest().states["p4"] == "ready"
    world.wish("p4", "maintenance")
    assert world.rest().states["p4"] == "maintenance"
    world.stop("p4")
    world.wish("p4", "ready")
    assert world.rest().states["p4"] == "warming"
    world.start("p4")
    return world.rest()


def one_balancer_absent(cut: Cut | None) -> World:
    world = begun(cut)
    world.balancers["b2"].runs = False
    world.turn(6)
    world.add("p4")
    world.wish("p2", "drain")
    # It had connections when it was last heard.
    assert world.rest().states["p2"] == "draining"
    world.wish("p2", "drain", forced=True)
    return world.rest()


def every_balancer_absent(cut: Cut | None) -> World:
    world = begun(cut)
    for balancer in world.balancers.values():
        balancer.runs = False
    world.turn(6)
    world.add("p4")
    world.wish("p2", "drain")
    assert world.rest().states == {**READY, "p4": "ready"}
    world.wish("p2", "drain", forced=True)
    return world.rest()


def a_balancer_that_comes_back(cut: Cut | None) -> World:
    world = begun(cut, balancers=1)
    world.balancers["b1"].runs = False
    world.turn(6)
    world.wish("p2", "drain")
    assert world.rest().states == READY
    world.balancers["b1"].runs = True
    return world.rest()


def a_balancer_whose_haproxy_does_not_answer(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p2", "drain")
    world.turn()
    world.balancers["b1"].answers = False
    assert world.rest().states["p2"] in ("ready", "draining")
    world.balancers["b1"].answers = True
    return world.rest()


def rubies_whose_balancer_is_silent(cut: Cut | None) -> World:
    world = begun(cut, balancers=1, ruby=READY)
    world.balancers["b1"].runs = False
    world.turn(6)
    for name in READY:
        world.wish(name, "drain")
    assert world.rest().states == READY
    world.balancers["b1"].runs = True
    return world.rest()


def rubies_whose_balancer_is_in_trouble(cut: Cut | None) -> World:
    world = begun(cut, balancers=1, ruby=READY)
    world.balancers["b1"].answers = False
    world.turn(2)
    for name in READY:
        world.wish(name, "drain")
    assert world.rest().states == READY
    world.balancers["b1"].answers = True
    return world.rest()


def a_store_that_was_down(cut: Cut | None) -> World:
    world = begun(cut, balancers=1)
    balancer, members = world.balancers["b1"], world.members.values()
    for name in READY:
        world.wish(name, "drain")
    balancer.runs = False
    for it in members:
        it.reaches_store = False
    world.turn(60)
    # A balancer is the first to reach it again, and decides at once.
    balancer.runs = True
    assert world.rest().states == READY
    for it in members:
        it.reaches_store = True
    return world.rest()


def a_member_a_balancer_cannot_reach(cut: Cut | None) -> World:
    world = begun(cut, members=2, balancers=1)
    world.balancers["b1"].cut = {"p2"}
    world.turn(2)
    world.wish("p1", "drain")
    states, held = world.rest().end
    assert (states, set(held)) == ({"p1": "ready", "p2": "ready"}, {"p1"})
    world.balancers["b1"].cut = set()
    return world.rest()


def checks_that_fail_for_everybody(cut: Cut | None) -> World:
    world = begun(cut)
    for balancer in world.balancers.values():
        balancer.cut = set(READY)
    world.turn(2)
    for name in READY:
        world.wish(name, "drain")
    assert world.rest().states == READY
    for balancer in world.balancers.values():
        balancer.cut = set()
    return world.rest()


def losing_everybody(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p1", "drain")
    world.rest()
    world.stop("p1", "p2", "p3")
    world.rest()
    world.wish("p1", "ready")
    world.start("p1")
    world.rest()
    world.start("p2", "p3")
    return world.rest()


def a_member_that_dies_while_it_drains(cut: Cut | None) -> World:
    world = begun(cut)
    world.wish("p2", "drain")
    world.turn()
    world.stop("p2")
    return world.rest()


def a_member_broken_for_one_service(cut: Cut | None) -> World:
    world = begun(cut)
    world.members["p1"].unfit = {"puppetca"}
    world.members["p2"].unfit = {"puppetca"}
    world.turn(2)
    # p3 is the only one for puppetca; p1 takes nothing from it.
    world.wish("p3", "drain")
    world.wish("p1", "drain")
    return world.rest()


READY: dict[str, State] = dict.fromkeys(("p1", "p2", "p3"), "ready")
STORIES: Mapping[Story, tuple[Mapping[str, State], set[str]]] = {
    founding: (READY, set()),
    joining: ({**READY, "p4": "ready"}, set()),
    draining_and_back: (READY, set()),
    draining_taken_back_half_way: (READY, set()),
    maintenance_and_back: (READY, set()),
    maintenance_that_ends_in_a_drain: ({**READY, "p2": "drained"}, set()),
    removing: ({**READY, "p3": "removed"}, set()),
    removing_what_never_came_up: ({**READY, "p4": "removed"}, set()),
    removing_out_of_maintenance: ({**READY, "p3": "removed"}, set()),
    adding_again: (READY, set()),
    striking_from_the_file: ({**READY, "p3": "removed"}, set()),
    two_drains_at_once: ({**READY, "p2": "drained"}, {"p3"}),
    all_drained_but_the_last: ({"p1": "drained", "p2": "drained", "p3": "ready"}, {"p3"}),
    the_sole_signer: ({**READY, "p1": "drained"}, set()),
    a_forced_drain_of_everybody: (dict.fromkeys(READY, "drained"), set()),
    a_lagging_member: (READY, set()),
    a_ruby_member: ({**READY, "p4": "ready"}, set()),
    one_balancer_absent: ({**READY, "p2": "drained", "p4": "ready"}, set()),
    every_balancer_absent: ({**READY, "p2": "drained", "p4": "ready"}, set()),
    a_balancer_that_comes_back: ({**READY, "p2": "drained"}, set()),
    a_balancer_whose_haproxy_does_not_answer: ({**READY, "p2": "drained"}, set()),
    rubies_whose_balancer_is_silent: ({"p1": "drained", "p2": "drained", "p3": "ready"}, {"p3"}),
    rubies_whose_balancer_is_in_trouble: ({"p1": "drained", "p2": "drained", "p3": "ready"}, {"p3"}),
    a_store_that_was_down: ({"p1": "drained", "p2": "drained", "p3": "ready"}, {"p3"}),
    a_member_a_balancer_cannot_reach: ({"p1": "drained", "p2": "ready"}, set()),
    checks_that_fail_for_everybody: ({"p1": "drained", "p2": "drained", "p3": "ready"}, {"p3"}),
    losing_everybody: (READY, set()),
    a_member_that_dies_while_it_drains: ({**READY, "p2": "drained"}, set()),
    a_member_broken_for_one_service: ({**READY, "p1": "drained"}, {"p3"}),
}
stories = pytest.mark.parametrize("story", STORIES, ids=lambda s: s.__name__)


@stories
def test_a_story_ends_where_it_should(story: Story) -> None:
    states, held = STORIES[story]
    world = story(None)
    assert world.states == states
    assert set(world.end[1]) == held
    assert world.carried_out > 0


@stories
def test_invariant_8_cut_at_every_command_and_resumed_elsewhere_it_comes_to_the_same_end(story: Story) -> None:
    through = story(None)
    for cut in cuts(lambda: story(None)):
        resumed = story(cut)
        assert resumed.cut is None, f"{cut} was not reached"
        assert resumed.end == through.end, f"cut {cut[1]} command {cut[0]}"


# Views made by hand: one decision at a time.

UP: Mapping[str, Opinion] = dict.fromkeys(SERVICES, "up")


def of(name: str, stands: State | None = "ready", /, **more: Any) -> MemberView:
    said = "draining" if stands in ("draining", "drained", "maintenance") else "ready"
    life = Life(stands, version=3, age_s=60) if stands else None
    ready = more.get("ready", ALL)
    given = {
        "life": life,
        "ready": ready,
        "serves": ready,
        "takes": ready,
        "opinions": {"b1": UP},
        "sessions": 0,
        "state": said,
    }
    return MemberView(name, **{**given, **more})


def wished(wanted: Literal["ready", "drain"], goal: str | None = None, *, forced: bool = False) -> Wish:
    return Wish(wanted, "", "anna", 1, goal, forced)


DRAIN = wished("drain")


def viewed(*members: MemberView, **more: Any) -> View:
    return View(members, balancers=frozenset({"b1"}), **more)


def steps(*members: MemberView, **more: Any) -> dict[str, State]:
    return {c.member: c.state for c in decided(viewed(*members, **more)).commands}


def test_invariant_1_the_one_who_leaves_first_counts_as_gone_for_the_next() -> None:
    decision = decided(viewed(of("p1", wish=DRAIN), of("p2", wish=DRAIN), of("p3"), min_ready=2))
    assert [(c.member, c.state) for c in decision.commands] == [("p1", "draining")]
    assert decision.held == {"p2": "without it too few members would be ready (puppetca 1, smartproxy 1; 2 must be)"}
    assert decision.sentence == (
        "Draining p1: drained by anna. Not draining p2: without it too few members would be ready "
        "(puppetca 1, smartproxy 1; 2 must be). 2 of 3 members are ready."
    )


def test_invariant_1_the_one_who_is_admitted_first_counts_for_the_next() -> None:
    assert steps(of("p1", "warming"), of("p2", wish=DRAIN), of("p3"), min_ready=2) == {"p1": "ready", "p2": "draining"}
    assert steps(of("p2", wish=DRAIN), of("p3"), of("p4", "warming"), min_ready=2) == {"p4": "ready"}


def test_invariant_1_who_is_ready_for_nothing_may_go_and_who_is_ready_counts_for_its_services_only() -> None:
    assert steps(of("p1"), of("p2", ready=frozenset(), wish=DRAIN)) == {"p2": "draining"}
    only = of("p1", ready=frozenset({"smartproxy"}))
    decision = decided(viewed(only, of("p2", wish=DRAIN)))
    assert (decision.commands, "(puppetca 0; 1 must be)" in decision.held["p2"]) == ((), True)


@pytest.mark.parametrize("other", ["joining", "warming", "draining", "drained", "maintenance", "removed"])
def test_invariant_1_only_who_is_admitted_counts(other: State) -> None:
    lagging = of("p2", other, lags="behind", wish=wished("drain") if other != "joining" else Wish(), reports=False)
    assert "p1" not in steps(of("p1", wish=DRAIN), lagging)
    assert "p1" in decided(viewed(of("p1", wish=DRAIN), lagging)).held


def test_invariant_1_of_zero_asks_for_nobody_and_a_forced_wish_asks_nobody() -> None:
    assert steps(of("p1", wish=DRAIN), min_ready=0) == {"p1": "draining"}
    assert steps(of("p1", wish=wished("drain", forced=True)), min_ready=2) == {"p1": "draining"}


def test_invariant_1_a_forced_drain_that_leaves_too_few_is_said_with_the_services() -> None:
    forced = of("p1", wish=wished("drain", forced=True))
    decision = decided(viewed(forced, of("p2"), min_ready=2))
    assert decision.sentence == (
        "Draining p1: drained by anna; fewer than 2 members are ready without it (puppetca 1, smartproxy 1). "
        "1 of 2 members are ready."
    )
    assert "fewer" not in decided(viewed(forced, of("p2"))).sentence


SILENT = dict.fromkeys(SERVICES, "p2 is silent, and its checks pass at b1")


def test_invariant_1_who_fails_at_a_balancer_counts_for_nothing_whatever_it_says_of_itself() -> None:
    failing = of("p2", serves=frozenset(), takes=frozenset(), opinions={"b1": dict.fromkeys(SERVICES, "down")})
    decision = decided(viewed(of("p1", wish=DRAIN), failing))
    assert decision.commands == ()
    assert decision.held == {"p1": "without it too few members would be ready (puppetca 0, smartproxy 0; 1 must be)"}
    assert steps(of("p1", wish=wished("drain", forced=True)), failing) == {"p1": "draining"}
    assert steps(of("p1"), replace(failing, wish=DRAIN)) == {"p2": "draining"}


def test_invariant_1_who_serves_at_one_balancer_only_is_missed_there_and_counts_for_nobody() -> None:
    half = of("p2", serves=frozenset())
    assert "p1" in decided(viewed(of("p1", wish=DRAIN), half)).held
    assert "p2" in decided(viewed(of("p1", serves=frozenset()), replace(half, wish=DRAIN))).held
    assert steps(of("p1"), replace(half, wish=DRAIN)) == {"p2": "draining"}


def test_invariant_1_while_nobody_knows_who_serves_a_drain_waits_unless_it_is_not_needed_or_forced() -> None:
    lost = of("p2", reports=False, state="", ready=frozenset(), takes=ALL, doubts=SILENT)
    decision = decided(viewed(of("p1", wish=DRAIN), lost))
    assert (decision.commands, decision.held) == ((), {})
    assert decision.waiting == {
        "p1": "nobody knows who would serve without it (p2 is silent, and its checks pass at b1)"
    }
    assert decision.sentence == (
        "Not draining p1 yet: nobody knows who would serve without it (p2 is silent, and its checks pass at b1). "
        "p2 is silent. 1 of 2 members are ready."
    )
    assert steps(of("p1", wish=wished("drain", forced=True)), lost) == {"p1": "draining"}
    assert steps(of("p1", wish=DRAIN), lost, of("p3")) == {"p1": "draining"}
    assert steps(of("p1"), replace(lost, wish=DRAIN)) == {"p2": "draining"}
    # Two of whom nobody knows do not both leave, and who is alone does not wait for what would not help.
    both = decided(viewed(replace(lost, name="p1", wish=DRAIN), replace(lost, wish=DRAIN)))
    assert (both.commands, set(both.waiting)) == ((), {"p1", "p2"})
    assert set(decided(viewed(replace(lost, wish=DRAIN))).held) == {"p2"}


def test_invariant_2_the_only_signer_leaves_by_a_forced_wish_and_the_sentence_says_what_that_stops() -> None:
    others = of("p2"), of("p3")
    decision = decided(viewed(of("p1", is_signer=True, wish=DRAIN), *others))
    assert decision.commands == ()
    assert decision.held == {"p1": "it is the only signer, so no Puppet certificate could be signed without it"}
    forced = decided(viewed(of("p1", is_signer=True, wish=wished("drain", forced=True)), *others))
    assert [c.state for c in forced.commands] == ["draining"]
    assert forced.sentence.startswith(
        "Draining p1: drained by anna; no Puppet certificate can be signed until it is back."
    )


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"lags": "one version behind"}, "one version behind"),
        ({"state": "draining"}, "it was not told yet that it is wanted back"),
        ({"opinions": {"b1": {**UP, "puppetca": "unknown"}}}, "no check has ended yet: puppetca at b1"),
        ({"opinions": {}}, "no check has ended yet: b1"),
        ({"opinions": {"b1": {}}}, "no check has ended yet: b1"),
        ({"ready": frozenset()}, "it is ready for nothing (no check of it succeeds)"),
        ({"ready": frozenset(), "unready": {"puppetca": "no key"}}, "it is ready for nothing (puppetca: no key)"),
        ({"opinions": {"b1": dict.fromkeys(SERVICES, "down")}}, "it is ready for nothing (no check of it succeeds)"),
    ],
)
def test_invariant_3_who_is_not_known_to_be_fit_is_not_admitted(what: dict[str, Any], why: str) -> None:
    decision = decided(viewed(of("p1"), of("p2", "warming", **what)))
    assert (decision.commands, decision.waiting) == ((), {"p2": why})
    assert f"p2 is warming: {why}." in decision.sentence


def test_invariant_3_one_service_that_works_is_enough_and_every_live_balancer_is_asked() -> None:
    half = of("p2", "warming", ready=frozenset({"smartproxy"}), opinions={"b1": {**UP, "puppetca": "down"}})
    assert steps(of("p1"), half) == {"p2": "ready"}
    two = viewed(of("p1", opinions={"b1": UP, "b2": UP}), of("p2", "warming"))
    decision = decided(replace(two, balancers=frozenset({"b1", "b2"})))
    assert (decision.commands, decision.waiting) == ((), {"p2": "no check has ended yet: b2"})


def test_invariant_4_every_command_carries_the_version_it_was_decided_on() -> None:
    decision = decided(viewed(of("p1"), of("p2", wish=DRAIN), of("p3", None)))
    assert decision.commands == (
        Become("p2", "draining", "drained by anna", 3),
        Become("p3", "joining", "it is new in the cluster file", 0),
    )


def test_invariant_4_a_command_that_came_too_late_changes_nothing() -> None:
    world = World()
    world.wish("p1", "drain")
    late, other = Hand(world), Hand(world)
    for hand in (late, other):
        hand.look()
    world.wish("p2", "drain")
    late.act()
    assert world.states == READY
    other.act()
    assert world.states == {**READY, "p1": "draining"}
    with pytest.raises(Conflict):
        world.change(Become("p1", "drained", "", 1), epoch=other.epoch)


def test_invariant_4_a_member_takes_one_step_a_beat() -> None:
    world = World()
    world.wish("p2", "maintenance")
    seen = []
    hand = Hand(world)
    for _ in range(12):
        world.turn()
        hand.beat()
        seen.append(world.states["p2"])
    assert list(dict.fromkeys(seen)) == ["draining", "drained", "maintenance"]


def test_invariant_5_when_nobody_is_ready_who_comes_is_admitted_unchecked() -> None:
    unchecked: dict[str, Any] = {"opinions": {}, "ready": frozenset(), "state": "draining"}
    assert steps(of("p1", None), of("p2", "warming", **unchecked)) == {"p1": "ready", "p2": "ready"}
    assert steps(of("p1", ready=frozenset()), of("p2", "warming", **unchecked)) == {"p2": "ready"}
    assert steps(of("p1", None, wish=DRAIN)) == {"p1": "joining"}
    # Who may serve for all that is known was not lost, and who only gets clients because every check fails may be.
    may = of("p1", ready=frozenset(), reports=False, doubts=SILENT)
    assert steps(may, of("p2", "warming", **unchecked)) == {}
    failing = decided(viewed(may, of("p2", "warming", **unchecked), unchecked={"b1": SERVICES}))
    assert [c.state for c in failing.commands] == ["ready"]
    # What it lags behind in would be lost with it, so it is not the one to begin with.
    assert steps(of("p1", "warming", lags="behind")) == {}
    assert steps(of("p1", None, lags="behind")) == {"p1": "joining"}


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"sessions": 3}, "3 connections left"),
        ({"state": "ready"}, "it was not told yet"),
        (
            {"sessions": None, "life": Life("draining", version=3, age_s=2.9)},
            "no balancer reports, so its clients get some time",
        ),
        (
            {"kind": "foreman", "reports": False, "state": "", "life": Life("draining", version=3, age_s=2.9)},
            "balancers get some time to hear of it",
        ),
        (
            {"uncounted": {"b2": "b2 is silent, and had 30 connections when it was last heard"}},
            "b2 is silent, and had 30 connections when it was last heard; only a forced wish does not wait for that",
        ),
        ({"uncounted": {"b2": "b2 had 30"}, "sessions": 3}, "3 connections left"),
        ({"uncounted": {"b2": "b2 had 30"}, "sessions": None},
         "b2 had 30; only a forced wish does not wait for that"),
    ],
)  # fmt: skip
def test_invariant_6_who_may_have_clients_left_is_not_drained(what: dict[str, Any], why: str) -> None:
    decision = decided(viewed(of("p1"), of("p2", "draining", wish=DRAIN, **what)))
    assert (decision.commands, decision.waiting) == ((), {"p2": why})


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"state": "stopping"},
        {"reports": False, "state": ""},
        {"kind": "foreman", "reports": False, "state": ""},
        {"sessions": None, "life": Life("draining", version=3, age_s=3.0)},
    ],
)
def test_invariant_6_who_has_none_is(what: dict[str, Any]) -> None:
    assert steps(of("p1"), of("p2", "draining", wish=DRAIN, **what)) == {"p2": "drained"}


def test_invariant_6_a_forced_wish_gives_up_what_nobody_counts_once_the_drain_had_time_to_arrive() -> None:
    forced, uncounted = wished("drain", forced=True), {"b2": "b2 is silent, and had 30"}
    lost = of("p2", "draining", wish=forced, uncounted=uncounted)
    decision = decided(viewed(of("p1"), lost))
    assert [c.state for c in decision.commands] == ["drained"]
    assert "p2 is drained by force, whoever it serves: b2 is silent, and had 30." in decision.sentence
    assert steps(of("p1"), replace(lost, life=Life("draining", age_s=2.9))) == {}
    assert steps(of("p1"), replace(lost, sessions=1)) == {}


def test_invariant_6_a_silent_balancer_without_connections_is_given_up_once_the_drain_had_time_to_arrive() -> None:
    leaving = of("p2", "draining", wish=DRAIN)
    blind = {"blind": {"b2": "b2 is silent"}}
    assert steps(of("p1"), leaving, **blind) == {"p2": "drained"}
    decision = decided(viewed(of("p1"), replace(leaving, life=Life("draining", age_s=2.9)), **blind))
    assert decision.waiting == {"p2": "b2 is silent, so its clients get some time"}


def test_invariant_7_what_nobody_lists_is_removed_once_it_is_nowhere_any_more() -> None:
    gone = of("p2", "ready", listed=False, reports=False, opinions={"b1": {}}, sessions=None)
    assert steps(of("p1"), gone) == {"p2": "removed"}
    assert steps(of("p1"), replace(gone, life=Life("removed"))) == {}
    assert steps(of("p1"), replace(gone, life=None)) == {}
    for serves in (replace(gone, reports=True), replace(gone, opinions={"b1": UP})):
        decision = decided(viewed(of("p1"), serves))
        assert decision.waiting == {"p2": "it serves, and the cluster file of the steward does not list it"}
        assert "p2 is ready: it serves, and" in decision.sentence
        assert decision.commands == ()


def test_invariant_7_what_comes_back_comes_through_joining() -> None:
    assert steps(of("p1"), of("p2", "removed")) == {"p2": "joining"}
    assert steps(of("p1"), of("p2", "removed", wish=wished("drain", "removed"))) == {}
    assert steps(of("p1"), of("p2", "joining", reports=False)) == {}
    assert steps(of("p1"), of("p2", "joining", state="starting")) == {}
    assert steps(of("p1"), of("p2", "joining", reports=False, kind="foreman")) == {"p2": "warming"}


@pytest.mark.parametrize(
    ("state", "wish", "becomes"),
    [
        ("joining", DRAIN, "draining"),
        ("joining", wished("drain", "maintenance"), "draining"),
        ("joining", wished("drain", "removed"), "draining"),
        ("warming", DRAIN, "draining"),
        ("warming", wished("drain", "removed"), "draining"),
        ("ready", wished("ready"), None),
        ("draining", wished("ready"), "warming"),
        ("drained", DRAIN, None),
        ("drained", wished("ready"), "warming"),
        ("drained", wished("drain", "maintenance"), "maintenance"),
        ("drained", wished("drain", "removed"), "removed"),
        ("maintenance", wished("drain", "maintenance"), None),
        ("maintenance", DRAIN, "drained"),
        ("maintenance", wished("ready"), "warming"),
        ("maintenance", wished("drain", "removed"), "removed"),
    ],
)
def test_every_wish_is_followed_from_wherever_the_member_stands(
    state: State, wish: Wish, becomes: State | None
) -> None:
    for forced in (False, True):
        assert steps(of("p1"), of("p2", state, wish=replace(wish, forced=forced))).get("p2") == becomes


@pytest.mark.parametrize("forced", [False, True])
def test_a_member_that_never_came_up_is_removed(forced: bool) -> None:
    wish = wished("drain", "removed", forced=forced)
    never: dict[str, Any] = {
        "wish": wish, "reports": False, "state": "", "ready": frozenset(), "opinions": {}, "sessions": 0
    }  # fmt: skip
    seen: list[State] = ["joining"]
    while (becomes := steps(of("p1"), of("p2", seen[-1], **never)).get("p2")) is not None:
        seen.append(becomes)
    assert seen == ["joining", "draining", "drained", "removed"]


def test_the_sentence_names_balancers_nothing_is_known_of() -> None:
    decision = decided(viewed(of("p1"), absent=frozenset({"b3", "b2"})))
    assert decision.sentence == "Of balancer b2, b3 nothing is known. 1 of 1 members are ready."


def test_the_sentence_says_where_every_check_fails() -> None:
    decision = decided(viewed(of("p1"), unchecked={"b1": ("puppetca", "smartproxy"), "b2": ("puppetca",)}))
    assert decision.sentence == (
        "Every check of puppetca, smartproxy fails at b1: it serves unchecked. "
        "Every check of puppetca fails at b2: it serves unchecked. 1 of 1 members are ready."
    )


def test_the_sentence_counts_only_members_that_serve_and_names_the_others() -> None:
    lost = of(
        "p1", reports=False, state="", ready=frozenset(), takes=ALL, doubts=dict.fromkeys(SERVICES, "p1 is silent")
    )
    down = {"b1": dict.fromkeys(SERVICES, "down")}
    dead = of("p2", kind="foreman", ready=frozenset(), opinions=down)
    unfit = of("p3", ready=frozenset(), opinions=down)
    stopping = of("p4", state="stopping")
    unknown = of("p5", kind="foreman", ready=frozenset(), opinions={})
    assert decided(viewed(lost, dead, unfit, stopping, of("p6"), unknown)).sentence == (
        "p1 is silent. p2 fails every check. p3 is ready for nothing. p4 says that it is stopping. "
        "2 of 6 members are ready."
    )
    assert "drained" not in decided(viewed(of("p1", "drained", wish=DRAIN), of("p2"))).sentence


def test_a_steward_that_does_not_know_a_member_says_so() -> None:
    new = of("p9", None, listed=False)
    decision = decided(viewed(of("p1"), new))
    assert (decision.commands, decision.waiting) == ((), {"p9": "the cluster file of the steward does not list it"})
    assert decision.sentence == (
        "p9 is not admitted: the cluster file of the steward does not list it. 1 of 1 members are ready."
    )
    wished_for = decided(viewed(of("p1"), replace(new, reports=False)))
    assert (wished_for.waiting, wished_for.sentence) == (decision.waiting, "1 of 1 members are ready.")


def test_the_sentence_of_an_admission_says_what_it_rests_on() -> None:
    assert "Admitting p2: its checks have passed." in decided(viewed(of("p1"), of("p2", "warming"))).sentence
    alone = View((of("p1", opinions={}), of("p2", "warming", opinions={})))
    assert "Admitting p2: it is ready." in decided(alone).sentence


def test_a_member_of_one_signer_that_stays_does_not_hinder_the_others() -> None:
    world = World(signer="p1")
    world.wish("p2", "drain")
    assert world.rest().end == ({**READY, "p2": "drained"}, {})
    assert member(world.view(), "p1").is_signer


# Whatever happens, in whatever order.

NAMES = ("p1", "p2", "p3", "p4")
ACTIONS = st.one_of(
    st.tuples(st.just("wish"), st.sampled_from(NAMES), st.sampled_from(["ready", "drain", "maintenance", "removed"]),
              st.booleans()),
    st.tuples(st.sampled_from(["stop", "start", "add", "unlist", "lag", "catch up"]), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["break", "mend"]), st.sampled_from(NAMES), st.sampled_from(SERVICES)),
    st.tuples(st.sampled_from(["balancer stops", "balancer starts", "HAProxy hangs", "HAProxy answers"]),
              st.sampled_from(["b1", "b2"])),
    st.tuples(st.sampled_from(["cut", "join"]), st.sampled_from(NAMES), st.sampled_from(["b1", "b2"])),
    st.tuples(st.sampled_from(["loses the store", "finds the store"]), st.sampled_from(NAMES)),
    st.tuples(st.just("turn"), st.integers(1, 7)),
    st.tuples(st.sampled_from(["look", "act", "take over"]), st.integers(0, 1)),
)  # fmt: skip


def happen(world: World, hands: list[Hand], action: tuple[Any, ...]) -> None:
    match action:
        case ("wish", name, target, forced):
            world.wish(name, target, forced=forced)
        case ("add", name):
            world.add(name)
        case ("unlist", name) if len(world.listed) > 1:
            world.unlist(name)
        case ("stop" | "start" as what, name) if name in world.members:
            (world.stop if what == "stop" else world.start)(name)
        case ("lag" | "catch up" as what, name) if name in world.members:
            world.members[name].lags = "it is behind" if what == "lag" else ""
        case ("break", name, service) if name in world.members:
            world.members[name].unfit.add(service)
        case ("mend", name, service) if name in world.members:
            world.members[name].unfit.discard(service)
        case ("balancer stops" | "balancer starts" as what, name):
            world.balancers[name].runs = what == "balancer starts"
        case ("HAProxy hangs" | "HAProxy answers" as what, name):
            world.balancers[name].answers = what == "HAProxy answers"
        case ("cut", name, balancer):
            world.balancers[balancer].cut.add(name)
        case ("join", name, balancer):
            world.balancers[balancer].cut.discard(name)
        case ("loses the store" | "finds the store" as what, name) if name in world.members:
            world.members[name].reaches_store = what == "finds the store"
        case ("turn", seconds):
            world.turn(seconds)
        case ("look", number):
            hands[number].look()
        case ("act", number):
            hands[number].act()
        case ("take over", number):
            hands[number] = Hand(world)


@settings(
    max_examples=200, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)  # A failure prints its actions and the blob that repeats it.
@given(
    actions=st.lists(ACTIONS, max_size=60),
    min_ready=st.integers(0, 2),
    signer=st.sampled_from(["", "p1"]),
    settled=st.booleans(),
    ruby=st.sets(st.sampled_from(NAMES[:3])),
)
def test_whatever_happens_no_invariant_is_broken_and_a_mended_world_comes_to_rest(
    actions: list[tuple[Any, ...]], min_ready: int, signer: str, settled: bool, ruby: set[str]
) -> None:
    world = World(min_ready=min_ready, signer=signer, settled=settled, ruby=ruby)
    hands = [Hand(world), Hand(world)]
    for action in actions:
        happen(world, hands, action)
    for name in world.members:
        world.add(name)
        world.start(name)
        world.members[name].unfit, world.members[name].lags = set(), ""
        world.members[name].reaches_store = True
        world.wish(name, "ready")
    for balancer in world.balancers.values():
        balancer.runs, balancer.answers, balancer.cut = True, True, set()
    assert world.rest().end == (dict.fromkeys(world.members, "ready"), {})
