"""Discovered machines, as members ask them: at an address, over TLS that proves nothing by default, in bounded time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from muster.content import backend as backends
from muster.content.backend import BadGateway, GatewayTimeout, Patience, once
from muster.features.discovery.settings import DiscoverySettings
from muster.kernel.errors import Rejected
from muster.kernel.names import in_url, ip_address, shown
from muster.pki.context import RenewedContext

LARGEST_ANSWER_BYTES = 4 << 20
"""The longest answer that is passed on: a machine's facts."""

Address = IPv4Address | IPv6Address
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Said:
    """What a machine answered."""

    status: int
    body: bytes


class Nodes:
    """Every machine that may be asked.

    Args:
        context: returns what TLS is made with; not asked where machines are asked over plain HTTP.
    """

    def __init__(self, settings: DiscoverySettings, context: Callable[[], ssl.SSLContext] | None) -> None:
        self._settings = settings
        self._context = context

    def address(self, text: str) -> Address:
        """Return the address of a machine that may be asked.

        Raises:
            Rejected: it is no IP address, or none at which discovered machines are.
        """
        found = ip_address(text)
        if isinstance(found, IPv6Address):
            if found.scope_id is not None:
                raise Rejected(f"Invalid IP address {shown(text)}: it counts on one link of one member alone")
            # So written, an address of IPv4 would pass every rule for IPv4.
            found = found.ipv4_mapped or found
        if not _may_be_asked(found, self._settings.node_networks):
            named = ", ".join(map(str, self._settings.node_networks))
            why = f"node_networks has {named}" if named else "no other host is there"
            raise Rejected(f"Discovered machines are not asked at {found}: {why}")
        return found

    async def ask(
        self,
        method: str,
        at: Address,
        path: str,
        *,
        body: bytes = b"",
        hold: Callable[[int], None] = lambda _: None,
    ) -> Said:
        """Ask one machine and return its whole answer, whatever its status. ``hold`` counts the answer's bytes.

        Raises:
            Unavailable: it cannot be reached, or broke off; whether it does what it was told is unknown.
            GatewayTimeout: it did not answer in time.
            BadGateway: what it answered cannot be passed on.
        """
        settings = self._settings
        name, url = f"the machine at {at}", f"{settings.node_scheme}://{in_url(str(at))}:{settings.node_port}"
        patience = Patience(min(_CONNECT_S, settings.node_timeout_s), settings.node_timeout_s, settings.node_timeout_s)
        headers: list[tuple[str, str]] = [("Accept", "application/json"), ("Accept-Encoding", "identity")]
        if body:
            headers.append(("Content-Type", "application/json"))
        # Machines come and go: nothing of one is kept for whoever has its address next. All of an answer is read ahead:
        # uvloop drops what a reader that pauses has not read yet, where the other side ends without TLS' own goodbye.
        try:
            async with (
                asyncio.timeout(settings.node_timeout_s),
                backends.opened(
                    name, url, patience, context=self._context, kept=False, buffer_bytes=LARGEST_ANSWER_BYTES
                ) as node,
            ):
                got = await node.ask(method, path, headers, once(body) if body else None, len(body) if body else None)
                whole = await got.whole(LARGEST_ANSWER_BYTES, hold=hold)
        except TimeoutError:
            raise GatewayTimeout(f"{name} did not answer within {settings.node_timeout_s:g} s") from None
        if whole is None:
            raise BadGateway(f"{name} answered more than {LARGEST_ANSWER_BYTES >> 20} MiB, which is not passed on")
        if 300 <= got.status < 400 or got.status == 206:
            raise BadGateway(f"{name} answered {got.status}, which is not followed")
        told = {k.lower(): v.strip().lower() for k, v in got.headers}
        if told.get("content-encoding", "identity") != "identity":
            raise BadGateway(f"{name} answered in a coding that was not asked for")
        return Said(got.status, whole)


def _may_be_asked(address: Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if networks:
        return any(address.version == n.version and address in n for n in networks)
    return not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        or (isinstance(address, IPv4Address) and address in _THIS_NETWORK)
    )  # fmt: skip


# RFC 1122 §3.2.1.3: on Linux all of it is this host.
_THIS_NETWORK = IPv4Network("0.0.0.0/8")


def context_of(settings: DiscoverySettings) -> Callable[[], ssl.SSLContext] | None:
    """Return what TLS to machines is made with; None: it is not used.

    Raises:
        Misconfigured: ``node_ca_file`` cannot be used.
    """
    if settings.node_scheme == "http":
        return None
    if settings.node_ca_file is not None:
        return RenewedContext(settings.node_ca_file)
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.minimum_version = ssl.TLSVersion.TLSv1_2
    # The image signs its own, new at each boot, with its address for a common name: nobody could know it before.
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    return lambda: unverified
