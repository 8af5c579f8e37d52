"""A world that attacks ``decided``: backends that flip, skip, die and go back, members that die and forget, decisions from
old readings. What clients would notice is held against the invariants of ``view.py`` after every step.

A failure names its seed: ``played(seed, Rules(), orderly=...)`` repeats it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from muster.content.view import Decided, Report, Version, View, decided, lagging
from tests import scale

LAG_S, FORGET_S, SILENT_S = 16.0, 45.0, 3.0
_STEPS = 700
_BLOCKS = 4
# The rarest of what is broken on purpose shows in one world of a hundred.
_ENOUGH = 500
# A backend of the orderly world follows within so long, which is less than is waited for it.
_FOLLOWS_S = LAG_S / 2
# A decision that is older counts for nothing, and so long it takes until everybody knows of a backend again.
_STALE_S = 12.0

Decide = Callable[..., Decided | None]
RIGHT: Decide = decided


@dataclass(frozen=True)
class Rules:
    """What is attacked: the function, and what is compared before its decision counts (invariant 8)."""

    decide: Decide = RIGHT
    compares_row: bool = True
    compares_ready: bool = True


@dataclass
class Backend:
    """A Pulp: it serves what its last publications hold, metadata and packages alike.

    Attributes:
        publications: the last is carried; None: the repository is not there.
        is_reachable: its member runs: nobody else comes there.
        is_impaired: it was lost, and has not had since what is shown.
    """

    kept: int
    publications: list[str | None] = field(default_factory=lambda: [None])
    alive: bool = True
    reached_at: float = 0.0
    returns_at: float = 0.0
    is_reachable: bool = True
    is_impaired: bool = True
    known_since: float = 0.0

    @property
    def carried(self) -> str | None:
        return self.publications[-1]

    def has(self, digest: str) -> bool:
        if not (self.alive and self.is_reachable) or self.carried is None:
            return False
        since_there = self.publications[::-1]
        until = since_there.index(None) if None in since_there else len(since_there)
        return digest in since_there[:until][: self.kept]


@dataclass
class Reading:
    """What a member read in order to decide; first the row, the rest later."""

    at: float
    row: View
    row_version: int
    ready_epoch: int
    decision: Decided | None = None


@dataclass
class Member:
    name: str
    backend: Backend
    runs: bool = True
    returns_at: float = 0.0
    announced: bool = False
    disk: set[str] = field(default_factory=set)
    carried: str | None = None
    carried_since: float = 0.0
    unreached_since: float | None = 0.0
    generation: int = 0
    reading: Reading | None = None


@dataclass
class Client:
    """Attributes:
    floor: the highest that anybody had been answered when it began.
    """

    floor: tuple[int, tuple[Any, ...]] | None
    got: tuple[int, tuple[Any, ...]] | None = None


class World:
    """Members p1, p2, … each with its backend, a store of one row, versions and reports, and an upstream."""

    def __init__(self, seed: int, rules: Rules, *, orderly: bool) -> None:
        self.seed, self.rules, self.orderly = seed, rules, orderly
        self.rng = random.Random(seed)
        kept = 2 if orderly else self.rng.randint(1, 3)
        count = self.rng.randint(2 if orderly else 1, 5)
        self.members = [Member(f"p{n}", Backend(kept)) for n in range(1, count + 1)]
        self.backends = [m.backend for m in self.members]
        # How busy this world is.
        self.publishes = self.rng.choice((0.02, 0.05, 0.2))
        self.follows = self.rng.choice((0.01, 0.05, 0.2))
        self.breaks = self.rng.choice((0.005, 0.02, 0.05))
        self.now = 0.0
        self.upstream: list[str | None] = []
        self.published_at = 0.0
        self.catalogue: dict[str, tuple[int, float]] = {}
        self.row, self.row_version, self.ready_epoch = View(), 0, 0
        self.versions: dict[str, Version] = {}
        self.reports: dict[str, tuple[Report, float]] = {}
        self.clients: list[Client] = []
        self.answered: tuple[int, tuple[Any, ...]] | None = None
        self.withdrawn: set[str] = set()
        self.story: list[str] = []

    # What is true, whatever members know of it.

    @property
    def serving(self) -> list[Member]:
        """Members that take clients: one that has not reported for long knows that it counts as silent."""
        return [m for m in self.members if m.runs and m.announced and not self.is_silent(m)]

    def is_silent(self, member: Member) -> bool:
        return member.name not in self.reports or self.now - self.reports[member.name][1] >= SILENT_S

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            story = "\n  ".join(self.story[-40:])
            state = "\n  ".join(
                f"{m.name} runs={m.runs} serves={m in self.serving} backend={m.backend}" for m in self.members
            )
            raise AssertionError(f"{what} (seed {self.seed}, {self.now:.1f} s, {self.row})\n  {story}\n  {state}")

    def tell(self, what: str) -> None:
        self.story.append(f"{self.now:6.1f} {what}")

    # What happens.

    def publish(self) -> None:
        kinds = {"next": 17, "back": 3} if self.orderly else {
            "next": 70, "back": 10, "emptied": 6, "deleted": 5, "text": 5, "rebuilt": 4,
        }  # fmt: skip
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        earlier = [d for d in self.upstream if d is not None]
        if kind == "deleted":
            digest = None
        elif kind == "back" and earlier:
            digest = self.rng.choice(earlier)
        else:
            digest = f"{self.rng.getrandbits(48):012x}"
            last = max((self.catalogue[d][0] for d in earlier), default=0)
            revision = {"emptied": 0, "text": -1, "rebuilt": max(0, last - 1)}.get(kind, last + 1)
            self.catalogue[digest] = revision, 0.0 if kind == "emptied" else self.now
        self.upstream.append(digest)
        self.published_at = self.now
        self.tell(f"published {digest} ({kind}, {self.catalogue.get(digest or '')})")

    def is_followed(self) -> bool:
        """Whether every sound backend carries the newest, and it is shown: the orderly world publishes then."""
        newest = self.upstream[-1]
        return self.row.shown == newest and all(
            b.carried == newest for b in self.backends if b.alive and not b.is_impaired
        )

    def has_alone(self, backend: Backend) -> bool:
        return self.row.shown is not None and [b for b in self.backends if b.has(self.row.shown)] == [backend]

    def follow(self, backend: Backend, version: str | None) -> None:
        if backend.alive and backend.carried != version:
            backend.publications.append(version)
            self.tell(f"{self.name_of(backend)}'s backend carries {version}")

    def name_of(self, backend: Backend) -> str:
        return next(m.name for m in self.members if m.backend is backend)

    def kill_backend(self, backend: Backend) -> None:
        if not self.may_lose(backend):
            return
        backend.alive, backend.is_impaired = False, True
        backend.returns_at = self.now + self.absence_s()
        self.tell(f"{self.name_of(backend)}'s backend dies")

    def revive_backend(self, backend: Backend) -> None:
        backend.alive = True
        if not self.orderly and self.rng.random() < 0.15:
            backend.publications = [None]
        self.tell(f"{self.name_of(backend)}'s backend returns with {backend.carried}")

    def absence_s(self) -> float:
        return self.rng.choice((SILENT_S, LAG_S, 2 * FORGET_S)) * self.rng.uniform(0.1, 1.0)

    def may_lose(self, backend: Backend) -> bool:
        """Whether it may be lost now: in the orderly world one at a time."""
        return not self.orderly or not any(b.is_impaired for b in self.backends if b is not backend)

    def kill_member(self, member: Member) -> None:
        if not self.may_lose(member.backend):
            return
        member.runs = member.announced = member.backend.is_reachable = False
        member.backend.is_impaired = True
        member.reading = None
        member.returns_at = self.now + self.absence_s()
        if self.rng.random() < 0.4:
            member.disk.clear()
        self.tell(f"{member.name} dies")

    def start_member(self, member: Member) -> None:
        member.runs = member.backend.is_reachable = True
        member.unreached_since = self.now
        if member.name in self.reports:
            told, _ = self.reports[member.name]
            member.carried, member.carried_since = told.carried, told.carried_since
        self.tell(f"{member.name} returns")

    # What members do, each step at another moment.

    def poll(self, member: Member) -> None:
        if member.backend.alive:
            if member.carried != member.backend.carried:
                member.carried, member.carried_since = member.backend.carried, member.backend.reached_at
            member.unreached_since = None
            member.backend.reached_at = self.now
        elif member.unreached_since is None:
            member.unreached_since = self.now
        member.generation = self.row.generation

    def report(self, member: Member) -> None:
        carried = member.carried
        if carried is not None and carried not in self.versions:
            revision, timestamp = self.catalogue[carried]
            self.versions[carried] = Version(carried, member.generation, revision, timestamp, self.now)
        if self.is_silent(member):
            member.announced = False
        told = Report(
            member.name,
            carried,
            frozenset(member.disk),
            member.announced,
            member.carried_since,
            member.unreached_since,
        )
        self.reports[member.name] = told, self.now

    def stage(self, member: Member, digest: str) -> None:
        others = (m for m in self.members if m.runs)
        if any(b.has(digest) for b in self.backends) or any(digest in m.disk for m in others):
            member.disk.add(digest)

    def stage_something(self, member: Member) -> None:
        wanted = {r.carried for r, _ in self.reports.values()} | {self.row.shown}
        missing = sorted(d for d in wanted if d is not None and d not in member.disk)
        if missing:
            self.stage(member, self.rng.choice(missing))

    def announce(self, member: Member) -> None:
        """Begin to take clients, in one unit with the look at what has to be there for it."""
        told = Report(member.name, None, frozenset(member.disk), True, unreached_since=self.now)
        if not member.announced and not lagging(self.row, self.versions, told, self.now, LAG_S):
            self.report(member)
            member.announced = True
            self.report(member)
            self.ready_epoch += 1

    def read_row(self, member: Member) -> None:
        member.reading = Reading(self.now, self.row, self.row_version, self.ready_epoch)

    def decide(self, member: Member) -> None:
        if member.reading:
            read = self.read_reports()
            settings = {"lag_s": LAG_S, "forget_s": FORGET_S}
            member.reading.decision = self.rules.decide(
                member.reading.row, dict(self.versions), read, self.now, **settings
            )

    def read_reports(self) -> list[Report]:
        read = []
        for member in self.members:
            told, heard_at = self.reports.get(member.name, (Report(member.name, None, frozenset(), False), 0.0))
            if self.is_silent(member):
                since = heard_at if told.unreached_since is None else told.unreached_since
                told = replace(told, is_ready=False, unreached_since=since)
            read.append(told)
        return read

    def write(self, member: Member) -> None:
        reading, member.reading = member.reading, None
        if reading is None or reading.decision is None or self.now - reading.at > _STALE_S:
            return
        if self.rules.compares_row and reading.row_version != self.row_version:
            return
        if self.rules.compares_ready and reading.ready_epoch != self.ready_epoch:
            return
        self.change(reading.decision)

    def change(self, decision: Decided) -> None:
        before, place = self.row, self.place()
        self.row = decision.view
        self.row_version += 1
        if decision.raised is not None:
            raised = self.versions[decision.raised]
            self.versions[raised.digest] = replace(raised, generation=self.row.generation)
        self.tell(f"{decision.why} {self.row}")
        self.require(self.row.generation >= before.generation, "invariant 2: the generation fell")
        if before.shown == self.row.shown:
            return
        now = self.place()
        is_back = before.shown is None or self.row.generation > before.generation
        if place and now:
            self.require(now > place, f"invariant 2: {now} after {place}")
        self.require(is_back or self.row.shown not in self.withdrawn, f"invariant 6: {self.row.shown} was withdrawn")
        self.withdrawn.discard(self.row.shown or "")
        if before.shown is not None and self.row.generation > before.generation:
            self.withdrawn.add(before.shown)
            for backend in self.backends:
                self.hold_back(backend, self.versions[before.shown])

    def hold_back(self, backend: Backend, before: Version) -> None:
        """Fail when one that may carry what was shown, or something above it, was not waited for."""
        gone_s = self.now - backend.reached_at
        carried = self.versions.get(backend.carried or "")
        if backend.alive or carried is None or gone_s < _STALE_S:
            return
        if self.row.shown is not None and gone_s >= FORGET_S - _STALE_S:
            return
        is_above = carried.order >= before.order and carried.digest != self.row.shown
        number = 7 if self.row.shown is None else 3
        self.require(not is_above, f"invariant {number}: {self.name_of(backend)}'s backend may carry {carried}")

    # What clients see.

    def place(self) -> tuple[int, tuple[Any, ...]] | None:
        return (self.row.generation, self.versions[self.row.shown].order) if self.row.shown is not None else None

    def ask(self) -> None:
        match self.rng.randrange(3):
            case 0:
                self.clients.append(Client(self.answered))
            case 1 if self.serving and self.clients:
                client = self.rng.choice(self.clients)
                client.got = self.place()
                if client.got and client.floor and client.got[0] == client.floor[0]:
                    self.require(
                        client.got >= client.floor, f"invariant 2: a client got {client.got} after {client.floor}"
                    )
            case 2 if self.clients:
                client = self.clients.pop(self.rng.randrange(len(self.clients)))
                if client.got:
                    self.answered = max(self.answered or client.got, client.got)

    def hold(self) -> None:
        """Fail when something breaks that clients need at this moment."""
        shown = self.row.shown
        for member in self.members:
            self.mend(member)
        if shown is None:
            return
        for member in self.serving:
            self.require(shown in member.disk, f"invariant 1: {member.name} lacks {shown}")
        if self.orderly:
            self.require(any(b.has(shown) for b in self.backends), f"invariant 4: no packages of {shown} anywhere")

    def mend(self, member: Member) -> None:
        """Let a backend count as sound again when members have known for long that it has what is shown."""
        backend, told = member.backend, self.reports.get(member.name)
        knows = told is not None and told[0].is_reached and not self.is_silent(member)
        if not (knows and self.row.shown is not None and backend.has(self.row.shown)):
            backend.known_since = self.now
        elif self.now - backend.known_since > _STALE_S:
            backend.is_impaired = False

    # How it goes on.

    def step(self) -> None:
        rng = self.rng
        self.now += rng.uniform(0, 0.5)
        for member in self.members:
            if member.runs and self.is_due(member):
                self.poll(member)
                self.report(member)
        self.disturb()
        running = [m for m in self.members if m.runs]
        for member in rng.sample(running * 2, len(running) * 2):
            acts = (self.poll, self.report, self.stage_something, self.announce, self.read_row, self.decide, self.write)
            rng.choice(acts)(member)
            self.hold()
        self.ask()

    def is_due(self, member: Member) -> bool:
        heard_at = self.reports[member.name][1] if member.name in self.reports else 0.0
        return self.now - heard_at > 1.5 and self.rng.random() < 0.8

    def disturb(self) -> None:
        rng = self.rng
        if not self.upstream or (rng.random() < self.publishes and (not self.orderly or self.is_followed())):
            self.publish()
        for backend in self.backends:
            if not backend.alive:
                if self.now >= backend.returns_at:
                    self.revive_backend(backend)
                continue
            is_due = self.orderly and not backend.is_impaired and self.now - self.published_at > _FOLLOWS_S
            # One that comes back takes its time.
            if is_due or rng.random() < self.follows / (10 if backend.is_impaired and self.row.shown else 1):
                self.follow(backend, self.upstream[-1] if self.orderly else rng.choice(self.upstream[-2:]))
            # The worst moment is when clients were told of what only this one has.
            if rng.random() < (0.4 if self.has_alone(backend) else self.breaks / 3):
                self.kill_backend(backend)
        for member in self.members:
            if member.runs and rng.random() < self.breaks / 3:
                self.kill_member(member)
            elif not member.runs and self.now >= member.returns_at:
                self.start_member(member)

    def settle(self) -> None:
        """Let the world come to rest: some stay dead, some backends stay behind, the others carry the newest."""
        rng = self.rng
        self.tell("the world comes to rest")
        for member in self.members[1:]:
            if not member.runs and rng.random() < 0.8:
                self.start_member(member)
            if rng.random() < 0.8 and not member.backend.alive:
                self.revive_backend(member.backend)
        if not self.members[0].runs:
            self.start_member(self.members[0])
        if not self.backends[0].alive:
            self.revive_backend(self.backends[0])
        for backend in self.backends:
            if rng.random() < 0.7:
                self.follow(backend, self.upstream[-1])
        for _ in range(int(FORGET_S + 5 * LAG_S)):
            self.now += 1.0
            running = [m for m in self.members if m.runs]
            for member in running:
                self.poll(member)
                self.report(member)
            for member in rng.sample(running, len(running)):
                for _ in range(3):
                    self.stage_something(member)
                self.report(member)
                self.announce(member)
                self.read_row(member)
                self.decide(member)
                self.write(member)
                self.hold()
            if self.is_at_rest():
                return
        self.require(False, "it never came to rest")

    def is_at_rest(self) -> bool:
        """Whether what is shown is the highest that is carried, and everybody who runs takes clients."""
        seen = [m.backend.carried for m in self.members if m.runs and m.backend.alive]
        carried = [self.versions[d] for d in seen if d is not None]
        if not carried:
            is_gone = len(seen) == len(self.members)
            return self.row.shown is None or not is_gone
        highest = max(carried, key=lambda v: v.order)
        serve = {m.name for m in self.serving}
        return self.row.shown == highest.digest and serve == {m.name for m in self.members if m.runs}


def played(seed: int, rules: Rules, *, orderly: bool) -> World:
    world = World(seed, rules, orderly=orderly)
    for _ in range(_STEPS):
        world.step()
    world.settle()
    return world


def played_all(seeds: Iterable[int], rules: Rules, *, orderly: bool) -> None:
    for seed in seeds:
        played(seed, rules, orderly=orderly)


@pytest.mark.proof
@pytest.mark.parametrize("block", range(_BLOCKS))
def test_in_chaos_nobody_gets_what_is_older_or_incomplete_and_in_the_end_the_newest(block: int) -> None:
    played_all(range(block, scale.SHOWN_WORLDS, _BLOCKS), Rules(), orderly=False)


@pytest.mark.proof
@pytest.mark.parametrize("block", range(_BLOCKS))
def test_while_one_backend_at_most_is_lost_packages_of_what_is_shown_are_to_be_had(block: int) -> None:
    played_all(range(block, scale.SHOWN_WORLDS, _BLOCKS), Rules(), orderly=True)


# Broken on purpose: the attack finds each of these.


def changed(**settings: float) -> Decide:
    def decide(*read: Any, **given: float) -> Decided | None:
        return RIGHT(*read, **{**given, **settings})

    return decide


def by_revision_alone(view: View, versions: Mapping[str, Version], *read: Any, **settings: float) -> Decided | None:
    flat = {d: replace(v, generation=0, timestamp=0.0) for d, v in versions.items()}
    return RIGHT(view, flat, *read, **settings)


def unstaged(
    view: View, versions: Mapping[str, Version], reports: Sequence[Report], now: float, **settings: float
) -> Decided | None:
    told = [replace(r, staged=frozenset(versions)) for r in reports]
    return RIGHT(view, versions, told, now, **settings)


def not_raised(*read: Any, **settings: float) -> Decided | None:
    decision = RIGHT(*read, **settings)
    return decision and replace(decision, raised=None)


@pytest.mark.parametrize(
    ("rules", "orderly", "found"),
    [
        (Rules(unstaged), False, "invariant 1"),
        (Rules(compares_ready=False), False, "invariant 1"),
        (Rules(compares_row=False), False, "invariant 2"),
        (Rules(changed(forget_s=0.0)), False, "invariant 3"),
        (Rules(changed(lag_s=0.0)), True, "invariant 4"),
        (Rules(changed(lag_s=1e9)), False, "it never came to rest"),
        (Rules(changed(forget_s=1e9)), False, "it never came to rest"),
        (Rules(by_revision_alone), False, "invariant [26]"),
        (Rules(not_raised), False, "invariant 6"),
    ],
    ids=[
        "shown before it is staged",
        "decided before somebody was ready",
        "decided on an old row",
        "backends not reached are not waited for",
        "the highest at once",
        "for ever waiting for a second backend",
        "for ever waiting for one not reached",
        "by revision alone",
        "not raised into the new generation",
    ],
)
def test_the_attack_finds_a_broken_rule(rules: Rules, orderly: bool, found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        played_all(range(_ENOUGH), rules, orderly=orderly)
