"""The cluster file that says what somebody's HAProxy and its members' settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.balancer.generations import GENERATIONS, KNOWN
from muster.balancer.haproxy.found import Found
from muster.cluster.values import address_of
from muster.foreman.ruby_settings import RubySettings, host_in
from muster.kernel.errors import Rejected
from muster.kernel.findings import Finding
from muster.observed.adoption.findings import Site, balance_of, findings, traffic_of
from muster.observed.adoption.services import AdoptedMember, AdoptedService, adopted_members, adopted_services

DEFAULT_STORE = "sqlite:////var/lib/muster/muster.db"
_STANDARD_WEIGHT = 100


@dataclass(frozen=True)
class Told:
    """What neither HAProxy's file nor the settings say.

    Attributes:
        address: None: what the settings say.
        members: where each name is reached.
        balancer: name and address of the balancer's host; None: the address on which HAProxy listens.
        generation: None: what the ports say.
    """

    address: str | None = None
    members: Mapping[str, str] = field(default_factory=dict)
    balancer: tuple[str, str] | None = None
    generation: str | None = None
    cluster: str = "proxies"
    store: str = DEFAULT_STORE


@dataclass(frozen=True)
class Adoption:
    """The cluster file as plain data, and what is wrong with what it was made from.

    Attributes:
        remarks: a sentence for a part of the content, by its place.
    """

    content: Mapping[str, Any]
    remarks: Mapping[tuple[str, ...], str]
    findings: tuple[Finding, ...]


def adopted(found: Found, settings: Mapping[str, RubySettings], told: Told, path: str = "haproxy.cfg") -> Adoption:
    """Return the cluster that stands there already, in the cluster file's words.

    ``settings`` are those of members by name, of some or none.

    Raises:
        Rejected: what is needed stands nowhere; the sentence says which option tells it.
    """
    generation, services = adopted_services(found, told.generation)
    if not services:
        raise Rejected(f"{path} leads no port to any server: there is nothing to adopt")
    members = adopted_members(services, told.members)
    _refuse_strangers(members, settings, told)
    by_name = {name.lower(): one for name, one in settings.items()}
    address = told.address or _address(settings)
    site = Site(path, found, generation, services, members, by_name, address, _signer(services, members))
    remarks: dict[tuple[str, ...], str] = {("services", s.name): f"{path} line {s.line}" for s in services}
    content = {
        "schema": 1,
        "cluster": told.cluster,
        "address": address,
        **_aliases(site),
        "generation": generation,
        "store": {"url": told.store},
        **_foreman(site, remarks),
        "members": _members(site),
        "balancers": [_balancer(found, told, path)],
        **({"signer": site.signer} if site.signer else {}),
        **_services(site, remarks),
    }
    return Adoption(content, remarks, (*findings(site), *_weights_differ(site)))


def _refuse_strangers(members: Sequence[AdoptedMember], settings: Mapping[str, RubySettings], told: Told) -> None:
    known = {m.name.lower() for m in members}
    for option, names in (("--settings", settings), ("--member", told.members)):
        strangers = [name for name in names if name.lower() not in known]
        if strangers:
            raise Rejected(
                f"{option} {strangers[0]}: HAProxy leads to no member of that name; it leads to "
                f"{', '.join(m.name for m in members)}"
            )


def _address(settings: Mapping[str, RubySettings]) -> str:
    hosts = {host_in(one.said("registration", "registration_url")) for one in settings.values()} - {""}
    if len(hosts) == 1:
        return hosts.pop()
    what = f"registration_url leads to {', '.join(sorted(hosts))}" if hosts else "no settings say it (registration_url)"
    raise Rejected(f"Which name do clients use? {what}: --address NAME")


def _aliases(site: Site) -> dict[str, Any]:
    """Return the further names that clients were given; every member's certificate has to carry them."""
    own = {site.address.lower(), *(n.lower() for m in site.members for n in (m.name, m.host))}
    own |= {one.foreman_host for one in site.settings.values()}
    urls = (("registration", "registration_url"), ("templates", "template_url"), ("pulpcore", "content_app_url"),
            ("pulpcore", "rhsm_url"), ("container_gateway", "client_endpoint"))  # fmt: skip
    named = {host_in(one.said(*url)) for one in site.settings.values() for url in urls}
    further = sorted(h for h in named - own if h and address_of(h) is None)
    return {"aliases": further} if further else {}


def _foreman(site: Site, remarks: dict[tuple[str, ...], str]) -> dict[str, Any]:
    told = list(site.settings.values())
    urls = list(dict.fromkeys(one.foreman_url for one in told if one.foreman_host))
    own = {m.name.lower() for m in site.members}
    trusted = sorted({h for one in told for h in one.trusted_hosts or ()} - own)
    if told and told[0].ca_file:
        remarks["foreman",] = (
            f"Who issued the members' certificates ({told[0].ca_file} there): copied here, ca_file: PATH names it"
        )
    foreman: dict[str, Any] = {"url": urls[0].rstrip("/")} if urls else {}
    if trusted:
        foreman["trusted_hosts"] = trusted
    return {"foreman": foreman} if foreman else {}


