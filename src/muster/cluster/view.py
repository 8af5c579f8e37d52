"""The world as one value: everything decisions about members are made from, read once per beat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from muster.cluster.file import ClusterFile
from muster.cluster.life import OUT, Life, lives_in
from muster.cluster.observations import Observed, Opinion, observations_in
from muster.cluster.roster import Seen, Wish, seen_in, wishes_in
from muster.store.reading import Readable

# Of a Ruby member nobody checks not even the services are known.
_ANY = "any service"


@dataclass(frozen=True)
class MemberView:
    """One member.

    Attributes:
        listed: whether the cluster file has it.
        life: None until something was decided about it.
        reports: whether it told the store about itself lately; a Ruby member never does.
        state: what it said of itself, empty when it does not report.
        ready: the services it is ready for, by itself or, for a Ruby member, by the balancers' checks.
        unready: why it is not ready for the others.
        serves: services it is known to serve at every live balancer.
        takes: services that may lose it when it goes: what it serves, serves at some balancers only, or may serve.
        doubts: those of them of which nobody knows whether it serves them, and why.
        lags: why it must not be admitted; empty when it is as far as the others.
        opinions: what each live balancer's checks say, by balancer, then service.
        sessions: its connections over all live balancers that count them; None when none does.
        uncounted: balancers that may have more, and why nobody knows.
        is_signer: it is the only one that signs Puppet certificates.
    """

    name: str
    kind: str = "muster"
    listed: bool = True
    life: Life | None = None
    wish: Wish = field(default_factory=Wish)
    reports: bool = True
    state: str = "ready"
    ready: frozenset[str] = frozenset()
    unready: Mapping[str, str] = field(default_factory=dict)
    serves: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    doubts: Mapping[str, str] = field(default_factory=dict)
    lags: str = ""
    opinions: Mapping[str, Mapping[str, Opinion]] = field(default_factory=dict)
    sessions: int | None = None
    uncounted: Mapping[str, str] = field(default_factory=dict)
    is_signer: bool = False

    @property
    def version(self) -> int:
        return self.life.version if self.life else 0


@dataclass(frozen=True)
class View:
    """The cluster at one moment.

    Attributes:
        min_ready: how many ready members each service keeps, whatever is wished.
        balancers: those that report.
        absent: balancers of the cluster file that do not.
        blind: balancers that reported once and whose checks say nothing now, and why.
        unchecked: the services whose every check fails at a balancer, by balancer: it sends clients to all members.
    """

    members: tuple[MemberView, ...]
    min_ready: int = 1
    balancers: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    blind: Mapping[str, str] = field(default_factory=dict)
    unchecked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


async def view(store: Readable, cluster: ClusterFile) -> View:
    """Read everything in one unit.

    Raises:
        Unavailable: the store did not answer.
    """
    async with store.read() as uow:
        seen = await seen_in(uow)
        lives = await lives_in(uow)
        wishes = await wishes_in(uow)
        observed = await observations_in(uow)
    return viewed(cluster, seen=seen, lives=lives, wishes=wishes, observed=observed)


def viewed(
    cluster: ClusterFile,
    *,
    seen: Mapping[str, Seen],
    lives: Mapping[str, Life],
    wishes: Mapping[str, Wish],
    observed: Mapping[str, Observed],
) -> View:
    """Return the view that follows from the store's rows."""
    known = {b.name for b in cluster.balancers}
    told = {name: observed[name] for name in sorted(known & observed.keys())}
    live = {name: o for name, o in told.items() if not o.silent}
    sight = _Sight.of(told, lives, known)
    listed = {str(m.name): m.kind for m in cluster.members}
    # A row nobody lists any more still says that its balancers must not bring the member back. Who reports or is wished
    # for without one stands in a newer cluster file than this.
    fresh = {name for name, said in seen.items() if not said.silent}
    names = [*listed, *sorted((lives.keys() | fresh | wishes.keys()) - listed.keys())]
    members = []
    for name in names:
        said = seen.get(name)
        reports = said is not None and not said.silent
        opinions = {b: sight.seen.get(b, {}).get(name.lower(), {}) for b in live}
        kind = listed.get(name, "muster")
        ready, unready = _readiness(said if reports else None, opinions) if kind == "muster" else _checked(opinions)
        stands = _Standing(name, kind, reports, _claimed(said) if kind == "muster" else frozenset(), sight)
        counts = {b: o.observation.count(name.lower()) for b, o in told.items()}
        counted = [c for b in live if (c := counts[b]) is not None]
        members.append(
            MemberView(
                name=name,
                kind=kind,
                listed=name in listed,
                life=lives.get(name),
                wish=wishes.get(name, Wish()),
                reports=reports,
                state=said.report.state if said is not None and reports else "",
                ready=ready,
                unready=unready,
                serves=stands.serves,
                takes=stands.takes,
                doubts=stands.doubts,
                opinions=opinions,
                sessions=sum(counted) if counted else None,
                uncounted={b: why for b, o in told.items() if (why := _uncounted(b, o, counts[b]))},
                is_signer=name == cluster.signer,
            )
        )
    return View(
        tuple(members),
        cluster.min_ready,
        frozenset(live),
        frozenset(known - live.keys()),
        {b: why for b, why in sight.blind.items() if b in told},
        sight.unchecked,
    )


