"""Which service each frontend of somebody's HAProxy is, whose generation that makes, and who the members are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from muster.balancer.generations import GENERATIONS, KNOWN, Row
from muster.balancer.haproxy.found import Found, FoundServer, Section
from muster.cluster.values import address_of
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, shown

_SMARTPROXY_PORT, _CONTAINERS_PORT = 9090, 8443
# Of 2018 alone: qpid, and the registry before it moved to 443.
_OLD_PORTS = frozenset({5647, 5000})
# What people call services, and the rows do not.
_CALLED: Mapping[str, str] = {
    "smart-proxy": "smartproxy", "scap": "smartproxy", "foreman-proxy": "smartproxy", "registration": "smartproxy",
    "puppet-ca": "puppetca", "puppetmaster": "puppet", "puppetserver": "puppet", "templates": "anaconda", "crane": "docker",
    "qpid": "amqp", "subscriptions": "rhsm",
}  # fmt: skip
_MOST_FURTHER_PORTS = 8


@dataclass(frozen=True)
class AdoptedService:
    """One service as HAProxy offers it.

    Attributes:
        row: what the generation says of it; None: it knows none of that name.
        fronts: where clients come in; the first has ``ports[0]``.
        ports: where it listens.
        behind: the sections that hold its servers.
        servers: each with the port that it is reached on, the first of each host.
        member_port: that of most servers.
    """

    name: str
    row: Row | None
    fronts: tuple[Section, ...]
    ports: tuple[int, ...]
    behind: tuple[Section, ...]
    servers: tuple[tuple[FoundServer, int], ...]
    member_port: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where clients are led, backups left out unless there is nobody else."""
        first = tuple(s.host for s, _ in self.servers if not s.backup)
        return first or tuple(s.host for s, _ in self.servers)

    @property
    def line(self) -> int:
        """Where it begins in the file."""
        return self.fronts[0].line


@dataclass(frozen=True)
class AdoptedMember:
    """One member.

    Attributes:
        host: where it is reached.
        hosts: every host by which servers name it.
    """

    name: str
    host: str
    hosts: frozenset[str]


def adopted_services(found: Found, generation: str | None = None) -> tuple[str, tuple[AdoptedService, ...]]:
    """Return whose layout the members have, and every service that leads to servers, in the file's order."""
    merged = list(_without_taken(_merged(found)))
    word = generation or _generation(merged)
    taken: set[str] = set()
    named: dict[int, str] = {}
    for how in (_by_port, _by_name, _by_member_port):
        for at, one in enumerate(merged):
            name = how(word, one) if at not in named else None
            if name is not None and name not in taken:
                named[at] = name
                taken.add(name)
    services = []
    for at, one in enumerate(merged):
        name = named.get(at) or _own_name(one, taken)
        taken.add(name)
        row = GENERATIONS[word].row(name)
        first = row.listen_port if row is not None and row.listen_port in one.ports else one.ports[0]
        ports = (first, *(p for p in one.ports if p != first))[: 1 + _MOST_FURTHER_PORTS]
        services.append(AdoptedService(name, row, one.fronts, ports, one.behind, one.servers, one.member_port))
    return word, tuple(services)


def adopted_members(services: Sequence[AdoptedService], told: Mapping[str, str]) -> tuple[AdoptedMember, ...]:
    """Return the servers' hosts as members, in the order in which they stand; ``told`` is where a name is reached.

    Raises:
        Rejected: a host is an address and nobody said whose.
    """
    name_of = {host: name for name, host in told.items()}
    hosts: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    nameless: dict[str, int] = {}
    for one in services:
        for server, _ in one.servers:
            name = name_of.get(server.host) or _name(server)
            if name is None:
                nameless.setdefault(server.host, server.line)
            else:
                names.setdefault(name.lower(), name)
                hosts.setdefault(name.lower(), []).append(server.host)
    if nameless:
        listed = "; ".join(f"{host} (line {line}): --member NAME={host}" for host, line in list(nameless.items())[:10])
        raise Rejected(
            f"Members have names, which their certificates carry; HAProxy's file has but addresses of {listed}"
        )
    reached = {name.lower(): host for name, host in told.items()}
    return tuple(
        AdoptedMember(names[key], reached.get(key, found[0]), frozenset((*found, names[key])))
        for key, found in hosts.items()
    )


