"""Where an origin may lead: whoever runs it has no say about what lies in a member's own networks."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from muster.content.backend import BadGateway
from muster.kernel.names import shown

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# What of IPv6 is given out for everybody; the rest is for special ends, whatever a table says of it.
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAMES = ("localhost", "localhost.localdomain")


class Private(BadGateway):
    """A host to which an origin leads is not a public one."""

    @classmethod
    def host(cls, host: str, address: str) -> Private:
        """Return the error about a host with an address."""
        same = "is" if host.strip("[]") == address else f"has the address {shown(address)}, which is"
        return cls(f"{shown(host)} {same} not public")


def is_public(address: str) -> bool:
    """Whether an address is routed everywhere, and so is the one that is wrapped in it; false for what is none."""
    try:
        return _is_public(ipaddress.ip_address(address))
    except ValueError:
        return False


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    inner = address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is not None:
        return _is_public(inner)
    # Of Teredo both the server and the client are wrapped; nobody has packages there.
    return address in _GIVEN_OUT and address.is_global and address.teredo is None


def literal(host: str) -> str | None:
    """Return the address that a host's name is, in whatever form a resolver would take for one; None: it is a name."""
    bare = host.strip("[]").rstrip(".").lower()
    if bare in _LOCAL_NAMES or bare.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        # Hexadecimal, octal, and of less than four parts.
        return socket.inet_ntoa(socket.inet_aton(bare))
    except (OSError, UnicodeError):
        return None


def refuse_private(host: str) -> None:
    """Refuse a host that is an address, unless that is public.

    Raises:
        Private: it is not.
    """
    address = literal(host)
    if address is not None and not is_public(address):
        raise Private.host(host, address)


class Public(AbstractResolver):
    """Resolves names to public addresses alone. What it returns is what is connected to: nobody asks a second time."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return all addresses of a host.

        Raises:
            Private: one of them is not public; whoever has such a one beside others means no good.
        """
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if not is_public(one["host"]):
                raise Private.host(host, one["host"])
        return found

    async def close(self) -> None:
        """Leave what is asked to whoever opened it."""
