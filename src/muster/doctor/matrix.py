"""Every service on every member, directly under the cluster's name, through the balancer, and from outside.

This is the table an administrator makes by hand with ``/etc/hosts`` entries (first seed document, "Help! Something doesn't
work!"): point a client at one member after another, then at the balancer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing, Service
from muster.doctor.checks import unusable
from muster.foreman import smart_proxy
from muster.kernel.errors import MusterError
from muster.kernel.findings import Finding
from muster.kernel.names import in_url
from muster.pki.checks import of_complaint
from muster.pki.context import client_context
from muster.pki.verify import verify_port

THROUGH_BALANCER = "balancer"
FROM_OUTSIDE = "outside"
_PUPPETCA = "puppetca"


@dataclass(frozen=True)
class Cell:
    """One service over one path.

    Attributes:
        path: a member's name for the direct path, ``balancer`` or ``outside``.
        words: what answered, or why nothing useful did.
    """

    service: str
    path: str
    place: str
    ok: bool
    words: str
    findings: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"service": self.service, "path": self.path, "place": self.place, "ok": self.ok, "words": self.words}


@dataclass(frozen=True)
class Prober:
    """Asks as a client of the cluster would.

    Attributes:
        certificate: client certificate to show (with its key), None to show none.
        puppet_ca: bundle of the Puppet CA that members are; None: service ``puppetca`` is somebody else's.
    """

    balancing: Balancing
    ca_file: Path
    certificate: Path | None
    key: Path | None
    now: datetime
    timeout_s: float = 5.0
    puppet_ca: Path | None = None

    async def cells(self, balancer_host: str | None, outside: str | None = None) -> list[Cell]:
        """Return a cell per service and path, services in the model's order; members, then balancer, then outside.

        ``outside`` is where clients of another network reach the balancer: in front of an address translation or a
        firewall.
        """
        entrances = [(p, h) for p, h in ((THROUGH_BALANCER, balancer_host), (FROM_OUTSIDE, outside)) if h]
        wanted = [
            (s, *way)
            for s in self.balancing.services
            for way in (
                *((v.name, v.address, v.port) for v in s.servers),
                *((path, host, s.listen_port) for path, host in entrances),
            )
        ]
        return list(await asyncio.gather(*(self._cell(*one) for one in wanted)))

    async def _cell(self, service: Service, path: str, host: str, port: int) -> Cell:
        place = f"{host} port {port}"
        if service.traffic == "plain":
            return await self._plain(service, path, host, port)
        try:
            return await self._tls(service, path, host, port)
        except MusterError as e:
            # One of our own files is no use; it is so for every cell.
            return Cell(service.name, path, place, False, str(e), (unusable(self.ca_file.parent, e),))

    async def _tls(self, service: Service, path: str, host: str, port: int) -> Cell:
        place = f"{host} port {port}"
        ca_file, certificate, key = self.ca_file, self.certificate, self.key
        if service.name == _PUPPETCA and self.puppet_ca is not None:
            # Its certificates are Puppet's, and agents ask it before they have any.
            ca_file, certificate, key = self.puppet_ca, None, None
        complaints = await verify_port(
            host,
            port,
            server_name=self.balancing.address,
            ca_file=ca_file,
            certificate=certificate,
            key=key,
            now=self.now,
            timeout_s=self.timeout_s,
        )
        about = f"{service.name} on {path}"
        findings = tuple(of_complaint(c, about) for c in complaints)
        errors = [f for f in findings if f.severity == "error"]
        if errors:
            return Cell(service.name, path, place, False, errors[0].sentence, findings)
        if service.name == _PUPPETCA and self.puppet_ca is not None:
            return await self._signing(service, path, host, port, findings)
        if service.name != "smartproxy":
            return Cell(service.name, path, place, True, "TLS answers with the right names", findings)
        return await self._smart_proxy(service, path, host, port, findings)

    async def _signing(self, service: Service, path: str, host: str, port: int, findings: tuple[Finding, ...]) -> Cell:
        place = f"{host} port {port}"
        assert self.puppet_ca is not None  # noqa: S101 - the caller's condition
        try:
            async with smart_proxy.opened(
                f"https://{in_url(host)}:{port}",
                context=client_context(self.puppet_ca),
                server_name=self.balancing.address,
                timeout_s=self.timeout_s,
            ) as authority:
                answer = await authority.ask("GET", "/status/v1/simple/ca")
        except MusterError as e:
            return Cell(service.name, path, place, False, str(e), (*findings, _not_serving(service, path, str(e))))
        if answer.status != 200:
            why = f"the Puppet CA says {answer.text[:80]} ({answer.status})"
            return Cell(service.name, path, place, False, why, (*findings, _not_serving(service, path, why)))
        return Cell(service.name, path, place, True, "signs", findings)

    async def _smart_proxy(
        self, service: Service, path: str, host: str, port: int, findings: tuple[Finding, ...]
    ) -> Cell:
        place = f"{host} port {port}"
        context = client_context(self.ca_file, self.certificate, self.key)
        url = f"https://{in_url(host)}:{port}"
        try:
            async with smart_proxy.opened(
                url, context=context, server_name=self.balancing.address, timeout_s=self.timeout_s
            ) as proxy:
                version = (await proxy.call("GET", "/version")).json()
        except MusterError as e:
            return Cell(service.name, path, place, False, str(e), (*findings, _not_serving(service, path, str(e))))
        count = len(version.get("modules", {}))
        words = f"version {version.get('version')}, {count} feature{'s' if count != 1 else ''}"
        return Cell(service.name, path, place, True, words, findings)

    async def _plain(self, service: Service, path: str, host: str, port: int) -> Cell:
        place = f"{host} port {port}"
        try:
            async with smart_proxy.opened(
                f"http://{in_url(host)}:{port}",
                context=None,
                server_name=None,
                timeout_s=self.timeout_s,
            ) as proxy:
                answer = await proxy.ask("GET", "/features" if service.name == "anaconda" else "/")
        except MusterError as e:
            return Cell(service.name, path, place, False, str(e), (_not_serving(service, path, str(e)),))
        if answer.status >= 500:
            why = f"answers {answer.status}"
            return Cell(service.name, path, place, False, why, (_not_serving(service, path, f"{place} {why}"),))
        return Cell(service.name, path, place, True, f"HTTP answers {answer.status}")


def _not_serving(service: Service, path: str, why: str) -> Finding:
    where = {THROUGH_BALANCER: "through the balancer", FROM_OUTSIDE: "from outside"}.get(path, f"on {path}")
    return Finding(
        "SERVICE-DOWN",
        f"{service.name} on {path}",
        f"Service {service.name} does not work {where}: {why}",
        "Nothing serves the port, or what serves it is not what the profile expects there.",
        "Start the program that serves it, or disable the service in the cluster file (services: enabled: false).",
    )
