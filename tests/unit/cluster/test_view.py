from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from muster.cluster.file import ClusterFile
from muster.cluster.life import Life, changed
from muster.cluster.observations import Observation, Observations, Observed, Opinion, told
from muster.cluster.roster import SILENT_AFTER_S, Report, Roster, Seen, Wish
from muster.cluster.view import MemberView, View, view, viewed
from muster.kernel.errors import Unavailable
from muster.kernel.settings import parse
from muster.store.engine import Store

P1, P2, RUBY = "Proxy01.test", "proxy02.test", "ruby.test"
CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {url: sqlite:////nowhere/x.db}
members:
- {id: 1, name: Proxy01.test, address: 127.0.0.11}
- {id: 2, name: proxy02.test, address: 127.0.0.12}
- {id: 3, name: ruby.test, address: 127.0.0.13, kind: foreman}
balancers:
- {name: lb1, address: 127.0.0.8}
- {name: lb2, address: 127.0.0.9}
signer: PROXY02.test
min_ready: 2
"""


@pytest.fixture
def cluster() -> ClusterFile:
    return parse(CLUSTER).parsed(ClusterFile)


def report(name: str, state: str = "ready", **readiness: str) -> Report:
    by_service = {s: {"state": v, "reason": "" if v == "ready" else f"{s} is {v}"} for s, v in readiness.items()}
    return Report(name, 1, "1", "1", "host", 1, state, "", {}, by_service, {})  # type: ignore[arg-type]


def seen(*reports: Report, age_s: float = 0.0) -> dict[str, Seen]:
    return {r.name: Seen(r, 0.0, age_s, Wish()) for r in reports}


def observed(
    name: str, opinions: Mapping[str, Mapping[str, Opinion]], sessions: Mapping[str, int] = {}, age_s: float = 0.0
) -> dict[str, Observed]:
    return {name: Observed(Observation(name, opinions=opinions, sessions=sessions), age_s)}


def of(cluster: ClusterFile, **rows: Any) -> View:
    return viewed(cluster, **{"seen": {}, "lives": {}, "wishes": {}, "observed": {}, **rows})


def member(it: View, name: str) -> MemberView:
    return next(m for m in it.members if m.name == name)


def test_members_stand_in_the_files_order_and_rows_nobody_lists_behind_them(cluster: ClusterFile) -> None:
    it = of(cluster, lives={"z.test": Life("ready"), "a.test": Life("removed"), P2: Life("ready", version=4)})
    assert [(m.name, m.listed, m.version) for m in it.members] == [
        (P1, True, 0), (P2, True, 4), (RUBY, True, 0), ("a.test", False, 1), ("z.test", False, 1),
    ]  # fmt: skip
    assert (it.min_ready, [m.name for m in it.members if m.is_signer]) == (2, [P2])


def test_a_member_that_never_reported_or_is_silent_says_nothing_of_itself(cluster: ClusterFile) -> None:
    silent = seen(report(P2, smartproxy="ready"), age_s=SILENT_AFTER_S + 0.1)
    it = of(cluster, seen=seen(report(P1, "draining", smartproxy="ready")) | silent)
    assert (member(it, P1).reports, member(it, P1).state, member(it, P1).ready) == (
        True,
        "draining",
        frozenset({"smartproxy"}),
    )
    assert (member(it, P2).reports, member(it, P2).state, member(it, P2).ready) == (False, "", frozenset())


def test_a_balancer_that_is_blind_has_no_opinion(cluster: ClusterFile) -> None:
    rows = blind((Observation("lb1", opinions={"proxy01.test": UP}, blind=True), 0.0))
    it = of(cluster, observed=rows)
    assert member(it, P1).opinions == {"lb1": {}}
    assert it.balancers == {"lb1"}


def test_a_silent_balancer_and_one_of_another_cluster_have_no_say(cluster: ClusterFile) -> None:
    rows = (
        observed("lb1", {"proxy01.test": {"smartproxy": "up"}}, {"proxy01.test": 3})
        | observed("lb2", {"proxy01.test": {"smartproxy": "down"}}, {"proxy01.test": 5}, SILENT_AFTER_S + 0.1)
        | observed("elsewhere", {"proxy01.test": {"smartproxy": "down"}}, {"proxy01.test": 7})
    )
    it = of(cluster, observed=rows)
    assert (set(it.balancers), set(it.absent)) == ({"lb1"}, {"lb2"})
    assert (member(it, P1).opinions, member(it, P1).sessions) == ({"lb1": {"smartproxy": "up"}}, 3)


def test_connections_are_summed_over_balancers_and_unknown_when_none_reports(cluster: ClusterFile) -> None:
    rows = observed("lb1", {}, {"proxy01.test": 3}) | observed("lb2", {}, {"proxy01.test": 5, "proxy02.test": 1})
    assert [m.sessions for m in of(cluster, observed=rows).members] == [8, 1, 0]
    assert [m.sessions for m in of(cluster).members] == [None, None, None]


def counts(it: View, name: str) -> tuple[int | None, list[str]]:
    return member(it, name).sessions, list(member(it, name).uncounted.values())


def test_a_balancer_in_trouble_has_not_counted_what_it_does_not_name(cluster: ClusterFile) -> None:
    rows = observed("lb1", {}, {"proxy01.test": 3})
    for troubled in (
        Observation("lb2", trouble="no answer", blind=True),
        # As a balancer of an older Muster says it.
        Observation("lb2", trouble="no answer"),
        Observation("lb2", sessions={"proxy01.test": 0}, trouble="no answer", blind=True),
    ):
        it = of(cluster, observed=rows | {"lb2": Observed(troubled, 0.0)})
        why = "lb2 does not know how many connections it has (no answer)"
        assert (counts(it, P1), counts(it, P2)) == ((3, [why]), (0, [why]))
    alone = of(cluster, observed={"lb2": Observed(Observation("lb2", trouble="no answer", blind=True), 0.0)})
    assert counts(alone, P1) == (None, [why])
    # A refused file is trouble, too, and HAProxy was asked all the same.
    refused = Observation("lb2", opinions={}, sessions={"proxy01.test": 1}, trouble="line 3: unknown key")
    assert counts(of(cluster, observed={"lb2": Observed(refused, 0.0)}), P1) == (1, [])


def test_of_a_silent_balancer_its_last_count_is_remembered_and_none_is_none(cluster: ClusterFile) -> None:
    late = SILENT_AFTER_S + 0.1
    it = of(cluster, observed=observed("lb1", {}, {"proxy01.test": 30, "proxy02.test": 0}, late))
    assert counts(it, P1) == (None, ["lb1 is silent, and had 30 connections when it was last heard"])
    assert counts(it, P2) == counts(it, RUBY) == (None, [])
    troubled = Observed(Observation("lb1", trouble="no answer", blind=True), late)
    why = "lb1 is silent, and did not know how many connections it had (no answer)"
    assert counts(of(cluster, observed={"lb1": troubled}), P1) == (None, [why])


ONE = {"smartproxy": "ready"}
UP: Mapping[str, Opinion] = {"smartproxy": "up"}
DOWN: Mapping[str, Opinion] = {"smartproxy": "down"}
UNKNOWN: Mapping[str, Opinion] = {"smartproxy": "unknown"}


@pytest.mark.parametrize("name", [P1, RUBY])
@pytest.mark.parametrize(
    ("at", "serves", "takes", "doubt"),
    [
        ((UP, UP), True, True, ""),
        ((UP, DOWN), False, True, ""),
        ((UNKNOWN, DOWN), False, True, ""),
        ((DOWN, DOWN), False, False, ""),
        ((UP, UNKNOWN), False, True, "no check of {} has ended at lb2"),
        # A balancer that does not know a member sends it nobody.
        ((UP, {}), False, True, ""),
        (({}, {}), False, False, ""),
    ],
)
def test_who_says_it_is_ready_serves_as_far_as_no_balancers_check_says_otherwise(
    cluster: ClusterFile,
    name: str,
    at: tuple[Mapping[str, Opinion], Mapping[str, Opinion]],
    serves: bool,
    takes: bool,
    doubt: str,
) -> None:
    # Somebody else is up, so no balancer serves unchecked.
    rows = {
        b: Observed(Observation(b, opinions={name.lower(): o, P2: UP} if o else {P2: UP}), 0.0)
        for b, o in zip(("lb1", "lb2"), at, strict=True)
    }
    one = member(of(cluster, seen=seen(report(P1, **ONE)), observed=rows), name)
    assert (bool(one.serves), bool(one.takes)) == (serves, takes)
    assert one.doubts == ({"smartproxy": doubt.format(name)} if doubt else {})


def test_a_silent_member_that_its_balancers_find_up_is_in_doubt(cluster: ClusterFile) -> None:
    late = seen(report(P1, **ONE), age_s=60.0)
    for at, why in (
        (UP, f"{P1} is silent, and its checks pass at lb1"),
        (UNKNOWN, f"{P1} is silent, and no check of it has ended at lb1"),
        (DOWN, ""),
    ):
        one = member(of(cluster, seen=late, observed=observed("lb1", {"proxy01.test": at})), P1)
        doubts = {"smartproxy": why} if why else {}
        assert (one.serves, one.takes, one.doubts) == (frozenset(), frozenset(doubts), doubts)


def blind(*told: tuple[Observation, float]) -> dict[str, Observed]:
    return {o.name: Observed(o, age_s) for o, age_s in told}


def test_while_no_balancer_says_what_its_checks_find_everybody_is_in_doubt(cluster: ClusterFile) -> None:
    late = SILENT_AFTER_S + 0.1
    past = Observation("lb1", opinions={"ruby.test": UP, P2: DOWN})
    rows = blind((past, late), (Observation("lb2", trouble="no answer", blind=True), 0.0))
    it = of(cluster, seen=seen(report(P1, **ONE), report(P2, **ONE)), observed=rows)
    assert it.blind == {"lb1": "lb1 is silent", "lb2": "lb2: no answer"}
    assert member(it, P1).doubts == member(it, RUBY).doubts == {"smartproxy": "lb1 is silent, lb2: no answer"}
    # Who is silent itself may serve what it last said, or what was last not seen to fail.
    it = of(cluster, seen=seen(report(P1, **ONE), age_s=late), observed=rows)
    assert member(it, P1).doubts == {"smartproxy": f"{P1} is silent, lb1 is silent, lb2: no answer"}
    assert member(it, P2).takes == frozenset()
    # Of a Ruby member nothing else is known; it may serve anything.
    it = of(cluster, observed=blind((Observation("lb1", trouble="no answer"), 0.0)))
    assert member(it, RUBY).doubts == {"any service": "lb1: no answer, lb2 never reported"}
    assert member(it, P1).doubts == {}


def test_where_no_balancer_ever_spoke_a_members_word_is_all_there_is(cluster: ClusterFile) -> None:
    it = of(cluster, seen=seen(report(P1, **ONE)) | seen(report(P2, **ONE), age_s=60.0))
    assert (member(it, P1).serves, member(it, P1).doubts, it.blind) == (frozenset({"smartproxy"}), {}, {})
    assert (member(it, P2).serves, member(it, P2).doubts) == (frozenset(), {"smartproxy": f"{P2} is silent"})


def test_a_service_whose_every_check_fails_is_served_unchecked_and_nobody_knows_by_whom(cluster: ClusterFile) -> None:
    rows = observed("lb1", {"proxy01.test": DOWN, P2: DOWN, "ruby.test": DOWN})
    said = seen(report(P1, **ONE)) | seen(report(P2, **ONE), age_s=60.0)
    it = of(cluster, seen=said, observed=rows)
    assert it.unchecked == {"lb1": ("smartproxy",)}
    why = {"smartproxy": "every check of smartproxy fails at lb1, which serves unchecked"}
    assert member(it, P1).doubts == member(it, RUBY).doubts == why
    # Neither it nor a check says that this one lives.
    assert member(it, P2).takes == frozenset()
    # Whoever is held out does not count, in whatever words its check ends.
    out = {P2: Life("drained"), RUBY: Life("warming")}
    rows = observed("lb1", {"proxy01.test": DOWN, P2: UP, "ruby.test": DOWN})
    assert of(cluster, observed=rows).unchecked == {}
    assert of(cluster, observed=rows, lives=out).unchecked == {"lb1": ("smartproxy",)}
    assert of(cluster, observed=rows, lives=out | {P1: Life("draining")}).unchecked == {}


def test_a_member_is_ready_for_what_its_balancers_offer_and_says_why_not_for_the_rest(cluster: ClusterFile) -> None:
    said = seen(report(P1, smartproxy="ready", puppet="unready", mqtt="ready"))
    rows = observed("lb1", {"proxy01.test": {"smartproxy": "down", "puppet": "up", "https": "unknown"}})
    one = member(of(cluster, seen=said, observed=rows), P1)
    assert (set(one.ready), one.unready) == ({"smartproxy"}, {"puppet": "puppet is unready"})
    assert member(of(cluster, seen=said), P1).ready == {"smartproxy", "mqtt"}


def test_a_ruby_member_is_ready_for_what_no_balancers_check_refuses(cluster: ClusterFile) -> None:
    rows = observed("lb1", {"ruby.test": {"smartproxy": "up", "puppet": "up"}}) | observed(
        "lb2", {"ruby.test": {"smartproxy": "unknown", "puppet": "down"}}
    )
    one = member(of(cluster, observed=rows), RUBY)
    assert (one.kind, one.reports, one.ready) == ("foreman", False, frozenset({"smartproxy"}))
    assert one.unready == {"puppet": "the balancer's check fails"}


async def test_everything_is_read_from_the_store_in_one_value(cluster: ClusterFile, store: Store) -> None:
    await Roster(store).beat(report(P1, smartproxy="ready"), first=True)
    wish = await Roster(store).wish(P1, "maintenance", reason="disk", by="anna", forced=True)
    said = Observation(
        "lb1",
        "HAProxy 2.6",
        "abc",
        {"proxy01.test": {"smartproxy": "up"}},
        {"proxy01.test": 2},
        "",
        {"proxy01.test": {}},
    )
    async with store.write() as uow:
        await told(uow, Observation("lb1", trouble="the one before"))
        await told(uow, said)
        await changed(uow, P1, "ready", reason="", expected=0)
    one = member(await view(store, cluster), P1)
    assert (one.wish, one.wish.target, one.version, one.sessions) == (wish, "maintenance", 1, 2)
    assert one.ready == {"smartproxy"}
    assert {n: o.observation for n, o in (await Observations(store).all()).items()} == {"lb1": said}


async def test_an_observation_of_a_newer_balancer_is_read_as_far_as_it_is_known(store: Store) -> None:
    class Newer(Observation):
        def as_json(self) -> dict[str, Any]:
            return {**super().as_json(), "latency_ms": {"proxy01.test": 3}}

    async with store.write() as uow:
        await told(uow, Newer("lb1", "HAProxy 4"))
    seen_again = (await Observations(store).all())["lb1"]
    assert (seen_again.observation, seen_again.silent) == (Observation("lb1", "HAProxy 4"), False)
    assert (seen_again.as_json()["engine"], seen_again.as_json()["silent"]) == ("HAProxy 4", False)


async def test_without_the_store_there_is_no_view(cluster: ClusterFile, dead_store: Store) -> None:
    with pytest.raises(Unavailable):
        await view(dead_store, cluster)
    with pytest.raises(Unavailable):
        await Observations(dead_store).all()


def test_who_reports_or_is_wished_for_and_is_not_listed_is_seen_as_unlisted(cluster: ClusterFile) -> None:
    it = of(cluster, seen=seen(report("new.test")), wishes={"ruby9.test": Wish("drain", "", "anna", 1)})
    assert [(m.name, m.listed, m.reports) for m in it.members[3:]] == [
        ("new.test", False, True), ("ruby9.test", False, False),
    ]  # fmt: skip
    assert len(of(cluster, seen=seen(report("gone.test"), age_s=SILENT_AFTER_S + 1)).members) == 3
