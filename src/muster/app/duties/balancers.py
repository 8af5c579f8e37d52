"""From which addresses do balancers come, by now?"""

from __future__ import annotations

import itertools

from muster.app.duties.duty import Duty
from muster.app.resolution import Resolved
from muster.edge.server import Server

_BEATS_PER_RESOLUTION = 30


class BalancersNames(Duty):
    """Follows the balancers' names: now and then, and each beat while one does not resolve."""

    name = "balancers' names"
    # They were resolved before the first listener opened.
    begins_at_once = False

    def __init__(self, balancers: Resolved, server: Server) -> None:
        self._balancers = balancers
        self._server = server
        self._beats = itertools.count(1)

    async def beat(self) -> None:
        if next(self._beats) % _BEATS_PER_RESOLUTION == 0 or not self._balancers.is_complete:
            await self._balancers.refresh()
            self._server.trust(self._balancers.addresses)
