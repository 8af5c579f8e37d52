"""Whether Puppet certificates come from one CA, and whether it can be reached."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.balancer.model import Balancing, Server, Service, signs_itself
from muster.cluster.file import ClusterFile
from muster.foreman import questions
from muster.foreman.answers import Answer
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.kernel.names import in_url
from muster.kernel.reasons import spoken

_TIMEOUT_S = 3.0
_CA_CERTIFICATE = "/puppet-ca/v1/certificate/ca"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member's puppetserver listens."""

    member: str
    address: str
    port: int


def checks(cluster: ClusterFile, balancing: Balancing) -> list[Check]:
    """Return the checks of service puppetca where members are no Puppet CA themselves; none when it is not offered."""
    service = balancing.service("puppetca")
    if service is None:
        return []

    async def reachable() -> Sequence[Finding]:
        why = await asyncio.gather(*(_refusal(s) for s in service.servers))
        return down(service, {s.name: w for s, w in zip(service.servers, why, strict=True) if w})

    async def one() -> Sequence[Finding]:
        said = await asyncio.gather(*(_ca(s.address, s.port) for s in service.servers))
        cas = {s.name: ca for s, ca in zip(service.servers, said, strict=True) if ca}
        return [*many(service), *different(cas)]

    return [Check("signer", reachable), Check("one Puppet CA", one), *beside(cluster, balancing)]


def beside(cluster: ClusterFile, balancing: Balancing) -> list[Check]:
    """Return the check that nobody else's puppetserver is a Puppet CA beside the one that signs; none where any may."""
    places = elsewhere(cluster, balancing)

    async def others() -> Sequence[Finding]:
        said = await asyncio.gather(*(_ca(p.address, p.port) for p in places))
        return second(cluster, [p for p, ca in zip(places, said, strict=True) if ca])

    return [Check("no second Puppet CA", others)] if places else []


def elsewhere(cluster: ClusterFile, balancing: Balancing) -> list[Place]:
    """Return where puppetservers listen that must be no Puppet CA, as far as the cluster file says."""
    ours = signs_itself(cluster)
    if cluster.signer == "any" and not ours:
        return []
    services = [balancing.service(n) for n in (("puppet",) if ours else ("puppetca", "puppet"))]
    own = cluster.authority.port if ours and cluster.authority else None
    members = [m for m in cluster.members if m.name != cluster.signer]
    return [
        Place(str(m.name), m.address, port)
        for m in members
        for port in sorted({m.ports.get(s.name, s.member_port) for s in services if s is not None} - {own})
    ]


def down(service: Service, refusals: Mapping[str, str]) -> list[Finding]:
    """Return what it means that these of the service's servers do not answer."""
    if not service.servers or len(refusals) < len(service.servers):
        return []
    return [
        Finding(
            "SIGNER-DOWN",
            f"{service.name} on {name}",
            f"The signer {name} takes no connection: {why}",
            "Puppet Server is stopped there, or a firewall lies between. New hosts get no certificate; others go on.",
            f"Start puppetserver on {name}; when the host is lost for good, muster ca promote makes another "
            "member the signer, from a copy of its CA.",
        )
        for name, why in refusals.items()
    ]


def many(service: Service) -> list[Finding]:
    """Return what it means that the service goes to several servers: a puppetserver shares its CA with no other."""
    if len(service.servers) < 2:
        return []
    names = [s.name for s in service.servers]
    return [
        Finding(
            "SIGNER-MANY",
            service.name,
            f"Service {service.name} goes to {', '.join(names[:-1])} and {names[-1]}, and each has a Puppet CA of its own",
            "destinations: all or signer: any lets every member's puppetserver sign. A host's request and its "
            "certificate are then of different CAs, or two hosts get the same serial.",
            f"Name one member in the cluster file (signer: NAME) and take destinations away from services: {service.name}:, "
            "or let members be one CA: authority: {}.",
        )
    ]


def different(cas: Mapping[str, str]) -> list[Finding]:
    """Return what it means that the servers have these Puppet CAs (a digest by server)."""
    if len(set(cas.values())) < 2:
        return []
    told = ", ".join(f"{name} {digest[:16]}" for name, digest in sorted(cas.items()))
    return [
        Finding(
            "SIGNER-DIFFERENT",
            "puppetca",
            f"The servers of service puppetca have different Puppet CAs: {told}",
            "Each made a CA of its own when it was installed. Hosts signed by one are refused by the others.",
            "Name one member in the cluster file (signer: NAME); sign the other's hosts again.",
        )
    ]


def second(cluster: ClusterFile, places: Sequence[Place]) -> list[Finding]:
    """Return what it means that these puppetservers are a Puppet CA, too."""
    who = "the members' own" if signs_itself(cluster) else f"the signer {cluster.signer}"
    return [
        Finding(
            "SIGNER-SECOND",
            f"puppetca on {p.member}",
            f"The puppetserver of {p.member} answers as a Puppet CA on {p.address} port {p.port}, beside {who}",
            "Its CA service is enabled. On a copy of the same CA it gives serials a second time, and what it revokes nobody "
            "learns; with a CA of its own it signs hosts that all others refuse.",
            "Disable its CA service (puppetserver's services.d/ca.cfg: certificate-authority-disabled-service), restart it.",
        )
        for p in places
    ]


async def asked(host: str, port: int, *, timeout_s: float = _TIMEOUT_S) -> Answer:
    """Ask whoever listens there for its Puppet CA.

    Its certificate is not verified, because it may be any Puppet CA's: what it says is compared, never used.

    Raises:
        MusterError: there was no answer.
    """
    # Not the default one, which reads every certificate the machine trusts, to no end here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with questions.opened(f"https://{in_url(host)}:{port}", context=context, timeout_s=timeout_s) as proxy:
        return await proxy.ask(_CA_CERTIFICATE)


def bundle_in(answer: Answer) -> str | None:
    """Return the CA bundle that somebody hands out, without its line ends; None when this is none."""
    is_pem = answer.status == 200 and "BEGIN CERTIFICATE" in answer.text
    return "".join(answer.text.split()) if is_pem else None


async def _refusal(server: Server) -> str | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(server.address, server.port)
    except TimeoutError:
        return f"{server.address} port {server.port}: no answer within {_TIMEOUT_S:g} s"
    except OSError as e:
        return f"{server.address} port {server.port}: {spoken(e)}"
    writer.close()
    return None


async def _ca(host: str, port: int) -> str | None:
    try:
        bundle = bundle_in(await asked(host, port))
    except MusterError:
        return None
    return hashlib.sha256(bundle.encode()).hexdigest() if bundle else None
