"""Who tells machines what to boot, and is this member the one?"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.netboot.proxydhcp.holding import Holding
from muster.netboot.proxydhcp.metrics import ProxyDHCPMetrics
from muster.netboot.proxydhcp.server import ProxyDHCPServer
from muster.netboot.proxydhcp.serving import Serving
from muster.netboot.tree import Tree

_log = log.logger("app")

_LISTENED_AGAIN_S = 5.0


class BootServersKnown(Duty):
    """Looks at which members may serve boot files. Beside the role, whose lease must not wait for a resolver."""

    name = "boot servers"

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def beat(self) -> None:
        try:
            await self._serving.look()
        except MusterError as e:
            _log.debug("Which members may serve boot files was not looked at", why=str(e))


class ProxyDHCPKept(Duty):
    """Opens the ports, takes the role when nobody has it, and keeps what the answers need.

    No service leaves for what is wrong here: it is no service of the balancer's.

    Args:
        tree: of boot files; None: there is none.
        fit: whether this member takes clients.
    """

    name = "ProxyDHCP"
    # Another member takes over within two seconds, of which the lease of one that died is the most.
    every_s = 0.2

    def __init__(
        self,
        server: ProxyDHCPServer,
        holding: Holding,
        serving: Serving,
        tree: Tree | None,
        counted: ProxyDHCPMetrics,
        *,
        fit: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._holding = holding
        self._serving = serving
        self._tree = tree
        self._counted = counted
        self._fit = fit
        self._now = now
        self._listened_at = -float("inf")
        self._deaf = ""
        self._absent: Sequence[str] = ()
        self._why = ""

    async def beat(self) -> None:
        if not self._server.listens and self._now() - self._listened_at >= _LISTENED_AGAIN_S:
            self._listen()
        # Who answers must know whom to name.
        is_sound = self._serving.is_known and (self._tree is None or not self._tree.trouble)
        self._absent = self._server.absent_interfaces()
        # The one that answers must hear something.
        hears = self._server.listens and (not self._absent or len(self._absent) < len(self._server.interfaces))
        fit = hears and is_sound and self._fit()
        self._server.servers = self._serving.servers
        # At once: the store, which is asked next, may take its time, or not answer.
        self._server.may_serve = fit
        if not fit:
            self._server.holds = False
        try:
            await self._holding.beat(fit=fit)
            self._why = ""
        except MusterError as e:
            self._why = str(e)
        self._server.holds = fit and self._holding.holds
        self._counted.holds(holds=self._server.holds)

    def _listen(self) -> None:
        self._listened_at = self._now()
        try:
            self._server.listen()
        except MusterError as e:
            if self._deaf != str(e):
                _log.error("ProxyDHCP is not answered here", why=str(e))
            self._deaf = str(e)
            return
        self._deaf = ""

    def found(self) -> Found:
        notes = []
        if self._deaf:
            notes.append(f"this member answers no ProxyDHCP: {self._deaf}")
        elif self._absent:
            notes.append(f"ProxyDHCP is not heard on {', '.join(self._absent)}: this host has no such interface")
        if self._why and self._server.holds:
            notes.append(f"ProxyDHCP goes on as it was, without the store: {self._why}")
        return Found(notes=tuple(notes)) if notes else NOTHING

    async def end(self) -> None:
        self._server.holds = self._server.may_serve = False
        with contextlib.suppress(MusterError):
            await self._holding.resign()