def _name(server: FoundServer) -> str | None:
    if address_of(server.host) is None:
        return server.host
    # Some write the member's own name before its address.
    try:
        name = FQDN.parse(server.name)
    except Rejected:
        return None
    return str(name) if len(name.labels) > 1 and not name.labels[-1].isdigit() else None


@dataclass(frozen=True)
class _Merged:
    """Frontends that lead to the same, as one."""

    fronts: tuple[Section, ...]
    ports: tuple[int, ...]
    behind: tuple[Section, ...]
    servers: tuple[tuple[FoundServer, int], ...]
    member_port: int


def _merged(found: Found) -> list[_Merged]:
    one_by_one = list(_each(found))
    rows = {row.listen_port for generation in GENERATIONS.values() for row in generation.rows}
    out: list[_Merged] = []
    by_targets: dict[frozenset[tuple[str, int]], list[int]] = {}
    for one in one_by_one:
        targets = frozenset((s.host, port) for s, port in one.servers)
        # Ports of two services may lead to one program, as a Puppet CA's do; 8443 beside 9090 is one service twice, and so
        # is a port that nobody knows.
        same = next((at for at in by_targets.get(targets, ()) if _is_same(out[at], one, rows)), None)
        if same is None:
            by_targets.setdefault(targets, []).append(len(out))
            out.append(one)
            continue
        first = out[same]
        ports = (*first.ports, *(p for p in one.ports if p not in first.ports))
        out[same] = _Merged((*first.fronts, *one.fronts), ports, first.behind, first.servers, first.member_port)
    return out


def _without_taken(merged: Sequence[_Merged]) -> Iterator[_Merged]:
    """Leave each port to the first that has it: HAProxy may have one on two addresses, a cluster has one address."""
    taken: set[int] = set()
    for one in merged:
        ports = tuple(p for p in one.ports if p not in taken)
        taken.update(ports)
        if ports:
            yield replace(one, ports=ports)


def _is_same(first: _Merged, other: _Merged, rows: set[int]) -> bool:
    known = ({*first.ports} & rows, {*other.ports} & rows)
    if known[0] and known[1]:
        return bool(known[0] & known[1]) or set().union(*known) == {_SMARTPROXY_PORT, _CONTAINERS_PORT}
    called = [{_called(f.name) for f in one.fronts} & KNOWN.keys() for one in (first, other)]
    return not (called[0] and called[1]) or called[0] == called[1]


def _each(found: Found) -> Iterator[_Merged]:
    for front in found.fronts:
        behind = found.servers_of(front)
        ports = tuple(dict.fromkeys(b.port for b in front.binds))
        servers: dict[str, tuple[FoundServer, int]] = {}
        for section in behind:
            for server in section.servers:
                servers.setdefault(server.host, (server, server.port or ports[0]))
        if servers:
            member_port = Counter(port for _, port in servers.values()).most_common(1)[0][0]
            yield _Merged((front,), ports, behind, tuple(servers.values()), member_port)


def _generation(merged: Sequence[_Merged]) -> str:
    by_port = {port: one for one in merged for port in one.ports}
    called = {_called(front.name) for one in merged for front in one.fronts}
    containers = by_port.get(_CONTAINERS_PORT)
    if {"amqp", "docker", "rhsm"} & called or _OLD_PORTS & by_port.keys():
        return "seed"
    if containers is None:
        return "installer"
    if _SMARTPROXY_PORT not in by_port:
        return "foremanctl"
    if by_port[_SMARTPROXY_PORT] is not containers:
        return "seed"
    return "foremanctl" if containers.member_port == _CONTAINERS_PORT else "installer"


def _by_port(word: str, one: _Merged) -> str | None:
    generation = GENERATIONS[word]
    return next((r.name for r in (*generation.rows, *generation.beside) if r.listen_port in one.ports), None)


def _by_name(word: str, one: _Merged) -> str | None:
    called = (_called(front.name) for front in one.fronts)
    return next((name for name in called if GENERATIONS[word].row(name) is not None), None)


def _by_member_port(word: str, one: _Merged) -> str | None:
    generation = GENERATIONS[word]
    rows = [r for r in (*generation.rows, *generation.beside) if r.member_port == one.member_port]
    return rows[0].name if len(rows) == 1 else None


def _called(name: str) -> str:
    slug = _slug(name)
    return _CALLED.get(slug, slug)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-")


def _own_name(one: _Merged, taken: set[str]) -> str:
    name = _slug(shown(one.fronts[0].name)) or "service"
    return name if name not in taken else f"{name}-{one.ports[0]}"
