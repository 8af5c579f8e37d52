"""What is wrong with a hand-made cluster, in the doctor's words: by lines of HAProxy's file, and by members."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from muster.balancer.generations import GENERATIONS, KNOWN, Traffic
from muster.balancer.haproxy.found import Found, FoundServer, Kind, Section
from muster.foreman.ruby_settings import NEWER_TLS, OLDER_TLS, RubySettings, host_in
from muster.kernel.findings import Finding, Severity
from muster.kernel.names import shown
from muster.observed.adoption.services import AdoptedMember, AdoptedService

# Apache waits 600 s for Pulp, and subscription-manager 180 s for an answer (docs/facts/deployment.md §1.4).
_LONG_ENOUGH_S = 180.0
_TUNNEL_S = 3600.0
_WAITS: Mapping[Kind, tuple[str, ...]] = {
    "frontend": ("client",), "backend": ("server",), "listen": ("client", "server"),
}  # fmt: skip
_BALANCES = frozenset({"roundrobin", "leastconn", "random", "source"})
_SAME_BALANCE = {"static-rr": "roundrobin"}
_MOST_NOTED = 20


@dataclass(frozen=True)
class Site:
    """Everything that was read, side by side.

    Attributes:
        path: HAProxy's file, as findings name it.
        settings: of members, by their names in lower case; of some, or none.
        signer: who answers the Puppet CA's port; None: nobody.
    """

    path: str
    found: Found
    generation: str
    services: tuple[AdoptedService, ...]
    members: tuple[AdoptedMember, ...]
    settings: Mapping[str, RubySettings]
    address: str
    signer: str | None

    def at(self, line: int) -> str:
        return f"{self.path} line {line}"


def balance_of(section: Section) -> str | None:
    """Return the algorithm in the cluster file's word; None: it has none for it. HAProxy's own default is roundrobin."""
    word = section.balance.split(" ")[0] if section.balance else "roundrobin"
    word = _SAME_BALANCE.get(word, word).partition("(")[0]
    return word if word in _BALANCES else None


def traffic_of(service: AdoptedService) -> Traffic:
    """Return what comes to a service: what is known of it, else plain, which asks nothing of a client's first bytes."""
    known = service.row or KNOWN.get(service.name)
    return known.traffic if known is not None else "plain"


def findings(site: Site) -> tuple[Finding, ...]:
    """Return everything that is wrong, errors first, each in the order of the file."""
    found = [
        *_of_sockets(site),
        *_of_checks(site),
        *_of_timeouts(site),
        *(f for service in site.services for f in _of_service(site, service)),
        *_of_generation(site),
        *_of_members(site),
        *_not_offered(site),
        *_of_settings(site),
    ]
    return tuple(sorted(found, key=lambda f: f.severity != "error"))


def _finding(code: str, place: str, sentence: str, cause: str, remedy: str, severity: Severity = "warning") -> Finding:
    return Finding(code, place, sentence, cause, remedy, severity)


def _of_sockets(site: Site) -> Iterator[Finding]:
    sockets = site.found.sockets
    if not any(s.level == "admin" for s in sockets):
        place = site.at(sockets[0].line) if sockets else site.path
        what = f"its stats socket has level {sockets[0].level}" if sockets else "it has no stats socket"
        yield _finding(
            "ADOPT-SOCKET", place, f"No member can be drained: {what}",
            "HAProxy takes orders about servers on a socket of level admin only",
            "muster balance has one of its own; nothing has to be done before the switch",
        )  # fmt: skip
    if not any(s.hands_over for s in sockets):
        yield _finding(
            "ADOPT-HANDOVER", site.at(sockets[0].line) if sockets else site.path,
            "HAProxy cannot hand over its ports, and without that new connections fail while another takes them",
            "no stats socket has expose-fd listeners",
            "add one and reload HAProxy before the switch on the same host (docs/admin/adopting.md)",
        )  # fmt: skip


def _of_service(site: Site, service: AdoptedService) -> Iterator[Finding]:
    traffic = traffic_of(service)
    yield from _of_fronts(site, service, traffic)
    for section in service.behind:
        yield from _of_balance(site, service, section)
    yield from _of_servers(site, service)


