"""Who may call: trusted hosts, then the client certificate, in the Ruby proxy's order and words (protocol reference §3)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from muster.edge.request import Request
from muster.edge.routes import Access
from muster.kernel.errors import Denied
from muster.kernel.names import shown


class Names(Protocol):
    """Reverse and forward resolution: the hosts file, then DNS. Raises OSError with the resolver's words."""

    async def reverse(self, address: str) -> str: ...

    async def forward(self, name: str) -> Sequence[str]: ...


@dataclass(frozen=True)
class SystemNames:
    """The machine's resolver, in a thread, never longer than ``timeout_s``."""

    timeout_s: float = 5.0

    async def reverse(self, address: str) -> str:
        return str((await self._within(socket.gethostbyaddr, address))[0])

    async def forward(self, name: str) -> Sequence[str]:
        found = await self._within(socket.getaddrinfo, name, None, 0, socket.SOCK_STREAM)
        return [str(f[4][0]) for f in found]

    async def _within(self, ask: Callable[..., Any], *arguments: object) -> Any:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await loop.run_in_executor(None, ask, *arguments)
        except TimeoutError:
            raise OSError(f"the resolver did not answer within {self.timeout_s:g} s") from None
        except UnicodeError as e:
            raise OSError(f"not a host name: {e}") from e


@dataclass
class Gate:
    """Decides each call; refusals are :class:`Denied` with the Ruby proxy's text.

    Attributes:
        trusted_hosts: lower-case names; None skips the check, an empty set refuses everybody.
    """

    trusted_hosts: frozenset[str] | None
    forward_verify: bool = True
    names: Names = field(default_factory=SystemNames)

    async def admit(self, access: Access, request: Request) -> None:
        """Return when the caller may call.

        Raises:
            Denied: with the reason.
        """
        if access is Access.TRUSTED:
            if self.trusted_hosts is not None:
                await self._check_trusted(request, self.trusted_hosts)
            if request.over_tls and request.peer.certificate is None:
                raise Denied("No client SSL certificate supplied")
        elif access is Access.CLUSTER:
            self._check_cluster(request)

    async def _check_trusted(self, request: Request, trusted: frozenset[str]) -> None:
        name = _certified_name(request) if request.over_tls else await self._resolved_name(request.peer.address)
        if name.lower() not in trusted:
            raise Denied(
                f"Untrusted client {name.lower()} attempted to access {shown(request.path)}. "
                "Check :trusted_hosts: in settings.yml"
            )

    async def _resolved_name(self, address: str) -> str:
        # A scoped IPv6 address has no PTR record; the Ruby proxy compares it as it is.
        if "%" in address:
            return address
        try:
            name = await self.names.reverse(address)
        except OSError as e:
            raise Denied(f"unable to resolve hostname for ip address {address}\n\n{_words(e)}") from e
        if not self.forward_verify:
            return name
        try:
            addresses = await self.names.forward(name)
        except OSError as e:
            text = f"could not forward verify the remote hostname - {name} ({address})\n\n{_words(e)}"
            raise Denied(text) from e
        if not any(_same_address(a, address) for a in addresses):
            raise Denied(f"untrusted client has no matching forward DNS lookup - {name} ({address})")
        return name

    def _check_cluster(self, request: Request) -> None:
        if request.over_tls:
            if request.peer.certificate is None:
                raise Denied("No client SSL certificate supplied")
        elif not ipaddress.ip_address(request.peer.address.partition("%")[0]).is_loopback:
            raise Denied("Only clients on this host may ask this without TLS")


def _certified_name(request: Request) -> str:
    if request.peer.certificate is None:
        raise Denied("could not read client cert from environment")
    name = request.peer.name
    if not name:
        raise Denied("could not read CN from the client certificate")
    return name


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one.partition("%")[0]) == ipaddress.ip_address(other)
    except ValueError:
        return False


def _words(error: OSError) -> str:
    return str(error.strerror or error)
