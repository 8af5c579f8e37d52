"""Every service on every member, directly under the cluster's name, through each balancer, and from outside.

This is the table an administrator makes by hand with ``/etc/hosts`` entries (first seed document, "Help! Something doesn't
work!"): point a client at one member after another, then at the balancer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing, Service
from muster.cluster.file import ClusterFile
from muster.doctor.checks import unusable
from muster.foreman import questions
from muster.kernel.errors import MusterError
from muster.kernel.findings import Finding
from muster.kernel.names import in_url, shown
from muster.observed.parity import compared
from muster.pki.checks import of_complaint
from muster.pki.context import client_context
from muster.pki.verify import verify_port

THROUGH_BALANCER = "balancer"
AT_THE_ADDRESS = "address"
FROM_OUTSIDE = "outside"
# Each is a descriptor or two, of which a shell gives 1024; what cannot be opened would look like nobody who answers.
AT_ONCE = 200
_PUPPETCA = "puppetca"


@dataclass(frozen=True)
class Entrance:
    """A place where clients reach the services.

    Attributes:
        path: the word for it in cells.
        words: the same in a sentence: *through the balancer*.
    """

    path: str
    host: str
    words: str

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "host": self.host, "words": self.words}


def entrances(cluster: ClusterFile, balancer_host: str | None = None, outside: str | None = None) -> list[Entrance]:
    """Return where to ask: each balancer at an address of its own, the address they share, and outside. No host twice.

    The first is always ``balancer``: where the first balancer listens, when that is one address, else the cluster's
    address. ``balancer_host`` is asked instead of what the file says; ``outside`` is where clients of another network reach
    the balancer: in front of an address translation or a firewall.
    """
    found = [Entrance(THROUGH_BALANCER, balancer_host, "through the balancer")] if balancer_host else _of_file(cluster)
    if outside:
        found.append(Entrance(FROM_OUTSIDE, outside, "from outside"))
    return found


def _of_file(cluster: ClusterFile) -> list[Entrance]:
    if not cluster.balancers:
        return []
    address, first = str(cluster.address), cluster.balancers[0]
    target = first.bind if first.bind != "*" else address
    if len(cluster.balancers) == 1:
        return [Entrance(THROUGH_BALANCER, target, "through the balancer")]
    virtual = cluster.virtual_address.address.partition("/")[0] if cluster.virtual_address else ""
    # These lead to one of the balancers, whichever it is; a dead one shows only at an address of its own.
    shared = {address, virtual}
    found = [Entrance(THROUGH_BALANCER, target, "at the address" if target in shared else f"through {first.name}")]
    for balancer in cluster.balancers:
        own = balancer.bind if balancer.bind != "*" else balancer.address
        if own not in shared:
            found.append(Entrance(f"{THROUGH_BALANCER} {balancer.name}", own, f"through {balancer.name}"))
    if virtual and target not in shared:
        found.append(Entrance(AT_THE_ADDRESS, address, "at the address"))
    distinct: dict[str, Entrance] = {}
    for entrance in found:
        distinct.setdefault(entrance.host, entrance)
    return list(distinct.values())


@dataclass(frozen=True, slots=True)
class _Way:
    """One path to one port; ``words`` say it in a sentence."""

    path: str
    host: str
    port: int
    words: str

    @property
    def place(self) -> str:
        return f"{self.host} port {self.port}"

    @property
    def url(self) -> str:
        return f"{in_url(self.host)}:{self.port}"


@dataclass(frozen=True)
class Cell:
    """One service over one path.

    Attributes:
        path: a member's name for the direct path, or an entrance's.
        ok: whether nothing is wrong; also of a member that is not asked, because it is in maintenance.
        words: what answered, or why nothing useful did.
        version: what a Smart Proxy tells Foreman of itself; empty where none was asked.
    """

    service: str
    path: str
    place: str
    ok: bool
    words: str
    findings: tuple[Finding, ...] = ()
    asked: bool = True
    version: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "path": self.path,
            "place": self.place,
            "asked": self.asked,
            "ok": self.ok,
            "words": self.words,
        }


@dataclass(frozen=True)
class Prober:
    """Asks as a client of the cluster would.

    Attributes:
        certificate: client certificate to show (with its key), None to show none.
        puppet_ca: bundle of the Puppet CA that members are; None: service ``puppetca`` is somebody else's.
        lacks_bundle: members are the Puppet CA, and neither the store nor this host knows its bundle: it is not asked.
        resting: members in maintenance, lower case: they are not asked.
        site_ca_file: who else may have issued the certificates of Ruby members.
        ruby: these, lower case. A balancer may lead to any member.
        aliases: further names that clients use. Each member's certificate must carry them and the member's own, which
            shows on the member: a balancer leads to any of them.
    """

    balancing: Balancing
    ca_file: Path
    certificate: Path | None
    key: Path | None
    now: datetime
    timeout_s: float = 5.0
    puppet_ca: Path | None = None
    resting: frozenset[str] = frozenset()
    lacks_bundle: bool = False
    site_ca_file: Path | None = None
    ruby: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()

    def _also(self, way: _Way) -> tuple[Path, ...]:
        """Return the CA files that count beside the cluster's for who answers there."""
        is_ruby = way.path in self.ruby or (bool(self.ruby) and not self._is_member(way.path))
        return (self.site_ca_file,) if self.site_ca_file is not None and is_ruby else ()

    def _is_member(self, path: str) -> bool:
        return any(v.name == path for s in self.balancing.services for v in s.servers)

    async def cells(self, ways_in: Sequence[Entrance]) -> list[Cell]:
        """Return a cell per service and path, services in the model's order; members, then the entrances.

        Of a service with several ports an entrance's cell is of the first, or of the first that does not answer.
        """
        wanted = [
            (s, way)
            for s in self.balancing.services
            for way in (
                *(_Way(v.name, v.address, v.port, f"on {v.name}") for v in s.servers),
                *(_Way(e.path, e.host, port, e.words) for e in ways_in for port in s.listen_ports),
            )
        ]
        room = asyncio.Semaphore(AT_ONCE)

        async def asked(service: Service, way: _Way) -> Cell:
            async with room:
                return await self._cell(service, way)

        found: dict[tuple[str, str], Cell] = {}
        for cell in await asyncio.gather(*(asked(service, way) for service, way in wanted)):
            first = found.setdefault((cell.service, cell.path), cell)
            if first.ok and not cell.ok:
                found[cell.service, cell.path] = cell
        return list(found.values())

    async def _cell(self, service: Service, way: _Way) -> Cell:
        if way.path in self.resting:
            return Cell(service.name, way.path, way.place, True, "maintenance", asked=False)
        if service.traffic == "plain":
            return await self._plain(service, way)
        if service.name == _PUPPETCA and self.lacks_bundle:
            # Verified by another CA's, a healthy one would be condemned; why there is none is a finding of its own.
            return Cell(service.name, way.path, way.place, True, "not asked: its bundle is unknown here", asked=False)
        try:
            return await self._tls(service, way)
        except MusterError as e:
            # One of our own files is no use; it is so for every cell.
            return Cell(service.name, way.path, way.place, False, str(e), (unusable(self.ca_file.parent, e),))

    async def _tls(self, service: Service, way: _Way) -> Cell:
        ca_file, certificate, key, also = self.ca_file, self.certificate, self.key, self._also(way)
        if service.name == _PUPPETCA and self.puppet_ca is not None:
            # Its certificates are Puppet's, and agents ask it before they have any.
            ca_file, certificate, key, also = self.puppet_ca, None, None, ()
        complaints = await verify_port(
            way.host,
            way.port,
            server_name=self.balancing.address,
            ca_file=ca_file,
            certificate=certificate,
            key=key,
            now=self.now,
            timeout_s=self.timeout_s,
            also=also,
            names=(way.path, *self.aliases) if self._is_member(way.path) else (),
        )
        about = f"{service.name} on {way.path}"
        findings = tuple(of_complaint(c, about) for c in complaints)
        errors = [f for f in findings if f.severity == "error"]
        if errors:
            return Cell(service.name, way.path, way.place, False, errors[0].sentence, findings)
        if service.name == _PUPPETCA and self.puppet_ca is not None:
            return await self._signing(service, way, findings)
        if service.name != "smartproxy":
            return Cell(service.name, way.path, way.place, True, "TLS answers with the right names", findings)
        return await self._smart_proxy(service, way, findings)

    async def _signing(self, service: Service, way: _Way, findings: tuple[Finding, ...]) -> Cell:
        assert self.puppet_ca is not None  # noqa: S101 - the caller's condition
        try:
            async with questions.opened(
                f"https://{way.url}",
                context=client_context(self.puppet_ca),
                server_name=self.balancing.address,
                timeout_s=self.timeout_s,
            ) as authority:
                answer = await authority.ask("/status/v1/simple/ca")
        except MusterError as e:
            return _failing(service, way, str(e), findings)
        if answer.status != 200:
            why = f"the Puppet CA says {answer.text[:80]} ({answer.status})"
            return _failing(service, way, why, findings)
        return Cell(service.name, way.path, way.place, True, "signs", findings)

    async def _smart_proxy(self, service: Service, way: _Way, findings: tuple[Finding, ...]) -> Cell:
        context = client_context(self.ca_file, self.certificate, self.key, also=self._also(way))
        url = f"https://{way.url}"
        try:
            async with questions.opened(
                url, context=context, server_name=self.balancing.address, timeout_s=self.timeout_s
            ) as proxy:
                answer = (await proxy.call("/version")).json()
        except MusterError as e:
            return _failing(service, way, str(e), findings)
        modules = answer.get("modules", {}) if isinstance(answer, dict) else None
        if not isinstance(modules, dict):
            why = f"{url} answers /version with no version of a Smart Proxy: {shown(answer)}"
            return _failing(service, way, why, findings)
        said = shown(str(answer.get("version") or ""))
        words = f"version {said or 'unknown'}, {len(modules)} feature{'s' if len(modules) != 1 else ''}"
        return Cell(service.name, way.path, way.place, True, words, findings, version=said)

    async def _plain(self, service: Service, way: _Way) -> Cell:
        try:
            async with questions.opened(
                f"http://{way.url}",
                context=None,
                server_name=None,
                timeout_s=self.timeout_s,
            ) as proxy:
                answer = await proxy.ask("/features" if service.name == "anaconda" else "/")
        except MusterError as e:
            return _failing(service, way, str(e))
        if answer.status >= 500:
            why = f"answers {answer.status}"
            return Cell(
                service.name, way.path, way.place, False, why, (_not_serving(service, way, f"{way.place} {why}"),)
            )
        return Cell(service.name, way.path, way.place, True, f"HTTP answers {answer.status}")