def _of_fronts(site: Site, service: AdoptedService, traffic: Traffic) -> Iterator[Finding]:
    for front in service.fronts:
        for bind in front.binds:
            if bind.tls:
                yield _finding(
                    "ADOPT-TLS-ENDED", site.at(bind.line), f"TLS of {service.name} ends at the balancer",
                    "members then see no certificate of a client, and believe whom the balancer names or nobody",
                    "members present the certificate themselves, with the cluster's name in it; muster balance passes TLS "
                    "through untouched",
                    "error",
                )  # fmt: skip
            if bind.proxied:
                yield _finding(
                    "ADOPT-PROXY-HEADER", site.at(bind.line), f"{service.name} takes PROXY headers from what is in front",
                    "another balancer stands before this one", "let its clients come to muster balance directly",
                )  # fmt: skip
    http = [s for s in (*service.fronts, *service.behind) if s.mode == "http"]
    if http:
        plain = traffic == "plain"
        yield _finding(
            "ADOPT-MODE-HTTP", site.at(http[0].line_of("mode")), f"{service.name} is in mode http",
            "HAProxy reads and rewrites requests" if plain else "client certificates do not pass through mode http",
            "muster balance forwards connections as they are; what headers HAProxy added is gone then"
            if plain else "mode tcp, as muster balance has it",
            "warning" if plain else "error",
        )  # fmt: skip


def _of_balance(site: Site, service: AdoptedService, section: Section) -> Iterator[Finding]:
    place = site.at(section.line_of("balance"))
    if balance_of(section) is None:
        yield _finding(
            "ADOPT-NOT-OFFERED", place, f"{service.name} is balanced by {section.balance}, which Muster does not offer",
            "connections are passed on unread: roundrobin, leastconn, random and source are what there is",
            "choose one of these under services in the cluster file; what the generation has is written now",
        )  # fmt: skip
    if balance_of(section) == "source" and not section.is_consistent:
        yield _finding(
            "ADOPT-HASH", place, f"When a member of {service.name} leaves, clients of the others are moved, too",
            "balance source without hash-type consistent spreads all clients anew",
            "muster balance hashes consistently; at the switch clients move once",
        )  # fmt: skip


def _of_checks(site: Site) -> Iterator[Finding]:
    blind: dict[str, int] = {}
    shallow: dict[str, int] = {}
    for service in site.services:
        for section in service.behind:
            unchecked = [s for s in section.servers if not s.checked]
            if unchecked:
                blind.setdefault(service.name, unchecked[0].line)
            elif section.servers and not section.asks and not all(s.check_tls for s in section.servers):
                shallow.setdefault(service.name, section.line)
    if blind:
        yield _finding(
            "ADOPT-CHECK", site.at(min(blind.values())),
            f"Clients are led to members whether they serve or not: {_listed(blind)}",
            "server lines have no check", "muster balance asks every member what the service is for",
        )  # fmt: skip
    if shallow:
        yield _finding(
            "ADOPT-CHECK", site.at(min(shallow.values())),
            f"A member whose program hangs, or has lost its database, keeps its clients: {_listed(shallow)}",
            "servers are checked by a connection alone", "muster balance asks every member what the service is for",
        )  # fmt: skip


def _of_timeouts(site: Site) -> Iterator[Finding]:
    short: dict[tuple[str, int, float], list[str]] = {}
    for service in site.services:
        is_tunnel = traffic_of(service) == "tls-tunnel"
        for section in (*service.fronts, *(s for s in service.behind if s not in service.fronts)):
            if is_tunnel:
                if section.kind != "frontend" and section.timeouts.get("tunnel", 0.0) < _TUNNEL_S:
                    yield _finding(
                        "ADOPT-TUNNEL", site.at(section.line), f"Hosts of {service.name} lose their connections when idle",
                        "timeout tunnel is absent or short, and they say nothing for hours",
                        "muster balance keeps them for 6 h",
                    )  # fmt: skip
                continue
            for which in _WAITS[section.kind]:
                given = section.timeouts.get(which)
                if given is not None and given < _LONG_ENOUGH_S:
                    short.setdefault((which, section.line_of(f"timeout {which}"), given), []).append(service.name)
    for (which, line, given), names in short.items():
        yield _finding(
            "ADOPT-TIMEOUT", site.at(line), f"Answers that take longer than {given:g} s are cut off: {_listed(names)}",
            f"timeout {which} is shorter than clients (180 s) and what is behind members (600 s) wait",
            "muster balance waits for 60 s of silence, and longer where members of kind muster answer content",
        )  # fmt: skip


