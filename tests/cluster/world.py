"""A small world for playbooks of ``decided``: members that beat, balancers that check and count, a store that is a dict.

Nothing happens by itself: :meth:`World.turn` lets one second pass, :class:`Hand` is a steward, and every command it
carries out is held against the invariants of ``decide.py`` first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from muster.cluster.decide import Become, Decision, decided
from muster.cluster.file import ClusterFile
from muster.cluster.life import OUT, Life, State
from muster.cluster.observations import Observation, Observed, Opinion
from muster.cluster.roster import Report, Seen, Target, Told, Wish
from muster.cluster.view import MemberView, View, viewed
from muster.kernel.errors import Conflict

SERVICES = ("puppetca", "smartproxy")
# A lease lasts so long: nobody decides for this time after a steward died.
_LEASE_S = 5
# Longer than anything here takes by itself: checks, clients that finish, silence.
_QUIET_BEATS = 9
_MOST_BEATS = 400

_STEPS: Mapping[State | None, frozenset[State]] = {
    None: frozenset({"joining", "ready"}),
    "joining": frozenset({"warming", "draining"}),
    "warming": frozenset({"ready", "draining"}),
    "ready": frozenset({"draining"}),
    "draining": frozenset({"warming", "drained"}),
    "drained": frozenset({"warming", "maintenance", "removed"}),
    "maintenance": frozenset({"warming", "drained", "removed"}),
    "removed": frozenset({"joining"}),
}


class Died(Exception):
    """The steward's process ended where the playbook cuts it."""


@dataclass
class Member:
    """One member's process; it serves whether it reaches the store or not."""

    name: str
    kind: Literal["muster", "foreman"] = "muster"
    runs: bool = True
    beats: int = 5
    reaches_store: bool = True
    unfit: set[str] = field(default_factory=set)
    lags: str = ""
    leaving: str = ""

    def report(self) -> Report:
        state = "starting" if self.beats < 1 else "draining" if self.leaving else "ready"
        verdict = {s: "unready" if s in self.unfit else state for s in SERVICES}
        readiness = {s: {"state": v, "reason": f"{s} is broken" if v == "unready" else ""} for s, v in verdict.items()}
        return Report(self.name, 1, "1", "1", "host", 1, state, self.leaving, {}, readiness, {})  # type: ignore[arg-type]


