"""What is balanced, in no engine's words: services, servers behind them, and how each is asked for health."""

from __future__ import annotations

import difflib
import ipaddress
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from muster.balancer.generations import (
    CONNECTION,
    GENERATIONS,
    KNOWN,
    Balance,
    Destinations,
    Generation,
    Over,
    Proof,
    Row,
    Traffic,
    generation_of,
)
from muster.cluster.file import Authority, ClusterFile, Member
from muster.cluster.sections import Content, ServiceCheck, ServiceOverride
from muster.kernel.errors import Misconfigured
from muster.kernel.names import STANDARD_PORTS
from muster.kernel.settings import Document, Location, Problem

_SMARTPROXY = "smartproxy"
_PUPPETCA = "puppetca"
_ANACONDA = "anaconda"
# In place of {address}: no name there is.
_MEMBER = "member."

READY = "/health/ready"
"""Where members of kind muster say whether they take clients."""

# One mutual TLS check costs HAProxy 1.5 ms of CPU (docs/facts/balancer.md §0 no. 7): 80 a second, an eighth of a core.
_CHECKS_PER_SECOND = 80
_SLOWEST_CHECK_S = 5.0
# For HAProxy a twentieth of a core, because there is a watch beside it that asks each member once.
_CHECKS_PER_SECOND_WATCHED = 40
_SLOWEST_WATCHED_S = 15.0
# What hangs just after a check is out after a pause, which HAProxy draws up to a fifth longer, and two answers that did not
# come: 4 s at this pace.
SLOWEST_ALONE_S = 1.4
"""The slowest pace of checks at which a member that hangs is found in time without a watch."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each step of a connection may take, in seconds.

    Attributes:
        idle_s: silence after which a connection is closed.
        tunnel_s: the same for established connections that may be idle for hours; None: ``idle_s`` holds.
        dead_peer_s: how long sent bytes may stay unacknowledged on a tunnel.
    """

    connect_s: float = 1.0
    check_s: float = 1.0
    queue_s: float = 5.0
    idle_s: float = 60.0
    finish_s: float = 10.0
    hello_s: float = 5.0
    tunnel_s: float | None = None
    dead_peer_s: float = 60.0


SHORT = Timeouts()
TUNNEL = Timeouts(tunnel_s=6 * 3600.0)
# Longer than members wait for what is behind them, so that a client gets their 504 and no connection that is cut.
_OUTLASTED_S = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """How often a server is asked, and how many answers make an opinion.

    Attributes:
        watched_s: in place of ``every_s`` where a watch asks the member about all of its services at once, and more often.
    """

    every_s: float = 1.0
    watched_s: float = 1.0
    doubting_s: float = 0.3
    down_s: float = 1.0
    fall: int = 2
    rise: int = 2
    recovery_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a server is asked.

    Attributes:
        kind: ``ready``: ``GET`` over mutual TLS, 200 ready, 404 draining. ``alive``: ``GET`` over mutual TLS, 200.
            ``connect``: the port takes a connection, and the program behind it gives its proof.
        proxied: the asking connection starts with a PROXY v2 header.
        proof: of ``connect``.
        site: the answer's certificate may also be of ``foreman.ca_file``, as Ruby members' often is.
    """

    kind: Literal["ready", "alive", "connect"]
    port: int
    uri: str = ""
    proxied: bool = False
    proof: Proof = CONNECTION
    site: bool = False

    @property
    def over(self) -> Over:
        """How the asking connection begins."""
        return self.proof.over if self.kind == "connect" else "mutual"

    @property
    def path(self) -> str:
        """What is asked for with ``GET``; empty: nothing."""
        return self.proof.uri if self.kind == "connect" else self.uri


@dataclass(frozen=True, slots=True)
class Server:
    """One member as one service sees it.

    Attributes:
        id: the member's permanent number; two balancers hash alike only through it.
        weight: 100 by default, because a weight of 1 cannot be halved (docs/facts/balancer.md §0 no. 6).
        question: what the balancer asks it.
        proxied: connections start with a PROXY v2 header that carries the client's address.
        beside: what the member itself asks the program that serves the port on its host; None where it listens itself, and
            for Ruby members, whose programs the balancer asks.
    """

    name: str
    id: int
    address: str
    port: int
    question: Question
    weight: int = 100
    proxied: bool = False
    beside: Question | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One port at the cluster's address and the servers behind it.

    Attributes:
        member_port: of members that have no other of their own (:meth:`port_on`).
        also_listen_ports: further ports of the address, which lead to the same.
        own_ports: of members that have another, whether clients are led to them or not, by name.
    """

    name: str
    label: str
    listen_port: int
    member_port: int
    traffic: Traffic
    balance: Balance
    destinations: Destinations
    servers: tuple[Server, ...]
    check: Check
    timeouts: Timeouts
    maxconn_per_member: int | None = None
    also_listen_ports: tuple[int, ...] = ()
    own_ports: tuple[tuple[str, int], ...] = ()

    @property
    def listen_ports(self) -> tuple[int, ...]:
        """Every port of the address that leads here."""
        return (self.listen_port, *self.also_listen_ports)

    def leads_to(self, member: str) -> bool:
        """Whether clients are led to a member."""
        return any(s.name == member.lower() for s in self.servers)

    def port_on(self, member: str) -> int:
        """Return the port of a member; it need not be one that clients are led to."""
        return dict(self.own_ports).get(member.lower(), self.member_port)