def unchecked(opinions: Mapping[str, Mapping[str, Opinion]], out: Iterable[str]) -> tuple[str, ...]:
    """Return the services that a balancer sends to all members though every check of them fails there.

    Args:
        opinions: the balancer's, by member, then service.
        out: members that are held out: they get no clients then either, so their checks say nothing about it.
    """
    out = {name.lower() for name in out}
    said: dict[str, set[Opinion]] = {}
    for member, by_service in opinions.items():
        for service, opinion in by_service.items() if member not in out else ():
            said.setdefault(service, set()).add(opinion)
    return tuple(sorted(s for s, words in said.items() if words == {"down"}))


def _readiness(
    said: Seen | None, opinions: Mapping[str, Mapping[str, Opinion]]
) -> tuple[frozenset[str], dict[str, str]]:
    if said is None:
        return frozenset(), {}
    told = said.report.readiness
    # What no balancer is asked for is nobody's service: a member may know of services its balancers do not have.
    offered = {s for by_service in opinions.values() for s in by_service} or set(told)
    ready = frozenset(s for s in offered if told.get(s, {}).get("state") == "ready")
    return ready, {
        s: told[s].get("reason", "") for s in sorted(offered & told.keys()) if told[s].get("state") == "unready"
    }


def _checked(opinions: Mapping[str, Mapping[str, Opinion]]) -> tuple[frozenset[str], dict[str, str]]:
    services = {s for by_service in opinions.values() for s in by_service}
    up = frozenset(s for s in services if all(o.get(s) != "down" for o in opinions.values()))
    return up, dict.fromkeys(sorted(services - up), "the balancer's check fails")


def _claimed(said: Seen | None) -> frozenset[str]:
    """Return the services a member said at last that it is ready for."""
    told = said.report.readiness if said is not None else {}
    return frozenset(s for s, verdict in told.items() if verdict.get("state") == "ready")


def _uncounted(balancer: str, told: Observed, count: int | None) -> str:
    """Return why connections may be left at a balancer that nobody counts; empty when none are for all that is known."""
    trouble = f" ({told.observation.trouble})" if told.observation.trouble else ""
    if not told.silent:
        return f"{balancer} does not know how many connections it has{trouble}" if count is None else ""
    if count is None:
        return f"{balancer} is silent, and did not know how many connections it had{trouble}"
    return f"{balancer} is silent, and had {count} connections when it was last heard" if count else ""