@dataclass
class Balancer:
    """One balancer: what it knows, thinks and carries.

    Attributes:
        answers: whether HAProxy answers the process that steers it; it serves either way.
        cut: members it cannot reach.
        checked: how many checks of a member have ended since it was first, or again, checked.
    """

    name: str
    runs: bool = True
    answers: bool = True
    cut: set[str] = field(default_factory=set)
    knows: set[str] = field(default_factory=set)
    checked: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A life and since when."""

    life: Life
    since: float


class World:
    """The world. Members are named p1, p2, …, balancers b1, b2, …"""

    def __init__(
        self,
        members: int = 3,
        balancers: int = 2,
        *,
        min_ready: int = 1,
        signer: str = "",
        settled: bool = True,
        ruby: Collection[str] = (),
    ) -> None:
        self.now = 1000.0
        self.min_ready = min_ready
        self.signer = signer
        names = [f"p{n}" for n in range(1, members + 1)]
        self.members = {n: Member(n, "foreman" if n in ruby else "muster") for n in names}
        self.listed = list(self.members)
        self.balancers = {f"b{n}": Balancer(f"b{n}") for n in range(1, balancers + 1)}
        self.lives: dict[str, Row] = {}
        self.wishes: dict[str, Wish] = {}
        self.seen: dict[str, tuple[Report, float]] = {}
        self.observed: dict[str, tuple[Observation, float]] = {}
        self.epoch = 0
        self.carried_out = 0
        self.cut: tuple[int, Literal["before", "after"]] | None = None
        self.sentences: list[str] = []
        self.hand: Hand | None = None
        if settled:
            self.lives = {n: Row(Life("ready"), self.now) for n in self.members}
            for balancer in self.balancers.values():
                balancer.knows = set(self.listed)
            self.turn(2)

    # What people do.

    def wish(self, member: str, target: Target, *, forced: bool = False) -> None:
        before = self.wishes.get(member, Wish())
        goal = target if target in ("maintenance", "removed") else None
        wanted: Literal["ready", "drain"] = "ready" if target == "ready" else "drain"
        self.wishes[member] = Wish(wanted, "a reason", "anna", before.version + 1, goal, forced)

    def add(self, member: str, *, kind: Literal["muster", "foreman"] = "muster", runs: bool = True) -> None:
        """List a member; its process may exist already."""
        if member not in self.members:
            self.members[member] = Member(member, kind, runs, beats=0)
        if member not in self.listed:
            self.listed.append(member)

    def unlist(self, member: str) -> None:
        if member in self.listed:
            self.listed.remove(member)

    def stop(self, *members: str) -> None:
        for member in members:
            self.members[member].runs = False

    def start(self, *members: str) -> None:
        for member in members:
            if not self.members[member].runs:
                self.members[member].runs, self.members[member].beats, self.members[member].leaving = True, -1, ""

    # What happens by itself.

    def turn(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1.0
            for member in self.members.values():
                if member.runs and member.kind == "muster":
                    self._member_beats(member)
            for balancer in self.balancers.values():
                if balancer.runs:
                    self._balancer_beats(balancer)

    def _member_beats(self, member: Member) -> None:
        member.beats += 1
        if not member.reaches_store:
            return
        self.seen[member.name] = (member.report(), self.now)
        row = self.lives.get(member.name)
        member.leaving = Told(self.wishes.get(member.name, Wish()), row.life if row else None).leaving

    def _balancer_beats(self, balancer: Balancer) -> None:
        if not balancer.answers:
            blind = Observation(balancer.name, trouble="HAProxy does not answer", blind=True)
            self.observed[balancer.name] = blind, self.now
            return
        opinions: dict[str, Mapping[str, Opinion]] = {}
        for name in sorted(balancer.knows | balancer.sessions.keys()):
            member, row = self.members[name], self.lives.get(name)
            state = row.life.state if row else None
            reached = member.runs and name not in balancer.cut
            if name not in balancer.knows or not reached:
                balancer.sessions.pop(name, None)
            if name not in balancer.knows:
                continue
            balancer.checked[name] = 0 if state == "maintenance" else balancer.checked.get(name, 0) + 1
            opinions[name] = {s: self._opinion(balancer, member, s) for s in SERVICES}
            takes = state not in OUT if state else balancer.checked[name] > 1
            if takes and reached and "up" in opinions[name].values():
                balancer.sessions[name] = 2
            elif balancer.sessions.get(name):
                balancer.sessions[name] -= 1
        seen = Observation(balancer.name, opinions=opinions, sessions=dict(balancer.sessions))
        self.observed[balancer.name] = seen, self.now
        # It reads the cluster file, and in the store who is removed, at the end of its beat: the next one uses it.
        gone = {n for n, row in self.lives.items() if row.life.state == "removed"}
        balancer.knows = set(self.listed) - gone
        balancer.checked = {n: c for n, c in balancer.checked.items() if n in balancer.knows}

    def _opinion(self, balancer: Balancer, member: Member, service: str) -> Opinion:
        if balancer.checked[member.name] <= 1:
            return "unknown"
        reached = member.runs and member.name not in balancer.cut
        return "up" if reached and service not in member.unfit else "down"

    # What a steward sees and does.

    def view(self) -> View:
        kinds = tuple((n, self.members[n].kind) for n in self.listed)
        it = viewed(
            _cluster(kinds, tuple(self.balancers), self.min_ready, self.signer),
            seen={n: Seen(r, 0.0, self.now - at, self.wishes.get(n, Wish())) for n, (r, at) in self.seen.items()},
            lives={n: replace(row.life, age_s=self.now - row.since) for n, row in self.lives.items()},
            wishes=self.wishes,
            observed={n: Observed(o, self.now - at) for n, (o, at) in self.observed.items()},
        )
        lags = {name: member.lags for name, member in self.members.items()}
        return replace(it, members=tuple(replace(m, lags=lags.get(m.name, "")) for m in it.members))

    def change(self, step: Become, *, epoch: int) -> None:
        """Compare and set, fenced.

        Raises:
            Conflict: it was decided on an older version, or by a steward that is none any more.
        """
        row = self.lives.get(step.member)
        if epoch != self.epoch or step.version != (row.life.version if row else 0):
            raise Conflict(f"{step} came too late")
        self.lives[step.member] = Row(Life(step.state, step.reason, step.version + 1), self.now)

    @property
    def states(self) -> dict[str, State]:
        return {n: row.life.state for n, row in self.lives.items()}

    # Playing.

    def rest(self) -> World:
        """Let beats pass until nothing happens any more; a steward that dies is replaced when its lease is over."""
        quiet = 0
        for _ in range(_MOST_BEATS):
            self.turn()
            try:
                self.hand = self.hand or Hand(self)
                quiet = 0 if self.hand.beat() else quiet + 1
            except Died:
                self.hand, quiet = None, 0
                self.turn(_LEASE_S)
            if quiet == _QUIET_BEATS:
                return self
        raise AssertionError(f"no end after {_MOST_BEATS} beats: {self.states}; {self.sentences[-3:]}")

    @property
    def end(self) -> tuple[dict[str, State], dict[str, str]]:
        """What it came to: where everybody stands, and which wishes are not carried out and why."""
        return self.states, dict(decided(self.view()).held)


class Hand:
    """A steward: from its first breath on, all stewards before it are fenced off."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.epoch += 1
        self.epoch = world.epoch
        self.seen: tuple[View, Decision, Mapping[str, Observation]] | None = None

    def beat(self) -> bool:
        """Look and act; false when there was nothing to do."""
        decision = self.look()
        self.act()
        return bool(decision.commands)

    def look(self) -> Decision:
        view = self.world.view()
        decision = decided(view)
        assert decided(view) == decision, "invariant 8: a decision follows from the view alone"
        _hold_together(view, decision)
        self.seen = view, decision, {n: o for n, (o, _) in self.world.observed.items()}
        return decision

    def act(self) -> None:
        """Carry out what the last look decided; a conflict ends it."""
        if self.seen is None:
            return
        (view, decision, observed), self.seen = self.seen, None
        world = self.world
        for step in decision.commands:
            # A real steward writes all of them in one unit; one after another is harder.
            if world.cut == (world.carried_out, "before"):
                world.cut = None
                raise Died
            before = world.states
            try:
                world.change(step, epoch=self.epoch)
            except Conflict:
                return
            _hold(view, before, step, decision, observed)
            world.carried_out += 1
            if world.cut == (world.carried_out - 1, "after"):
                world.cut = None
                raise Died
        if decision.sentence not in world.sentences[-1:]:
            world.sentences.append(decision.sentence)