def _of_servers(site: Site, service: AdoptedService) -> Iterator[Finding]:
    servers = [s for section in service.behind for s in section.servers]
    yield from _each(
        site, "ADOPT-BACKUP", [s for s in servers if s.backup], f"of {service.name} is a backup",
        "it gets clients only when all others are gone", "Muster has no backups: it gets its share; muster maintenance "
        "MEMBER keeps it out", "warning",
    )  # fmt: skip
    yield from _each(
        site, "ADOPT-DISABLED", [s for s in servers if s.disabled or s.weight == 0],
        f"of {service.name} gets no clients", "it is disabled, or its weight is 0",
        "muster maintenance MEMBER right after muster balance runs, if it shall stay out", "warning",
    )  # fmt: skip
    yield from _each(
        site, "ADOPT-PROXY-HEADER", [s for s in servers if s.proxied], f"of {service.name} is sent a PROXY header",
        "Ruby Smart Proxies do not understand it; Apache does where it was told",
        "take it from Apache's configuration: muster balance sends none to members of kind foreman", "error",
    )  # fmt: skip
    yield from _each(
        site, "ADOPT-TLS-ENDED", [s for s in servers if s.tls], f"of {service.name} is reached by TLS of the balancer's",
        "client certificates do not pass", "members get clients' own TLS from muster balance", "error",
    )  # fmt: skip
    seen: dict[str, FoundServer] = {}
    for server in servers:
        other = seen.setdefault(server.host, server)
        if other is not server and (other.port, other.host) != (server.port, server.host):
            yield _finding(
                "ADOPT-NOT-OFFERED", site.at(server.line),
                f"{service.name} leads to {server.host} twice, on ports {other.port} and {server.port}",
                "a member has one port for a service", f"port {other.port} is taken over",
            )  # fmt: skip


def _each(
    site: Site, code: str, servers: Sequence[FoundServer], what: str, cause: str, remedy: str, severity: Severity
) -> Iterator[Finding]:
    for server in servers:
        yield _finding(code, site.at(server.line), f"{server.host} {what}", cause, remedy, severity)


def _of_generation(site: Site) -> Iterator[Finding]:
    lacks = GENERATIONS["installer" if site.generation == "seed" else site.generation].lacks
    for service in site.services:
        if service.name in lacks:
            yield _finding(
                "ADOPT-GONE", site.at(service.line), f"Nothing of today's Foreman answers {service.name}",
                lacks[service.name],
                f"services: {{{service.name}: {{enabled: false}}}} once no host asks for port {service.ports[0]} any more",
            )  # fmt: skip


def _of_members(site: Site) -> Iterator[Finding]:
    for service in site.services:
        hosts = set(service.hosts)
        if service.name == "puppetca":
            if len(hosts) > 1:
                yield _finding(
                    "ADOPT-PUPPETCA", site.at(service.line),
                    f"Certificate requests are led to {len(hosts)} members: {_listed(service.hosts)}",
                    "each puppetserver is a CA of its own, and an agent finds its certificate at one of them only",
                    f"signer: {site.signer} is written, the first of them; name the one that signs", "error",
                )  # fmt: skip
            continue
        led = hosts | {s.host for s, _ in service.servers if s.backup}
        missing = [m.name for m in site.members if not m.hosts & led]
        if missing:
            yield _finding(
                "ADOPT-MEMBERS-DIFFER", site.at(service.line),
                f"{service.name} is not led to {_listed(missing)}, and other services are",
                "backends have different members; Muster leads a service to all of them, and checks each",
                f"let them answer port {service.member_port}, or leave it: who fails its check gets no clients",
            )  # fmt: skip