def versions(cluster: ClusterFile, cells: Sequence[Cell]) -> list[Finding]:
    """Return what it means that members tell Foreman different versions, as far as the cluster file does not declare it."""
    told = {c.path: c.version for c in cells if c.version}
    by_member = {str(m.name): {"version": v} for m in cluster.members if (v := told.get(str(m.name).lower()))}
    return [
        Finding(
            "MEMBER-VERSIONS",
            cluster.cluster,
            f"Members tell Foreman different versions: {', '.join(f'{m} {d.values[m]}' for m in sorted(d.values))}",
            "An upgrade is under way, or stopped half way.",
            "Upgrade the rest; drain one member at a time. Members of kind muster tell Foreman's own, or foreman.version.",
            "warning",
        )
        for d in compared(by_member, cluster.expected_differences)
        if d.differing
    ]


def _failing(service: Service, way: _Way, why: str, findings: tuple[Finding, ...] = ()) -> Cell:
    return Cell(service.name, way.path, way.place, False, why, (*findings, _not_serving(service, way, why)))


def _not_serving(service: Service, way: _Way, why: str) -> Finding:
    return Finding(
        "SERVICE-DOWN",
        f"{service.name} on {way.path}",
        f"Service {service.name} does not work {way.words}: {why}",
        "Nothing serves the port, or what serves it is not what the generation has there.",
        "Start the program that serves it, or disable the service in the cluster file (services: enabled: false).",
    )