def _is_up(view: View, member: MemberView, service: str) -> bool:
    """Whether it is known to serve: it says so, and so does every balancer that can be asked."""
    seeing = view.balancers - view.blind.keys()
    if not seeing:
        return not view.blind and service in member.ready
    says = member.kind == "foreman" or service in member.ready
    return says and all(member.opinions[b].get(service) == "up" for b in seeing)


def _may_be_missed(view: View, member: MemberView, service: str) -> bool:
    """Whether it may have clients of a service: all but those who say no, and those who are down wherever they are asked."""
    speaks = member.kind == "muster" and member.reports
    if speaks and service not in member.ready:
        return False
    seeing = view.balancers - view.blind.keys()
    if not seeing:
        return speaks or member.kind == "foreman" or service in member.takes
    said = {b: member.opinions[b].get(service, "down") for b in seeing}
    is_open = any(o == "down" and service in view.unchecked.get(b, ()) for b, o in said.items() if member.opinions[b])
    return bool({"up", "unknown"} & set(said.values())) or (is_open and (speaks or member.kind == "foreman"))


def _hold(
    view: View,
    states: Mapping[str, State],
    step: Become,
    decision: Decision,
    observed: Mapping[str, Observation],
) -> None:
    """Fail when a command breaks an invariant, given who stands where in the moment it is carried out."""
    by_name = {m.name: m for m in view.members}
    member, at = by_name[step.member], states.get(step.member)
    standing = [m for m in view.members if m.listed and states.get(m.name) == "ready"]
    about = f"{step} on {member} while {states}"
    assert step.version == member.version, f"invariant 4: {about}"
    assert step.state in (_STEPS[at] if member.listed else {"removed"}), f"invariant 4: {about}"
    if at == "ready" and step.state == "draining":
        if not member.wish.forced:
            for service in SERVICES:
                left = sum(_is_up(view, m, service) for m in standing if m.name != member.name)
                is_missed = _may_be_missed(view, member, service)
                assert left >= view.min_ready or not is_missed, f"invariant 1: {service} keeps {left}: {about}"
        if member.is_signer:
            assert member.wish.forced, f"invariant 2: {about}"
            assert "no Puppet certificate can be signed" in decision.sentence, f"invariant 2: {decision.sentence}"
    if step.state == "ready":
        assert not member.lags, f"invariant 3: {about}"
        # Those whom this very decision admitted before it found the cluster together with it.
        admitted = {c.member for c in decision.commands if c.state == "ready"}
        if any(_is_counted_on(view, m) for m in view.members):
            assert member.ready, f"invariant 3: {about}"
            for balancer in view.balancers:
                said = member.opinions.get(balancer, {})
                assert said, f"invariant 3: {balancer} does not know it: {about}"
                assert "unknown" not in said.values(), f"invariant 3: {about}"
        else:
            serving = {m.name for m in standing if m.ready}
            assert not serving - admitted, f"invariant 5: {about}"
    if at == "draining" and step.state == "drained":
        assert not member.sessions, f"invariant 6: {about}"
        for told in observed.values() if not member.wish.forced else ():
            assert not told.blind, f"invariant 6: {told.name} did not count: {about}"
            assert not told.sessions.get(member.name), f"invariant 6: {told.name} had some: {about}"
    if not member.listed:
        assert not member.reports, f"invariant 7: {about}"
        assert not any(member.opinions.values()), f"invariant 7: {about}"