def _not_offered(site: Site) -> Iterator[Finding]:
    noted = site.found.noted
    for one in noted[:_MOST_NOTED]:
        within = f" in {one.section}" if one.section else ""
        yield _finding(
            "ADOPT-NOT-OFFERED", site.at(one.line), f"Not taken over{within}: {one.words}",
            "muster balance writes HAProxy's configuration from the cluster file, which has no word for it",
            "see whether anything needs it",
        )  # fmt: skip
    if len(noted) > _MOST_NOTED:
        yield _finding(
            "ADOPT-NOT-OFFERED", site.at(noted[_MOST_NOTED].line),
            f"{len(noted) - _MOST_NOTED} more lines are not taken over",
            "muster balance writes HAProxy's configuration from the cluster file", "see whether anything needs them",
        )  # fmt: skip
    ports = {front: service.ports for service in site.services for front in map(id, service.fronts)}
    for front in site.found.fronts:
        for bind in front.binds if any(section.servers for section in site.found.servers_of(front)) else ():
            if bind.port not in ports.get(id(front), ()):
                yield _finding(
                    "ADOPT-NOT-OFFERED", site.at(bind.line), f"Port {bind.port} of {front.name} is not taken over",
                    "another service has it, on another address perhaps, or the service has more than nine ports",
                    "give it a port of its own under services in the cluster file",
                )  # fmt: skip
        if not any(section.servers for section in site.found.servers_of(front)):
            yield _finding(
                "ADOPT-NOT-OFFERED", site.at(front.line), f"{front.name} leads to no server and is not taken over",
                "it shows statistics, answers by itself, or its backend is absent",
                "metrics_port of the balancer has figures for Prometheus; muster status shows the servers",
            )  # fmt: skip


def _of_settings(site: Site) -> Iterator[Finding]:
    own = {m.name.lower() for m in site.members}
    for member in site.members:
        told = site.settings.get(member.name.lower())
        if told is None:
            continue
        yield from _of_urls(site, member, told)
        yield from _of_trust(member, told, own)
        yield from _of_ports(site, member, told)
        both = [k for k in OLDER_TLS if k in told.tls], [k for k in NEWER_TLS if k in told.tls]
        if both[0] and both[1]:
            yield _finding(
                "ADOPT-TLS-SETTINGS", member.name, f"{_listed(both[0])} stand beside {_listed(both[1])}",
                "the former count before Foreman 5.0, the latter from 5.0 on",
                "keep those of the version that is installed",
            )  # fmt: skip
    yield from _of_differences(site)


_WANTED = (
    # Feature, key, port of the generation that it leads to; what comes of it where it is missing.
    ("registration", "registration_url", "Foreman does not know that the member stands behind a balancer, and hosts that "
     "register through it are bound to it alone"),
    ("templates", "template_url", "hosts that are installed ask this member alone"),
    ("pulpcore", "content_app_url", "hosts that register are given this member's own content URL"),
    ("pulpcore", "rhsm_url", "hosts that register are given this member's own subscription URL"),
    ("container_gateway", "client_endpoint", "clients of images are sent to this member for their token"),
)  # fmt: skip
_OWN = (
    ("pulpcore", "pulp_url", "Foreman would synchronise whichever member the balancer picks"),
    ("container_gateway", "pulp_endpoint", "the gateway would read another member's images"),
)  # fmt: skip


def _without_user(url: str) -> str:
    """Return a URL as it may be shown: whoever wrote a password into one did not mean it for a report."""
    scheme, there, rest = url.partition("://")
    return shown(f"{scheme}{there}{rest.rpartition('@')[2]}")


