"""Whom PROXY headers are believed from: the balancers' names, resolved now and then, and never forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable

from muster.kernel import log

_log = log.logger("app")
_TIMEOUT_S = 5.0


class Resolved:
    """The addresses of some names, as each was last resolved.

    A name that does not resolve now keeps the addresses it had: a resolver's failure must not make strangers of the
    balancers, because then nobody's calls would come through.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._last: dict[str, frozenset[str]] = {}
        self._failing: set[str] = set()

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset().union(*self._last.values())

    @property
    def is_complete(self) -> bool:
        """Whether every name resolved when it was last asked for."""
        return not self._failing

    async def refresh(self) -> None:
        """Ask for every name at once, five seconds at most; never raises."""
        await asyncio.gather(*(self._ask(n) for n in self._names))

    async def _ask(self, name: str) -> None:
        with contextlib.suppress(ValueError):
            self._last[name] = frozenset({str(ipaddress.ip_address(name))})
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            if name not in self._failing:
                why = "no answer" if isinstance(e, TimeoutError) else str(e)
                kept = ", ".join(sorted(self._last.get(name, ()))) or "none"
                _log.warning("A balancer's name does not resolve", balancer=name, why=why, believed_still=kept)
            self._failing.add(name)
            return
        if name in self._failing:
            _log.info("A balancer's name resolves again", balancer=name)
        self._failing.discard(name)
        self._last[name] = frozenset(str(a[4][0]) for a in answers)