def _is_counted_on(view: View, member: MemberView) -> bool:
    """Whether somebody who is held out is not needed for it: it is ready, or may be for all that is known."""
    stands = member.listed and member.life is not None and member.life.state == "ready"
    unchecked = {s for services in view.unchecked.values() for s in services}
    return stands and bool(member.ready or set(member.doubts) - unchecked)


def _hold_together(view: View, decision: Decision) -> None:
    """Fail when a decision as a whole breaks an invariant."""
    steps = [c.member for c in decision.commands]
    assert len(steps) == len(set(steps)), f"invariant 4: two steps in one beat: {decision}"
    if not any(_is_counted_on(view, m) for m in view.members):
        comes = {c.member for c in decision.commands if c.state == "ready"}
        for m in view.members:
            if m.listed and m.wish.target == "ready" and not m.lags and (m.life is None or m.life.state == "warming"):
                assert m.name in comes, f"invariant 5: {m} is held out: {decision}"


@functools.cache
def _cluster(
    kinds: tuple[tuple[str, str], ...], balancers: tuple[str, ...], min_ready: int, signer: str
) -> ClusterFile:
    content = {
        "schema": 1,
        "cluster": "demo",
        "address": "cluster.test",
        "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": int(n[1:]), "name": n, "address": "127.0.0.1", "kind": k} for n, k in kinds],
        "balancers": [{"name": n, "address": "127.0.0.9"} for n in balancers],
        "min_ready": min_ready,
        "signer": signer or "any",
    }
    return ClusterFile.model_validate(content)


def cuts(play: Callable[[], World]) -> Iterator[tuple[int, Literal["before", "after"]]]:
    """Yield every place where a playbook that runs through can be cut."""
    for number in range(play().carried_out):
        yield number, "before"
        yield number, "after"


def member(it: View, name: str) -> MemberView:
    return next(m for m in it.members if m.name == name)
