"""The world as one value: everything decisions about members are made from, read once per beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from muster.cluster.file import ClusterFile
from muster.cluster.life import Life, lives_in
from muster.cluster.observations import Observed, Opinion, observations_in
from muster.cluster.roster import Seen, Wish, seen_in, wishes_in
from muster.store.engine import Store


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
        lags: why it must not be admitted; empty when it is as far as the others.
        opinions: what each live balancer's checks say, by balancer, then service.
        sessions: its connections over all live balancers; None when none reports.
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
    lags: str = ""
    opinions: Mapping[str, Mapping[str, Opinion]] = field(default_factory=dict)
    sessions: int | None = None
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
    """

    members: tuple[MemberView, ...]
    min_ready: int = 1
    balancers: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()


async def view(store: Store, cluster: ClusterFile) -> View:
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
    live = {name: o for name, o in observed.items() if not o.silent and name in known}
    listed = {str(m.name): m.kind for m in cluster.members}
    # A row nobody lists any more still says that its balancers must not bring the member back.
    names = [*listed, *sorted(lives.keys() - listed.keys())]
    members = []
    for name in names:
        said = seen.get(name)
        reports = said is not None and not said.silent
        opinions = {b: o.observation.opinions.get(name.lower(), {}) for b, o in live.items()}
        kind = listed.get(name, "muster")
        ready, unready = _readiness(said if reports else None, opinions) if kind == "muster" else _checked(opinions)
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
                opinions=opinions,
                sessions=sum(o.observation.sessions.get(name.lower(), 0) for o in live.values()) if live else None,
                is_signer=name == cluster.signer,
            )
        )
    return View(tuple(members), cluster.min_ready, frozenset(live), frozenset(known - live.keys()))


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