def _signer(services: Sequence[AdoptedService], members: Sequence[AdoptedMember]) -> str | None:
    service = next((s for s in services if s.name == "puppetca"), None)
    return next(m.name for m in members if service.hosts[0] in m.hosts) if service is not None else None


def _members(site: Site) -> list[dict[str, Any]]:
    out = []
    for number, member in enumerate(site.members, 1):
        ports = {
            s.name: port
            for s in site.services
            for server, port in s.servers
            if server.host in member.hosts and port != s.member_port
        }
        weight = _weight(site, member)
        out.append(
            {
                "id": number, "name": member.name, "address": member.host, "kind": "foreman",
                **({"ports": ports} if ports else {}), **({"weight": weight} if weight != _STANDARD_WEIGHT else {}),
            }
        )  # fmt: skip
    return out


def _shares(service: AdoptedService) -> dict[str, int]:
    """Return each host's part of the largest weight, in hundredths; HAProxy's own default is 1."""
    weights = {s.host: 1 if s.weight is None else s.weight for s, _ in service.servers if s.weight != 0}
    most = max(weights.values(), default=1)
    return {host: max(1, round(_STANDARD_WEIGHT * weight / most)) for host, weight in weights.items()}


def _weight(site: Site, member: AdoptedMember) -> int:
    """Return the smallest share a member has of any service: it has one weight for all."""
    shares = [share for s in site.services for host, share in _shares(s).items() if host in member.hosts]
    return min(shares, default=_STANDARD_WEIGHT)


def _weights_differ(site: Site) -> list[Finding]:
    for member in site.members:
        own = {s.name: share for s in site.services for host, share in _shares(s).items() if host in member.hosts}
        if len(set(own.values())) > 1:
            listed = ", ".join(f"{name} {share}" for name, share in list(own.items())[:9])
            sentence = f"{member.name} has another weight from service to service"
            cause = f"of 100: {listed}"
            return [
                Finding(
                    "ADOPT-WEIGHTS", site.path, sentence, cause,
                    f"a member has one weight in the cluster file; the smallest is written ({min(own.values())})", "warning",
                )
            ]  # fmt: skip
    return []


def _balancer(found: Found, told: Told, path: str) -> dict[str, Any]:
    hosts = list(dict.fromkeys(b.host for front in found.fronts for b in front.binds if b.host))
    everywhere = any(not b.host for front in found.fronts for b in front.binds)
    name, address = told.balancer or ("balancer", hosts[0] if len(hosts) == 1 and not everywhere else "")
    if not address:
        where = f"on {', '.join(hosts[:5])}" if hosts else "on all addresses"
        raise Rejected(
            f"From which address does the balancer come to members? {path} listens {where}: --balancer NAME=IP"
        )
    bind = hosts[0] if len(hosts) == 1 and not everywhere else None
    return {"name": name, "address": address, **({"bind": bind} if bind else {})}


def _services(site: Site, remarks: dict[tuple[str, ...], str]) -> dict[str, Any]:
    out = {service.name: change for service in site.services if (change := _change(site, service))}
    offered = {s.name for s in site.services}
    for row in GENERATIONS[site.generation].rows:
        if row.name not in offered:
            out[row.name] = {"enabled": False}
            remarks["services", row.name] = f"{site.path} has nothing on port {row.listen_port}"
    return {"services": out} if out else {}


def _change(site: Site, service: AdoptedService) -> dict[str, Any]:
    row = service.row
    first, *further = service.ports
    balance = next((b for s in service.behind if (b := balance_of(s)) is not None), None)
    change: dict[str, Any] = {}
    if row is None or row.listen_port != first:
        change["listen_port"] = first
    if further:
        change["also_listen_ports"] = further
    if row is None or row.member_port != service.member_port:
        change["member_port"] = service.member_port
    if row is None and service.name not in KNOWN:
        change |= {"traffic": traffic_of(service), "check": "tcp"}
    known = row or KNOWN.get(service.name)
    if balance is not None and (known is None or known.balance != balance) and service.name != "puppetca":
        change["balance"] = balance
    signer = next((m for m in site.members if m.name == site.signer), None)
    if row is None and len(site.members) > 1 and signer is not None and set(service.hosts) <= signer.hosts:
        change["destinations"] = "signer"
    if not change and row not in GENERATIONS[site.generation].rows:
        # It is there once it is named.
        return {"enabled": True}
    return change
