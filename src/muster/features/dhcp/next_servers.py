"""Addresses of next servers that Foreman names, for DHCP servers that keep no names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

from muster.features.dhcp.contract import Reservation
from muster.kernel.errors import Rejected, Unavailable

_RESOLVED_WITHIN_S = 5.0
_LOOKED_UP_AT_ONCE = 4


class NextServers:
    """Looks names up. Use :func:`opened`. One event loop.

    Args:
        whose: the DHCP server, as it stands in messages: ``dhcpd``.
    """

    def __init__(self, whose: str, threads: ThreadPoolExecutor) -> None:
        self._whose = whose
        self._threads = threads

    async def resolved(self, reservation: Reservation) -> Reservation:
        """Return a reservation whose next server, if it has one, is an IPv4 address.

        Raises:
            Rejected: the name has no IPv4 address.
            Unavailable: nobody said so far whether it has.
        """
        name = reservation.options.get("nextServer")
        if name is None or is_address(name):
            return reservation
        address = await self._resolved(str(name))
        return replace(reservation, options={**reservation.options, "nextServer": str(address)})

    async def _resolved(self, name: str) -> IPv4Address:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVED_WITHIN_S):
                found = await loop.run_in_executor(self._threads, looked_up, name)
        except TimeoutError:
            raise Unavailable(f"Nobody told in {_RESOLVED_WITHIN_S:g} s which address {name} has") from None
        except (OSError, UnicodeError) as e:
            if isinstance(e, socket.gaierror) and e.errno == socket.EAI_AGAIN:
                raise Unavailable(f"The next server {name} cannot be looked up now: {e.strerror}") from e
            found = []
        if not found:
            raise Rejected(f"The next server {name} has no IPv4 address, and {self._whose} keeps no names")
        # Of several always the same one, in whatever order they come.
        return min(found)


def is_address(text: object) -> bool:
    """Whether a next server is an IPv4 address already."""
    try:
        IPv4Address(str(text))
    except ValueError:
        return False
    return True


def looked_up(name: str) -> list[IPv4Address]:
    """Return the IPv4 addresses of a name; blocks.

    Raises:
        OSError: it has none, or nobody knows.
    """
    found = socket.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return [IPv4Address(address[0]) for *_, address in found]


@contextmanager
def opened(whose: str) -> Iterator[NextServers]:
    """Yield what looks names up for a DHCP server."""
    # Of its own: a resolver that hangs holds threads, for longer than anybody waits.
    threads = ThreadPoolExecutor(_LOOKED_UP_AT_ONCE, "dhcp-names")
    try:
        yield NextServers(whose, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
