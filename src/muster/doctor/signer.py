"""Whether Puppet certificates come from one CA, and whether it can be reached."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping, Sequence

from muster.balancer.model import Balancing, Server, Service
from muster.cluster.file import ClusterFile
from muster.foreman import smart_proxy
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.kernel.names import in_url

_TIMEOUT_S = 3.0
_CA_CERTIFICATE = "/puppet-ca/v1/certificate/ca"


def checks(cluster: ClusterFile, balancing: Balancing, context: Callable[[], ssl.SSLContext | None]) -> list[Check]:
    """Return the checks of service puppetca; none when the balancer does not offer it."""
    service = balancing.service("puppetca")
    if service is None:
        return []

    async def reachable() -> Sequence[Finding]:
        why = await asyncio.gather(*(_refusal(s) for s in service.servers))
        return down(service, {s.name: w for s, w in zip(service.servers, why, strict=True) if w})

    async def one() -> Sequence[Finding]:
        tls = context()
        asked = await asyncio.gather(*(_ca(s, balancing.address, tls) for s in service.servers)) if tls else []
        cas = {s.name: ca for s, ca in zip(service.servers, asked, strict=True) if ca} if tls else {}
        return [*many(cluster, service), *different(cas)]

    return [Check("signer", reachable), Check("one Puppet CA", one)]


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


def many(cluster: ClusterFile, service: Service) -> list[Finding]:
    """Return what it means that the service goes to several servers that cannot share a CA."""
    ruby = {str(m.name).lower() for m in cluster.members if m.kind == "foreman"}
    alone = [s.name for s in service.servers if s.name in ruby]
    if len(service.servers) < 2 or not alone:
        return []
    return [
        Finding(
            "SIGNER-MANY",
            service.name,
            f"Service {service.name} goes to {len(service.servers)} servers, and {', '.join(alone)} "
            f"{'has' if len(alone) == 1 else 'have'} a Puppet CA of their own",
            "signer: any lets every member sign; a Ruby Smart Proxy's CA is not shared. A host's request and its "
            "certificate are then of different CAs.",
            "Name one member in the cluster file: signer: NAME.",
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


async def _refusal(server: Server) -> str | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(server.address, server.port)
    except TimeoutError:
        return f"{server.address} port {server.port}: no answer within {_TIMEOUT_S:g} s"
    except OSError as e:
        return f"{server.address} port {server.port}: {e.strerror or e}"
    writer.close()
    return None


async def _ca(server: Server, address: str, context: ssl.SSLContext) -> str | None:
    url = f"https://{in_url(server.address)}:{server.port}"
    try:
        async with smart_proxy.opened(url, context=context, server_name=address, timeout_s=_TIMEOUT_S) as proxy:
            answer = await proxy.ask("GET", _CA_CERTIFICATE)
    except MusterError:
        return None
    is_pem = answer.status == 200 and "BEGIN CERTIFICATE" in answer.text
    return hashlib.sha256(answer.text.strip().encode()).hexdigest() if is_pem else None