@dataclass(frozen=True, slots=True)
class Balancing:
    """Everything balancers of one cluster do.

    Attributes:
        address: the DNS name clients use; members' certificates are verified against it.
        connections_per_source: connections one client address may hold, all services together.
    """

    cluster: str
    address: str
    services: tuple[Service, ...]
    connections_per_source: int = 256

    def service(self, name: str) -> Service | None:
        return next((s for s in self.services if s.name == name), None)

    @property
    def servers(self) -> int:
        """How many servers there are, counted once per service."""
        return sum(len(s.servers) for s in self.services)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def signs_itself(cluster: ClusterFile) -> bool:
    """Whether the members are the Puppet CA, and not one real puppetserver."""
    return cluster.authority is not None and cluster.signer == "any"


def modelled(cluster: ClusterFile, answered: frozenset[str]) -> Balancing:
    """Return what the cluster's balancers have to do: the generation's rows, changed and completed by the overrides.

    ``answered`` are the services whose port members of kind ``muster`` listen on themselves: only there can they read a
    PROXY header, and no program beside them is asked.

    Raises:
        Misconfigured: a service without ports, or a signer that is no member; ``problems`` says both with their lines.
    """
    rows = list(_rows(cluster))
    everyone = sum(len(_destinations(cluster, row)) for row, _ in rows)
    check = _paced(everyone)
    asked = _asked([row for row, _ in rows])
    return Balancing(
        cluster=cluster.cluster,
        address=str(cluster.address),
        services=tuple(
            _service(cluster, row, override, check, asked[row.name], row.name in answered) for row, override in rows
        ),
        connections_per_source=cluster.edge.connections_per_address,
    )


def problems(document: Document) -> list[Problem]:
    """Return what is wrong with the services; works on raw content, so that it also speaks of half-valid files."""
    content = document.content
    if not isinstance(content, dict):
        return []
    overrides = content.get("services")
    overrides = overrides if isinstance(overrides, dict) else {}
    word, generation = generation_of(content)
    rows = tuple(_begun(generation, overrides, _signs(content))) if generation is not None else ()
    offered = {row.name for row in rows} | _complete(overrides)
    listening = _listening(overrides, _signing(content, rows))
    return [
        *_unknown_services(document, overrides, word, generation, offered),
        *_unknown_on_disks(document, content, {*(row.name for row in rows), *map(str, overrides)}),
        *_unknown_on_members(document, content, {*(row.name for row in rows), *map(str, overrides)}),
        *_not_offered(document, content, word, offered, overrides),
        *_port_clashes(document, content, listening),
        *_answered_twice(document, content, listening),
        *_leads_back(document, content, listening),
        *_several_signers(document, content, overrides, rows),
        *_answers_to_nothing(document, overrides),
    ]