def _of_urls(site: Site, member: AdoptedMember, told: RubySettings) -> Iterator[Finding]:
    for feature, key, effect in _WANTED:
        if feature not in told.features:
            continue
        url = told.said(feature, key)
        host = host_in(url)
        if host == site.address.lower():
            continue
        sentence = f"{key} is {_without_user(url)}, which is not at {site.address}" if url else f"{key} is missing"
        yield _finding(
            "ADOPT-URL", member.name, f"{feature}.yml: {sentence}", effect,
            "set it to the cluster's address, restart foreman-proxy and refresh the Smart Proxy's features in Foreman",
            "error",
        )  # fmt: skip
    for feature, key, effect in _OWN:
        url = told.said(feature, key)
        if url and host_in(url) not in (member.name.lower(), member.host.lower(), "localhost", "127.0.0.1", "::1"):
            yield _finding(
                "ADOPT-PULP-URL", member.name, f"{feature}.yml: {key} is {_without_user(url)}, not the member's own",
                effect, f"https://{member.name}, then refresh the Smart Proxy's features in Foreman", "error",
            )  # fmt: skip


def _of_trust(member: AdoptedMember, told: RubySettings, own: set[str]) -> Iterator[Finding]:
    host = told.foreman_host
    if told.trusted_hosts is None:
        yield _finding(
            "ADOPT-TRUSTED", member.name, "settings.yml: trusted_hosts is absent",
            "then whoever has a certificate of its CA may call protected routes, and anybody over plain HTTP",
            "trusted_hosts with Foreman's name",
        )  # fmt: skip
    elif host and host not in told.trusted_hosts:
        yield _finding(
            "ADOPT-TRUSTED", member.name, f"settings.yml: trusted_hosts lacks Foreman ({host})",
            f"it has {_listed(told.trusted_hosts) or 'nobody'}" + (
                "; members trust each other" if set(told.trusted_hosts) & own else ""
            ),
            f"add {host}", "error",
        )  # fmt: skip


def _of_ports(site: Site, member: AdoptedMember, told: RubySettings) -> Iterator[Finding]:
    for name, key, port in (("smartproxy", "https_port", told.https_port), ("anaconda", "http_port", told.http_port)):
        service = next((s for s in site.services if s.name == name), None)
        led = next((p for s, p in service.servers if s.host in member.hosts), None) if service is not None else None
        if port is not None and led is not None and port != led:
            yield _finding(
                "ADOPT-PORT", member.name, f"settings.yml: {key} is {port}, and {name} is led to port {led}",
                "what answers there is not the Smart Proxy, or nothing", "make them the same", "error",
            )  # fmt: skip


def _of_differences(site: Site) -> Iterator[Finding]:
    own = {m.name.lower() for m in site.members}
    told = {m.name: site.settings[m.name.lower()] for m in site.members if m.name.lower() in site.settings}
    if len(told) < 2:
        return
    everywhere = set().union(*(t.features for t in told.values()))
    for feature in sorted(everywhere):
        without = [name for name, t in told.items() if feature not in t.features]
        if without:
            yield _finding(
                "ADOPT-FEATURES", _listed(without), f"{feature} is not enabled, and on other members it is",
                "clients get another answer from one member than from the next", "enable it on all, or on none",
            )  # fmt: skip
    for what, values in (
        ("foreman_url", {n: t.foreman_url for n, t in told.items()}),
        ("trusted_hosts", {n: _listed(sorted({*(t.trusted_hosts or ())} - own)) for n, t in told.items()}),
        ("limits of TLS", {n: json.dumps(t.tls, sort_keys=True, default=str) for n, t in told.items()}),
        *(
            (f"{feature}: {key}", {n: t.said(feature, key) for n, t in told.items() if feature in t.features})
            for feature, key, _ in _WANTED
        ),
    ):
        if len(set(values.values())) > 1:
            yield _finding(
                "ADOPT-SETTINGS-DIFFER", _listed(values), f"{what} differs between members",
                "; ".join(f"{name}: {_without_user(value) or 'nothing'}" for name, value in list(values.items())[:5]),
                "make them the same", "warning",
            )  # fmt: skip


def _listed(names: Iterable[str]) -> str:
    listed = list(dict.fromkeys(str(n) for n in names))
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
