"""Which members may serve a machine's boot files, and at which addresses."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from muster.kernel import log
from muster.netboot.ledger import Standing
from muster.netboot.proxydhcp.answers import BootServer

if TYPE_CHECKING:
    from muster.cluster.roster import Roster, Seen
    from muster.netboot.ledger import Ledger

_log = log.logger("netboot")

# Members say once a second that they are there.
_LATE_S = 2.5
_RESOLVED_WITHIN_S = 2.0

Resolve = Callable[[str], Awaitable[IPv4Address | None]]


def ready(seen: Mapping[str, Seen], standings: Sequence[Standing] | None) -> list[str]:
    """Return the members that may serve boot files, by name.

    That is who takes clients and has all that was acknowledged. Of those, who is late with its word is left out while
    another is not: it may be dead, and is called silent only later.

    Args:
        seen: all that ever reported.
        standings: how far they are with the tree; None: the cluster has none, and who takes clients may.
    """
    if standings is not None:
        may = {s.member for s in standings if s.counts and s.version >= s.fenced}
    else:
        may = {
            name
            for name, one in seen.items()
            if not one.silent and any(r.get("state") == "ready" for r in one.report.readiness.values())
        }
    prompt = {name for name in may if name in seen and seen[name].age_s <= _LATE_S}
    return sorted(prompt or may)


async def resolved(host: str) -> IPv4Address | None:
    """Return the IPv4 address of a member, None when it has none now."""
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(host)
        return found if isinstance(found, IPv4Address) else None
    try:
        async with asyncio.timeout(_RESOLVED_WITHIN_S):
            answers = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
    except (OSError, UnicodeError) as e:
        _log.debug("A member's name does not resolve", name=host, why=str(e))
        return None
    return IPv4Address(answers[0][4][0]) if answers else None


class Serving:
    """The members that may serve, as they were when they were last looked at.

    Args:
        members: the cluster's, with their addresses or names.
        ledger: of the tree; None: there is none.
        everybodys: an address that stands for whoever has it; no member is looked at then.

    Attributes:
        is_known: somebody has looked.
    """

    def __init__(
        self,
        members: Callable[[], Mapping[str, str]],
        roster: Roster,
        ledger: Ledger | None,
        everybodys: BootServer | None,
        *,
        resolve: Resolve = resolved,
    ) -> None:
        self.servers: Sequence[BootServer] = (everybodys,) if everybodys is not None else ()
        self.is_known = everybodys is not None
        self._members = members
        self._roster = roster
        self._ledger = ledger
        self._everybodys = everybodys
        self._resolve = resolve
        # A resolver that fails takes no address away that was right a minute ago.
        self._addresses: dict[str, IPv4Address] = {}

    async def look(self) -> None:
        """Look at who may serve; without an answer those who might before still may.

        Raises:
            Unavailable: the store did not answer.
        """
        if self._everybodys is not None:
            return
        standings = await self._ledger.standings() if self._ledger is not None else None
        names = ready(await self._roster.seen(), standings)
        members = self._members()
        found: list[BootServer] = []
        for name in names:
            if name in members and (address := await self._address(members[name])) is not None:
                found.append(BootServer(name, address))
        self.servers, self.is_known = found, True

    async def _address(self, host: str) -> IPv4Address | None:
        if (address := await self._resolve(host)) is not None:
            self._addresses[host] = address
        return self._addresses.get(host)
