"""Playbooks for ``decided``: the number is that of the invariant of ``view.py``.

``test_view_simulated.py`` attacks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from muster.content.view import Decided, Report, Version, View, decided, lagging, waits

NOW, LAG_S, FORGET_S = 1000.0, 60.0, 3600.0


def version(digest: str, revision: int, *, generation: int = 0, timestamp: float = 1.0) -> Version:
    return Version(digest, generation, revision, timestamp, seen_at=500.0)


# From old to new; "text" has a revision that is no number, "empty" is what Pulp writes for a repository without packages.
A, B, C, D = (version(digest, n) for n, digest in enumerate("abcd", start=1))
EMPTY, TEXT = version("empty", 0, timestamp=9.0), version("text", -1, timestamp=9.0)
KNOWN = {v.digest: v for v in (A, B, C, D, EMPTY, TEXT)}
EVERYTHING = frozenset(KNOWN)
SHOWS_B = View(shown="b", shown_since=600.0)
# Who has waited long enough, and not quite.
OVERDUE, DUE = NOW - LAG_S, NOW - LAG_S + 0.1


def says(carried: str | None, *, staged: frozenset[str] = EVERYTHING, ready: bool = True) -> Report:
    return Report("p", carried, staged, ready)


def lost(since: float, *, staged: frozenset[str] = EVERYTHING, ready: bool = True) -> Report:
    return Report("p", None, staged, ready, unreached_since=since)


def decide(
    view: View, *reports: Report | str | None, now: float = NOW, known: Mapping[str, Version] = KNOWN
) -> Decided | None:
    told = [r if isinstance(r, Report) else says(r) for r in reports]
    named = [replace(r, member=f"p{n}") for n, r in enumerate(told, start=1)]
    return decided(view, known, named, now, lag_s=LAG_S, forget_s=FORGET_S)


def becomes(view: View, *reports: Report | str | None) -> str | None:
    decision = decide(view, *reports)
    return (decision.view if decision else view).shown


def without(*digests: str) -> frozenset[str]:
    return EVERYTHING - set(digests)


def test_what_is_newer_goes_by_generation_then_revision_then_timestamp() -> None:
    falling = [
        version("a", 0, generation=1), version("a", -1, generation=1), B, A, version("a", 0, timestamp=10.0), EMPTY,
        version("b", -1), version("a", -1),
    ]  # fmt: skip
    assert sorted(falling, key=lambda v: v.order) == falling[::-1]


# Invariant 1.


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        ((says("c"), says("c")), "c"),
        ((says("c"), says("c", staged=without("c"))), "b"),
        ((says("c"), says("c", staged=without("c"), ready=False)), "c"),
        ((says("c", ready=False), says("c", staged=without("c"), ready=False)), "c"),
        ((says("c", staged=without("c"), ready=False), says("c", staged=without("c"), ready=False)), "b"),
        ((says("c"), says("c"), lost(0.0, staged=without("c"))), "b"),
        ((says("c"), says("c"), lost(0.0, staged=without("c"), ready=False)), "c"),
    ],
)
def test_invariant_1_whoever_takes_clients_has_it_first(reports: Sequence[Report], shown: str) -> None:
    assert becomes(SHOWS_B, *reports) == shown


@pytest.mark.parametrize("view", [SHOWS_B, View(), replace(SHOWS_B, newer_since=OVERDUE), View(shown="d")])
@pytest.mark.parametrize("carried", ["c", None])
def test_invariant_1_also_at_first_after_the_lag_and_on_the_way_back(view: View, carried: str | None) -> None:
    reports = says(carried), says("c", staged=without("c")), says("c")
    assert becomes(view, *reports) == view.shown


def test_invariant_1_of_what_may_be_shown_the_highest_that_everybody_has_is_shown_meanwhile() -> None:
    decision = decide(SHOWS_B, says("d"), says("d", staged=without("d")), says("c"))
    assert decision == Decided(
        View(shown="c", shown_since=NOW, newer_since=NOW),
        None,
        "Showing revision 3 (c): 2 Pulps carry it or something newer.",
    )


# Invariants 4 and 5.


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        (("c", "b", "b"), "b"),
        (("c", "c", "b"), "c"),
        (("d", "c", "b"), "c"),
        (("d", "c", "a"), "c"),
        (("d", "d", "d"), "d"),
        (("c",), "c"),
        # A single 404 is a backend that lags or was emptied: nobody to wait for.
        (("b", None, "b"), "b"),
        (("c", None, None), "c"),
        (("c", "c", None), "c"),
        (("c", "b", None), "b"),
        # What carries less, however little, is waited for.
        (("c", "empty", "b"), "b"),
    ],
)
def test_invariant_4_what_is_newer_is_shown_when_a_second_one_carries_it_or_something_above(
    reports: Sequence[str | None], shown: str
) -> None:
    assert becomes(SHOWS_B, *reports) == shown


def test_what_a_backend_carried_before_it_was_lost_counts_for_nothing() -> None:
    before = replace(lost(DUE), carried="c")
    assert becomes(SHOWS_B, "c", before, "b") == "b"
    assert becomes(View(shown="c"), "a", replace(lost(NOW - FORGET_S), carried="c")) == "a"


def test_invariant_4_when_nobody_carries_what_is_shown_what_is_above_it_is_shown_at_once() -> None:
    decision = decide(SHOWS_B, "d", "a")
    assert decision is not None
    assert decision.why == "Showing revision 4 (d): no Pulp carries what was shown."
    assert becomes(SHOWS_B, "d", lost(DUE)) == "d"
    assert becomes(SHOWS_B, "d", "c", "a") == "c"
    # Two are at it or past it, so nothing speaks for less.
    assert becomes(SHOWS_B, "d", "d", "c") == "d"
    assert becomes(SHOWS_B, says("d"), says("a", staged=without("d"))) == "b"


def test_invariant_4_at_first_nobody_is_waited_for_who_has_nothing_or_does_not_answer() -> None:
    assert becomes(View(), "c", None, lost(DUE)) == "c"
    assert becomes(View(), "c", "b", "a") == "b"
    assert becomes(View(newer_since=OVERDUE), "c", "b", "a") == "c"
    assert becomes(View(), says("c", staged=without("b")), "b", "a") == "a"
    assert becomes(View(), "c", "c", "a") == "c"
    assert becomes(View()) is None
    assert becomes(View(), None, lost(DUE)) is None
    decision = decide(View(), "a", None)
    assert decision == Decided(
        View(shown="a", shown_since=NOW), None, "Showing revision 1 (a): no other Pulp carries anything."
    )


def test_invariant_4_who_carries_what_is_not_known_yet_carries_something() -> None:
    why = "Not showing revision 3 (c) yet: one Pulp alone carries it."
    assert decide(View(), "c", "unknown") == Decided(View(newer_since=NOW), None, why)
    assert decide(View(newer_since=DUE), "c", None, "unknown") is None
    assert becomes(View(newer_since=OVERDUE), "c", "unknown") == "c"
    assert becomes(View(), "c", "b", "unknown") == "b"
    assert becomes(View(), "c", replace(lost(DUE), carried="unknown")) == "c"
    # It may be above what is shown, and below what one alone carries.
    assert decide(SHOWS_B, "d", "unknown") == Decided(
        replace(SHOWS_B, newer_since=NOW), None, why.replace("3 (c)", "4 (d)")
    )
    assert becomes(SHOWS_B, "d", "a", "unknown") == "b"
    assert becomes(SHOWS_B, "d", "c", "unknown") == "c"
    assert becomes(replace(SHOWS_B, newer_since=OVERDUE), "d", "unknown") == "d"
    assert waits(replace(SHOWS_B, newer_since=DUE), KNOWN, [says("d"), says("unknown")], NOW, LAG_S) == (
        why.replace("3 (c)", "4 (d)")
    )


def test_invariant_5_the_wait_is_counted_from_when_something_newer_was_carried_first_and_has_an_end() -> None:
    first = decide(SHOWS_B, "c", "b")
    assert first == Decided(
        replace(SHOWS_B, newer_since=NOW), None, "Not showing revision 3 (c) yet: one Pulp alone carries it."
    )
    assert decide(first.view, "c", "b", now=NOW + LAG_S - 0.1) is None
    last = decide(first.view, "c", "b", now=NOW + LAG_S)
    assert last == Decided(
        View(shown="c", shown_since=NOW + LAG_S),
        None,
        "Showing revision 3 (c): the other Pulps had time enough to follow.",
    )
    # It was published long ago, and is carried just now.
    assert C.seen_at < NOW - LAG_S


def test_invariant_5_the_wait_begins_anew_when_what_was_newer_is_withdrawn_or_shown() -> None:
    waiting = replace(SHOWS_B, newer_since=DUE)
    withdrawn = decide(waiting, "b", "b")
    assert withdrawn == Decided(SHOWS_B, None, "What was newer is carried no more.")
    assert decide(SHOWS_B, "b", "b") is None
    assert decide(waiting, "a", lost(DUE)) == Decided(SHOWS_B, None, "What was newer is carried no more.")
    shown = decide(waiting, "c", "c")
    assert shown is not None
    assert shown.view.newer_since is None
    further = decide(waiting, "d", "c")
    assert further is not None
    assert (further.view.shown, further.view.newer_since) == ("c", NOW)


def test_invariant_5_one_that_stays_behind_while_versions_follow_one_another_holds_nothing_up_for_longer() -> None:
    known = {f"v{n}": version(f"v{n}", n) for n in range(100)}
    everything = frozenset(known)
    row, behind = View(shown="v0"), []
    for n in range(1, 100):
        now = NOW + n * LAG_S / 4
        reports = says(f"v{n}", staged=everything), says("v0", staged=everything)
        decision = decide(row, *reports, now=now, known=known)
        row = decision.view if decision else row
        behind.append(n - known[row.shown or ""].revision)
    assert max(behind) == 4


def test_a_wait_for_metadata_says_whose() -> None:
    decision = decide(SHOWS_B, says("c"), says("c", staged=without("c")), says("c"))
    assert decision is not None
    assert decision.why == "Not showing revision 3 (c) yet: not all metadata of it is at p2."
    nobody = says("c", staged=frozenset(), ready=False)
    decision = decide(View(), nobody)
    assert decision is not None
    assert decision.why == "Not showing revision 3 (c) yet: not all metadata of it is at any member."


# Invariants 2, 3 and 6.


@pytest.mark.parametrize(
    "reports",
    [
        ("a", "a", "b"), ("a", "a", "c"), (None, None, "b"), ("empty", "empty", "b"),
        ("a", "a", lost(NOW - FORGET_S + 0.1)), ("a", "a", lost(DUE)), (None, lost(NOW)), ("a", "a", "not known yet"),
        (lost(0.0), lost(0.0)), (),
    ],
)  # fmt: skip
def test_invariant_3_nothing_lower_is_shown_while_one_has_it_or_more_or_may(reports: Sequence[str | Report]) -> None:
    view = replace(SHOWS_B, shown="b")
    assert becomes(view, *reports) in ("b", "c")
    decision = decide(view, *reports)
    assert decision is None or decision.view.generation == 0


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        (("a", "a", "a"), "a"),
        (("empty", "empty"), "empty"),
        (("text", "text"), "text"),
        (("a",), "a"),
        (("a", None), "a"),
        (("a", lost(NOW - FORGET_S)), "a"),
        (("b", "a"), "b"),
        # The last lagged behind what is withdrawn: going to its version would be a second step back for clients.
        (("b", "a", "a"), "a"),
        (("empty", "empty", "b", "b"), "b"),
        (("a", "b"), "b"),
        (("empty", "empty", "b"), "empty"),
    ],
)
def test_invariant_6_when_nobody_has_it_nor_may_what_most_carry_is_shown_in_a_new_generation(
    reports: Sequence[str | Report | None], shown: str
) -> None:
    decision = decide(View(generation=0, shown="c", newer_since=DUE), *reports)
    assert decision is not None
    assert decision.view == View(generation=1, shown=shown, shown_since=NOW)
    assert decision.raised == shown


def test_invariant_6_what_was_withdrawn_changes_nothing_unless_everybody_goes_forward_to_it() -> None:
    known = {**KNOWN, "a": replace(A, generation=1)}
    row = View(generation=1, shown="a", shown_since=600.0)
    for reports in (("a", "a", "c"), ("c", "c", "a"), (lost(DUE), "c", "c"), ("a", "c", lost(0.0))):
        assert decide(row, *reports, known=known) is None
    forward = decide(row, "c", "c", "c", known=known)
    assert forward == Decided(
        View(generation=2, shown="c", shown_since=NOW),
        "c",
        "Showing revision 3 (c) in a new generation: no Pulp carries revision 1 (a) or anything newer.",
    )
    # What is published from then on is newer again.
    new = {**known, "e": version("e", 2, generation=1)}
    told = says("e", staged=frozenset(new)), says("e", staged=frozenset(new))
    later = decide(row, *told, known=new)
    assert later is not None
    assert (later.view.shown, later.view.generation, later.raised) == ("e", 1, None)


def test_invariant_6_of_two_that_differ_the_one_that_left_what_was_shown_says_where_to() -> None:
    view, went, stayed = (
        View(shown="c"),
        replace(says("a"), carried_since=900.0),
        replace(says("b"), carried_since=600.0),
    )
    assert becomes(view, went, stayed) == becomes(view, stayed, went) == "a"
    assert becomes(view, replace(stayed, carried="a"), replace(went, carried="b")) == "b"
    # A backend that is not reached says nothing, nor do later ones of fewer.
    forgotten = replace(lost(NOW - FORGET_S), carried="b", carried_since=950.0)
    assert becomes(view, went, stayed, forgotten) == "a"
    assert becomes(view, stayed, replace(went, carried_since=1.0), replace(stayed, carried_since=2.0)) == "b"
    assert becomes(view, replace(stayed, carried_since=2.0), replace(went, carried_since=1.0), went) == "a"


# Invariant 7.


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        ((None, None, None), None),
        ((None,), None),
        ((None, None, "b"), "b"),
        ((None, None, lost(0.0)), "b"),
        ((None, None, lost(NOW - FORGET_S)), "b"),
        ((None, "not known yet"), "b"),
        ((), "b"),
    ],
)
def test_invariant_7_a_repository_is_gone_when_every_backend_was_reached_and_says_so(
    reports: Sequence[str | Report | None], shown: str | None
) -> None:
    assert becomes(SHOWS_B, *reports) == shown


def test_invariant_7_one_that_is_there_again_begins_anew_in_a_generation_of_its_own() -> None:
    gone = decide(SHOWS_B, None, None)
    assert gone == Decided(
        View(generation=1, shown=None, shown_since=NOW),
        None,
        "There is no such repository any more: every Pulp says so, the last shown was revision 2 (b).",
    )
    assert decide(gone.view, None, None) is None
    again = decide(gone.view, "a", None)
    assert again is not None
    assert (again.view, again.raised) == (View(generation=1, shown="a", shown_since=NOW), "a")


# Who is fit to answer.


def test_who_lacks_metadata_of_what_is_shown_is_not_fit() -> None:
    assert lagging(View(), KNOWN, says(None, staged=frozenset()), NOW, LAG_S) == ""
    assert lagging(SHOWS_B, KNOWN, says("b"), NOW, LAG_S) == ""
    why = lagging(SHOWS_B, KNOWN, says("b", staged=without("b")), NOW, LAG_S)
    assert why == "it has not all metadata of revision 2 (b) yet"


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (says("a"), "its Pulp still carries revision 1 (a), 60 s after something newer was shown"),
        (says("text"), "its Pulp still carries the version (text), 60 s after something newer was shown"),
        # It was not given the repository: its member answers with what others have.
        (says(None), ""),
        (says("b"), ""),
        (says("c"), ""),
        (says("not known yet"), ""),
        (lost(0.0), ""),
    ],
)
def test_whose_backend_stays_behind_what_is_shown_is_not_fit_once_the_lag_is_over(report: Report, why: str) -> None:
    assert lagging(replace(SHOWS_B, shown_since=OVERDUE), KNOWN, report, NOW, LAG_S) == why
    assert lagging(replace(SHOWS_B, shown_since=DUE), KNOWN, report, NOW, LAG_S) == ""


# What all have while Pulps pass by.


def passed_by(view: View, versions: list[Version], *reports: Report) -> Decided | None:
    return decided(view, {v.digest: v for v in versions}, reports, NOW, lag_s=LAG_S, forget_s=FORGET_S)


def test_a_version_that_all_have_is_shown_where_all_pulps_have_passed_it_already() -> None:
    one, *later = (Version(f"v{n}", 0, n, float(n), NOW - 20 + n) for n in range(1, 6))
    view = View(0, "v1", NOW - 19)
    whole = frozenset({"v1", "v2", "v3"})
    first = Report("p1", "v5", whole | {"v5"}, True)
    found = passed_by(view, [one, *later], first, Report("p2", "v4", whole | {"v4"}, True))
    assert found is not None
    assert (found.view.shown, found.view.newer_since) == ("v3", NOW)
    # Not one that a second Pulp has not come to, and not one that somebody lacks.
    found = passed_by(view, [one, *later], first, Report("p2", "v2", whole | {"v4", "v5"}, True))
    assert found is not None
    assert found.view.shown == "v2"
    found = passed_by(view, [one, *later], first, Report("p2", "v4", frozenset({"v1", "v4"}), True))
    assert found is not None
    assert found.view.shown == "v1"
    # One that was withdrawn before what is shown was shown does not come to be seen by that.
    found = passed_by(View(0, "v1", NOW - 10), [one, *later], first, Report("p2", "v4", whole, True))
    assert found is not None
    assert found.view.shown == "v1"


@pytest.mark.parametrize(("shown", "carried"), [("a", "b"), ("b", "a")])
def test_of_two_that_nothing_puts_in_order_what_all_carry_is_shown(shown: str, carried: str) -> None:
    alike = {digest: version(digest, -1, timestamp=0.0) for digest in "ab"}
    row = View(shown=shown, shown_since=600.0)
    decision = decide(row, *(says(carried, staged=frozenset("ab")) for _ in range(3)), known=alike)
    assert decision is not None
    assert decision.view.shown == carried
    # And so it stays, also where one is silent.
    assert (
        decide(
            decision.view,
            *(says(carried, staged=frozenset("ab")) for _ in range(3)),
            known={
                **alike,
                **(
                    {decision.raised: replace(alike[decision.raised], generation=decision.view.generation)}
                    if decision.raised
                    else {}
                ),
            },
        )
        is None
    )
