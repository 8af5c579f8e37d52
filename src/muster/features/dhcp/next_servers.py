"""Looks up a next server that is given by its name, for DHCP servers that keep addresses alone."""

from __future__ import annotations

import asyncio
import ipaddress
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
    """Use :func:`opened`.

    Args:
        server: what the DHCP server is called in sentences.
    """

    def __init__(self, server: str, threads: ThreadPoolExecutor) -> None:
        self._server = server
        self._threads = threads

    async def by_address(self, reservation: Reservation) -> Reservation:
        """Return the reservation with its next server's address; of several always the same one.

        Raises:
            Rejected: the name has none.
            Unavailable: nobody tells now.
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
                found = await loop.run_in_executor(self._threads, _looked_up, name)
        except TimeoutError:
            raise Unavailable(f"Nobody told in {_RESOLVED_WITHIN_S:g} s which address {name} has") from None
        except (OSError, UnicodeError) as e:
            if isinstance(e, socket.gaierror) and e.errno == socket.EAI_AGAIN:
                raise Unavailable(f"The next server {name} cannot be looked up now: {e.strerror}") from e
            found = []
        if not found:
            raise Rejected(f"The next server {name} has no IPv4 address, and {self._server} keeps no names")
        # Of several always the same one, in whatever order they come.
        return min(found)


@contextmanager
def opened(server: str) -> Iterator[NextServers]:
    """Yield one that looks names up until the block ends; a resolver that hangs does not hold the block's end."""
    # Threads of its own: a resolver that hangs holds them, for longer than anybody waits.
    threads = ThreadPoolExecutor(_LOOKED_UP_AT_ONCE, "dhcp-names")
    try:
        yield NextServers(server, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def is_address(text: object) -> bool:
    """Whether a next server is an IPv4 address."""
    try:
        ipaddress.IPv4Address(str(text))
    except ValueError:
        return False
    return True


def _looked_up(name: str) -> list[IPv4Address]:
    found = socket.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return [IPv4Address(address[0]) for *_, address in found]