@dataclass(frozen=True)
class _Sight:
    """What balancers see of members, and how far that goes.

    Attributes:
        seen: opinions of live balancers whose checks say anything: by balancer, member (lower case), service.
        blind: the other balancers of the cluster file, and why their checks say nothing.
        past: the opinions these had when they were last heard.
        services: all that are known of.
    """

    seen: Mapping[str, Mapping[str, Mapping[str, Opinion]]]
    blind: Mapping[str, str]
    past: Mapping[str, Mapping[str, Mapping[str, Opinion]]]
    unchecked: Mapping[str, tuple[str, ...]]
    services: frozenset[str]

    @classmethod
    def of(cls, told: Mapping[str, Observed], lives: Mapping[str, Life], known: Iterable[str]) -> Self:
        opinions = {b: o.observation.opinions for b, o in told.items()}
        # In trouble a balancer of an older Muster says nothing of its checks, and nothing of being blind either.
        seen = {b: opinions[b] for b, o in told.items() if not o.silent and not o.observation.blind and opinions[b]}
        blind = {b: _blindness(b, told.get(b)) for b in sorted(known) if b not in seen}
        out = [name for name, life in lives.items() if life.state in OUT]
        return cls(
            seen,
            blind,
            {b: opinions[b] for b in blind if b in opinions},
            {b: services for b, said in seen.items() if (services := unchecked(said, out))},
            frozenset(s for by_member in opinions.values() for by_service in by_member.values() for s in by_service),
        )

    def offered(self, member: str) -> frozenset[str]:
        """Return the services that seeing balancers ask it for."""
        return frozenset(s for by_member in self.seen.values() for s in by_member.get(member, {}))

    def remembered(self, member: str) -> frozenset[str]:
        """Return the services that balancers now blind last did not see it fail."""
        found = (by_member.get(member, {}) for by_member in self.past.values())
        return frozenset(s for by_service in found for s, opinion in by_service.items() if opinion != "down")

    def said(self, member: str, service: str) -> dict[str, str]:
        """Return each seeing balancer's opinion; ``open`` where every check fails, so that it sends clients anyway."""
        out = {}
        for balancer, by_member in self.seen.items():
            opinions = by_member.get(member)
            if not opinions:
                # It does not know the member, so it sends it nobody.
                out[balancer] = "down"
            elif service in opinions:
                fails_open = opinions[service] == "down" and service in self.unchecked.get(balancer, ())
                out[balancer] = "open" if fails_open else opinions[service]
        return out


def _blindness(balancer: str, told: Observed | None) -> str:
    if told is None:
        return f"{balancer} never reported"
    if told.silent:
        return f"{balancer} is silent"
    return f"{balancer}: {told.observation.trouble or 'no check is known of'}"


class _Standing:
    """What a member takes of each service, and how sure that is.

    Nobody is counted on who is not known to serve, and nobody is let go as useless who may serve: so what a balancer's
    check says stands above what a member says of itself, and where neither says anything the service is in doubt.
    """

    def __init__(self, name: str, kind: str, reports: bool, claimed: frozenset[str], sight: _Sight) -> None:
        self.name = name
        self.is_lost = kind == "muster" and not reports
        self.doubts: dict[str, str] = {}
        serves: set[str] = set()
        takes: set[str] = set()
        heard = {b for b in sight.blind if b in sight.past}
        if sight.seen:
            for service in sorted(sight.offered(name.lower()) & claimed if reports else sight.offered(name.lower())):
                said = sight.said(name.lower(), service)
                words = set(said.values())
                if words <= ({"down", "open"} if self.is_lost else {"down"}):
                    continue
                takes.add(service)
                if "down" in words:
                    continue
                why = self._doubt(said, sight)
                if why:
                    self.doubts[service] = why
                else:
                    serves.add(service)
        elif kind == "muster" and not heard:
            # No balancer ever spoke here: the member's own word is all there is.
            takes.update(claimed)
            if self.is_lost:
                self.doubts = dict.fromkeys(sorted(claimed), f"{name} is silent")
            else:
                serves.update(claimed)
        elif sight.blind:
            may = claimed if reports else claimed | sight.remembered(name.lower())
            if kind != "muster":
                may = may or sight.services or frozenset({_ANY})
            takes.update(may)
            why = ", ".join([*([f"{name} is silent"] if self.is_lost else []), *sight.blind.values()])
            self.doubts = dict.fromkeys(sorted(may), why)
        self.serves, self.takes = frozenset(serves), frozenset(takes)

    def _doubt(self, said: Mapping[str, str], sight: _Sight) -> str:
        at = {word: ", ".join(b for b, w in said.items() if w == word) for word in said.values()}
        if self.is_lost:
            checks = f"its checks pass at {at['up']}" if "up" in at else f"no check of it has ended at {at['unknown']}"
            return f"{self.name} is silent, and {checks}"
        if "open" in at:
            b = next(b for b, w in said.items() if w == "open")
            return f"every check of {', '.join(sight.unchecked[b])} fails at {b}, which serves unchecked"
        return f"no check of {self.name} has ended at {at['unknown']}" if "unknown" in at else ""