def warnings(document: Document, cluster: ClusterFile) -> list[Problem]:
    """Return what is valid of the services and does probably not what was meant."""
    return [
        *_asks_who_signs_nothing(document, cluster),
        *_answered_by_nothing(document, cluster),
        *_cut_short(document, cluster),
        *_images_wander(document, cluster),
        *_never_spare(document, cluster),
        *_own_of_nothing(document, cluster),
        *_one_port_of_two(document, cluster),
    ]


def _asks_who_signs_nothing(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    override = cluster.services.get(_PUPPETCA)
    if cluster.signer != "any" and override is not None and override.enabled and override.destinations == "all":
        yield document.problem(
            ("services", _PUPPETCA, "destinations"),
            f"leads requests to members that sign nothing, where only {cluster.signer} does: signer, unless each passes "
            "them on",
        )


def _answered_by_nothing(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    """Both of its ports make a service of anything; a check says that somebody knows what is behind it."""
    ours = cluster.content.services if cluster.content is not None else ()
    has_ours = any(m.kind == "muster" for m in cluster.members)
    for name, why in GENERATIONS[cluster.generation].lacks.items():
        override = cluster.services.get(name)
        if override is None or not override.enabled or override.check is not None or (has_ours and name in ours):
            continue
        yield document.problem(
            ("services", name),
            f"is led to a program of yours: in generation {cluster.generation} {why}; check: says what it is asked, or that "
            "a connection is enough (check: tcp)",
        )


def _cut_short(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    for name, override in cluster.services.items():
        is_tunnel = name in KNOWN and KNOWN[name].traffic == "tls-tunnel"
        if is_tunnel and override.enabled and override.traffic not in (None, "tls-tunnel"):
            yield document.problem(
                ("services", name, "traffic"),
                f"{override.traffic} ends connections after {SHORT.idle_s:g} s of silence, and hosts of {name} say nothing "
                "for hours: tls-tunnel",
            )


def _images_wander(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    """Logins and uploads to a Ruby member's registry are that member's own (docs/facts/deployment.md §1.6)."""
    https = cluster.services.get("https")
    is_ruby = any(m.kind == "foreman" for m in cluster.members) and len(cluster.members) > 1
    if is_ruby and https is not None and https.enabled and https.balance not in (None, "source"):
        sentence = (
            f"{https.balance} sends clients of container images to another Ruby member each time, which does not know the "
            "login at the first: source, where images are served"
        )
        yield document.problem(("services", "https", "balance"), sentence)


def _never_spare(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    count = len(cluster.members)
    if cluster.min_ready > count:
        yield document.problem(("min_ready",), f"is more than the {count} members there are: none can ever be drained")
    elif cluster.min_ready == count and count > 1:
        yield document.problem(("min_ready",), f"is as many as there are members: none of the {count} can be drained")


def _own_of_nothing(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    for index, member in enumerate(cluster.members):
        for name in member.ports:
            if name in cluster.services and not cluster.services[name].enabled:
                sentence = f"leads nobody there: {name} is switched off under services"
                yield document.problem(("members", index, "ports", name), sentence)


def _one_port_of_two(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    """On one host only one program has a port, so one of two members would be counted twice, and the other never asked."""
    taken: dict[tuple[str, int], Member] = {}
    rows = [row for row, _ in _rows(cluster)]
    for index, member in enumerate(cluster.members):
        ports = [member.ports.get(row.name, row.member_port) for row in rows if member in _destinations(cluster, row)]
        for port in dict.fromkeys(ports):
            other = taken.setdefault((member.address.lower(), port), member)
            if other is not member:
                sentence = f"is {other.name}'s, too, and both would have port {port} there; ports: gives one its own"
                yield document.problem(("members", index, "address"), sentence)
                break


def _begun(generation: Generation, named: Iterable[str], signs: bool) -> Iterator[Row]:
    """Return the rows that a file begins with: the generation's, those beside them that it names, and its Puppet CA's."""
    yield from generation.rows
    for row in generation.beside:
        if row.name in named or (row.name == _PUPPETCA and signs):
            yield row


def _signs(content: dict[str, Any]) -> bool:
    return content.get("authority") is not None and content.get("signer", "any") == "any"


def _signing(content: dict[str, Any], rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows with the authority's port where members sign themselves; works on raw content."""
    authority = content.get("authority")
    if not _signs(content) or not isinstance(authority, dict):
        return rows
    port = authority.get("port", Authority.model_fields["port"].default)
    return tuple(replace(r, member_port=port) if r.name == _PUPPETCA and isinstance(port, int) else r for r in rows)


def _rows(cluster: ClusterFile) -> Iterator[tuple[Row, ServiceOverride]]:
    begun = list(_begun(GENERATIONS[cluster.generation], cluster.services, signs_itself(cluster)))
    known = {row.name for row in begun}
    for row in begun:
        override = cluster.services.get(row.name, ServiceOverride())
        if override.enabled:
            yield _changed(_of_authority(cluster, row), override), override
    for name, override in cluster.services.items():
        if name not in known and override.enabled:
            yield _custom(name, override), override


def _of_authority(cluster: ClusterFile, row: Row) -> Row:
    """Return the row with the authority's port where members sign themselves."""
    if row.name != _PUPPETCA or cluster.authority is None or not signs_itself(cluster):
        return row
    return replace(row, member_port=cluster.authority.port, destinations="all")


def _changed(row: Row, override: ServiceOverride) -> Row:
    changed = replace(
        row,
        listen_port=override.listen_port or row.listen_port,
        member_port=override.member_port or row.member_port,
        traffic=override.traffic or row.traffic,
        balance=override.balance or row.balance,
        destinations=override.destinations or row.destinations,
    )
    if override.check is None:
        return changed
    return replace(changed, proof=_proof(changed, override.check), proven_by="")


def _proof(row: Row, check: ServiceCheck | Literal["tcp"]) -> Proof:
    """Return what the row asks, changed by the override; with another path the generation's answer is none any more."""
    if check == "tcp":
        return CONNECTION
    kept = row.proof if check.path is None else Proof(over=_over(row), timeout_s=row.proof.timeout_s)
    given = check.model_dump(exclude_none=True, exclude={"path"})
    if check.ca_file is not None:
        given |= {
            "ca_file": str(check.ca_file),
            "over": check.over or ("verified" if kept.over == "tls" else kept.over),
        }
    return replace(kept, uri=check.path or kept.uri, **given)


def _over(row: Row) -> Over:
    return row.proof.over if row.proof.over != "plain" or row.traffic == "plain" else "tls"


def _custom(name: str, override: ServiceOverride) -> Row:
    if override.listen_port is None or override.member_port is None:
        raise Misconfigured(f"Service {name} is in no generation, so it needs listen_port and member_port")
    # One that is known keeps its traffic: AMQP and MQTT stay tunnels, RHSM stays a short call.
    base = KNOWN.get(name) or Row(name, override.listen_port, override.member_port, "tls", "leastconn")
    return _changed(base, override)


def _destinations(cluster: ClusterFile, row: Row) -> tuple[Member, ...]:
    if row.name == _PUPPETCA and signs_itself(cluster):
        return tuple(m for m in cluster.members if m.kind == "muster")
    if row.destinations == "all" or cluster.signer == "any":
        return cluster.members
    signer = tuple(m for m in cluster.members if m.name == cluster.signer)
    if not signer:
        raise Misconfigured(f"The signer {cluster.signer} is no member, so {row.name} has nowhere to go")
    return signer


def _paced(servers: int) -> Check:
    every_s = min(_SLOWEST_CHECK_S, max(1.0, math.ceil(10 * servers / _CHECKS_PER_SECOND) / 10))
    watched_s = min(_SLOWEST_WATCHED_S, max(1.0, math.ceil(10 * servers / _CHECKS_PER_SECOND_WATCHED) / 10))
    return Check(every_s=every_s, watched_s=watched_s, down_s=every_s)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a program is asked.

    Attributes:
        of: the service whose port that is, which a member may have its own of.
    """

    question: Question
    of: str

    def at(self, member: Member) -> Question:
        """Return the question with the member's own port, where it has one of the service that is asked."""
        return replace(self.question, port=member.ports.get(self.of, self.question.port))


def _asked(rows: Sequence[Row]) -> dict[str, _Asked]:
    """Return by service what the program that serves it is asked, and on which port."""
    offered = {row.name: row for row in rows}
    found = {}
    for row in rows:
        by = offered.get(row.proven_by, row)
        # What proves nothing more than its own port, or stands on other members, speaks for nobody else.
        by = by if by.proof != CONNECTION and by.destinations == row.destinations else row
        found[row.name] = _Asked(Question("connect", by.member_port, proof=by.proof), by.name)
    return found


def _service(
    cluster: ClusterFile, row: Row, override: ServiceOverride, check: Check, asked: _Asked, itself: bool
) -> Service:
    return Service(
        name=row.name,
        label=row.label,
        listen_port=row.listen_port,
        member_port=row.member_port,
        traffic=row.traffic,
        balance=row.balance,
        destinations=row.destinations,
        servers=tuple(_server(cluster, row, m, asked, itself) for m in _destinations(cluster, row)),
        check=check,
        timeouts=_timeouts(cluster, row),
        maxconn_per_member=override.maxconn_per_member,
        also_listen_ports=override.also_listen_ports,
        own_ports=tuple((str(m.name).lower(), m.ports[row.name]) for m in cluster.members if row.name in m.ports),
    )


def _timeouts(cluster: ClusterFile, row: Row) -> Timeouts:
    if row.traffic == "tls-tunnel":
        return TUNNEL
    content = cluster.content
    if content is None or row.name not in content.services:
        return SHORT
    longest_s = max(content.first_byte_timeout_s, content.stall_timeout_s)
    return replace(SHORT, idle_s=max(SHORT.idle_s, longest_s + _OUTLASTED_S))


def _server(cluster: ClusterFile, row: Row, member: Member, asked: _Asked, itself: bool) -> Server:
    ours = member.kind == "muster"
    return Server(
        name=str(member.name).lower(),
        id=member.id,
        address=member.address,
        port=member.ports.get(row.name, row.member_port),
        question=_question(cluster, row, member, asked, itself),
        weight=member.weight,
        proxied=ours and itself and cluster.edge.proxy_protocol != "off",
        beside=asked.at(member) if ours and not itself else None,
    )


def _question(cluster: ClusterFile, row: Row, member: Member, asked: _Asked, itself: bool) -> Question:
    if member.kind == "muster":
        proxy = cluster.edge.proxy_protocol
        proxied = proxy == "required" or (proxy == "accepted" and itself)
        return Question(
            "ready", member.ports.get(_SMARTPROXY, _own_port(cluster)), f"{READY}?service={row.name}", proxied
        )
    proof = asked.question.proof
    site = cluster.foreman.ca_file is not None and proof.ca_file is None
    if row.name == _SMARTPROXY and proof == KNOWN[_SMARTPROXY].proof:
        return Question("alive", member.ports.get(row.name, row.member_port), proof.uri, site=site)
    return replace(asked.at(member), site=site)


def _own_port(cluster: ClusterFile) -> int:
    override = cluster.services.get(_SMARTPROXY, ServiceOverride())
    standard = next(row.member_port for row in GENERATIONS[cluster.generation].rows if row.name == _SMARTPROXY)
    return override.member_port or standard


@dataclass(frozen=True, slots=True)
class _Listening:
    name: str
    listen_port: int
    member_port: int
    where: Location
    also: tuple[int, ...] = ()
    member_said: bool = False


def _listening(overrides: dict[str, Any], rows: tuple[Row, ...]) -> list[_Listening]:
    standard = {row.name: row for row in rows}
    found = []
    for name in [*standard, *(str(n) for n in overrides if str(n) not in standard)]:
        override = overrides.get(name)
        override = override if isinstance(override, dict) else {}
        row = standard.get(name)
        listen_port = override.get("listen_port") or (row and row.listen_port)
        member_port = override.get("member_port") or (row and row.member_port)
        if override.get("enabled") is False or not isinstance(listen_port, int) or not isinstance(member_port, int):
            continue
        where: Location = ("services", name, "listen_port") if "listen_port" in override else ("services", name)
        also = override.get("also_listen_ports")
        numbers = tuple(p for p in also if isinstance(p, int)) if isinstance(also, list) else ()
        said = override.get("member_port") is not None
        found.append(_Listening(name, listen_port, member_port, where, numbers, said))
    return found


def _unknown_services(
    document: Document, overrides: dict[str, Any], word: str, generation: Generation | None, offered: set[str]
) -> Iterator[Problem]:
    if generation is None:
        return
    names = [row.name for row in (*generation.rows, *generation.beside)]
    for name in map(str, overrides):
        if name in offered:
            continue
        if name in generation.lacks:
            yield document.problem(
                ("services", name),
                f"is no service of generation {word}: {generation.lacks[name]}; where a program of yours answers it, it "
                "needs listen_port and member_port",
            )
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)};"
        yield document.problem(
            ("services", name),
            f"{name!r} is no service of generation {word}; {hint} a new one needs listen_port and member_port",
        )


def _unknown_on_members(document: Document, content: dict[str, Any], known: set[str]) -> Iterator[Problem]:
    for index, member in enumerate(_mappings(content.get("members"))):
        ports = member.get("ports")
        for name in map(str, ports) if isinstance(ports, dict) else ():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
                yield document.problem(("members", index, "ports", name), f"{name!r} is no service; {hint}")


def _answers_to_nothing(document: Document, overrides: dict[str, Any]) -> Iterator[Problem]:
    for key, override in overrides.items():
        check = override.get("check") if isinstance(override, dict) else None
        known = KNOWN.get(str(key))
        if not isinstance(check, dict) or "path" in check or (known is not None and known.proof.uri):
            continue
        for name in ("status", "holds", "lacks"):
            if name in check:
                sentence = "says what is answered, but nothing is asked; path says what"
                yield document.problem(("services", str(key), "check", name), sentence)


def _complete(overrides: dict[str, Any]) -> set[str]:
    """Return the services that the file brings itself, with both of their ports."""
    return {str(n) for n, o in overrides.items() if isinstance(o, dict) and {"listen_port", "member_port"} <= o.keys()}


def _not_offered(
    document: Document, content: dict[str, Any], word: str, offered: set[str], overrides: dict[str, Any]
) -> Iterator[Problem]:
    """A port that members shall answer must be one."""
    for name in _of_content(content):
        override = overrides.get(str(name))
        if isinstance(override, dict) and override.get("enabled") is False:
            sentence = f"{name} is switched off under services"
        elif str(name) in KNOWN and str(name) not in offered:
            row = KNOWN[str(name)]
            sentence = (
                f"{name} is no service of generation {word}; add it: "
                f"services: {{{name}: {{listen_port: {row.listen_port}, member_port: {row.member_port}}}}}"
            )
        else:
            continue
        yield document.problem(("content", "services"), sentence)


def _of_content(content: dict[str, Any]) -> list[str]:
    """Return whose ports of content members answer, as the file says it or leaves it."""
    section = content.get("content")
    if not isinstance(section, dict):
        return []
    services = section.get("services", list(Content.model_fields["services"].default))
    return [str(name) for name in services] if isinstance(services, list) else []


def _answered_twice(document: Document, content: dict[str, Any], listening: list[_Listening]) -> Iterator[Problem]:
    """A member cannot listen twice on one port: what it answers itself needs a port for each."""
    found: dict[Problem, None] = {}
    for index, member in enumerate(_mappings(content.get("members"))):
        if member.get("kind", "muster") != "muster":
            continue
        own = _own_ports(member)
        ports = [
            (own[name], name, ("members", index, "ports", name)) if name in own else (port, name, where)
            for port, name, where in _answered(content, listening)
        ]
        taken: dict[int, str] = {}
        # What the file says comes last, so that the problem stands on a line the administrator wrote; what is a
        # member's own last of all.
        for port, name, where in sorted(ports, key=lambda p: (p[1] in own, p[2] in document.lines)):
            other = taken.setdefault(port, name)
            if other != name:
                sentence = f"members would listen twice on port {port}, for {other} and for {name}"
                found[document.problem(where, sentence)] = None
    yield from found


def _answered(content: dict[str, Any], listening: list[_Listening]) -> Iterator[tuple[int, str, Location]]:
    """Return the ports on which members of kind ``muster`` listen themselves, whose they are, and where that stands."""
    ours = [_SMARTPROXY, _ANACONDA, *_of_content(content), *([_PUPPETCA] if _signs(content) else [])]
    for one in listening:
        if one.name in ours:
            of_authority = one.name == _PUPPETCA and not one.member_said
            yield (
                one.member_port,
                one.name,
                ("authority", "port") if of_authority else ("services", one.name, "member_port"),
            )


def _own_ports(member: dict[str, Any]) -> dict[str, int]:
    ports = member.get("ports")
    return {str(n): p for n, p in ports.items() if isinstance(p, int)} if isinstance(ports, dict) else {}


def _leads_back(document: Document, content: dict[str, Any], listening: list[_Listening]) -> Iterator[Problem]:
    """What is behind members cannot be their own ports: each call would come back, until connections run out."""
    section = content.get("content")
    if not isinstance(section, dict):
        return
    members = {str(m.get(key)).lower() for m in _mappings(content.get("members")) for key in ("name", "address")}
    aliases = content.get("aliases")
    names = {str(n).lower() for n in (content.get("address"), *(aliases if isinstance(aliases, list) else []))}
    ours = [one for one in listening if one.name in _of_content(content)]
    for key in ("pulp_content_url", "pulp_api_url", "registry_url"):
        try:
            url = urlsplit(str(section.get(key, "")).replace("{address}", _MEMBER))
            host, port = url.hostname, url.port or STANDARD_PORTS.get(url.scheme)
        except ValueError:
            continue
        at_members = (
            next((o for o in ours if port in _ports_on(o, content)), None) if host in members | {_MEMBER} else None
        )
        at_balancers = next((o for o in ours if port in (o.listen_port, *o.also)), None) if host in names else None
        if (one := at_members or at_balancers) is not None:
            yield document.problem(("content", key), f"leads back to {one.name}, which members answer themselves")


def _ports_on(one: _Listening, content: dict[str, Any]) -> set[int]:
    """Return the ports that members of kind ``muster`` have of a service."""
    ours = [m for m in _mappings(content.get("members")) if m.get("kind", "muster") == "muster"]
    return {one.member_port, *(own[one.name] for m in ours if one.name in (own := _own_ports(m)))}


def _unknown_on_disks(document: Document, content: dict[str, Any], known: set[str]) -> Iterator[Problem]:
    for index, disk in enumerate(_mappings(content.get("disks"))):
        services = disk.get("services")
        for name in services if isinstance(services, list) else []:
            if str(name) not in known:
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
                yield document.problem(("disks", index, "services"), f"{str(name)!r} is no service{hint}")


def _several_signers(
    document: Document, content: dict[str, Any], overrides: dict[str, Any], rows: tuple[Row, ...]
) -> Iterator[Problem]:
    """Without an authority each member's puppetserver is a CA of its own, so one of them must be named."""
    override = overrides.get(_PUPPETCA)
    offered = any(row.name == _PUPPETCA for row in rows) or isinstance(override, dict)
    if not offered or (isinstance(override, dict) and override.get("enabled") is False):
        return
    members = len(_mappings(content.get("members")))
    if members > 1 and content.get("authority") is None and content.get("signer", "any") == "any":
        yield document.problem(
            ("signer",),
            f"{_PUPPETCA} would lead to {members} members, each a Puppet CA of its own; name the one that signs "
            f"(signer: NAME), let all be one CA (authority: {{}}), or switch it off "
            f"(services: {_PUPPETCA}: {{enabled: false}})",
        )


def _port_clashes(document: Document, content: dict[str, Any], listening: list[_Listening]) -> Iterator[Problem]:
    taken: dict[int, _Listening] = {}
    # Services the file speaks of come last, so that the problem stands on a line the administrator wrote.
    for one in sorted(listening, key=lambda s: s.where in document.lines):
        other = taken.setdefault(one.listen_port, one)
        if other is not one:
            yield document.problem(one.where, f"{one.name} and {other.name} both listen on port {one.listen_port}")
    for one in listening:
        for place, port in enumerate(one.also):
            other = taken.setdefault(port, one)
            if other is not one or port == one.listen_port or port in one.also[:place]:
                sentence = f"port {port} is where {other.name} listens" + _of_generation(content, port, other.name)
                yield document.problem(("services", one.name, "also_listen_ports", place), sentence)
    for index, balancer in enumerate(_mappings(content.get("balancers"))):
        metrics = balancer.get("metrics_port")
        if isinstance(metrics, int) and metrics in taken:
            sentence = f"port {metrics} is where {taken[metrics].name} listens"
            yield document.problem(("balancers", index, "metrics_port"), sentence)
        yield from _shared_hosts(document, content, index, balancer, listening)


def _of_generation(content: dict[str, Any], port: int, name: str) -> str:
    word, generation = generation_of(content)
    row = generation.row(name) if generation is not None else None
    return f" in generation {word}" if row is not None and row.listen_port == port else ""


def _shared_hosts(
    document: Document, content: dict[str, Any], index: int, balancer: dict[str, Any], listening: list[_Listening]
) -> Iterator[Problem]:
    bind = str(balancer.get("bind", "*"))
    for member in _mappings(content.get("members")):
        address = str(member.get("address"))
        wide = bind == "*" and (address == str(balancer.get("address")) or _is_loopback(address))
        if not (wide or bind == address):
            continue
        own = _own_ports(member)
        there = {own.get(o.name, o.member_port) for o in listening}
        clash = next((p for s in listening for p in (s.listen_port, *s.also) if p in there), None)
        if clash is not None:
            yield document.problem(
                ("balancers", index, "bind"),
                f"the balancer would take port {clash} from member {member.get('name')} on the same host; "
                "bind it to an address of its own",
            )
            return
        metrics = balancer.get("metrics_port")
        if isinstance(metrics, int) and metrics in there:
            sentence = f"port {metrics} is member {member.get('name')}'s, on the same host"
            yield document.problem(("balancers", index, "metrics_port"), sentence)
            return


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [v if isinstance(v, dict) else {} for v in value] if isinstance(value, list) else []
