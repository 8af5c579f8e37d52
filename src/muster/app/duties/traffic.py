"""What this member answered lately goes into its rings, workers' calls included (``edge/traffic.py``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from muster.app.duties.duty import Duty
from muster.edge.traffic import SLOT_S, Traffic

Counted = Callable[[], Awaitable[Sequence[Mapping[str, Sequence[int]]]]]


class TrafficKept(Duty):
    """Closes a slot of the rings every ten seconds.

    Args:
        counted: returns what processes beside the member have counted since; None: there are none.
    """

    name = "traffic"
    every_s = float(SLOT_S)

    def __init__(self, traffic: Traffic, counted: Counted | None = None) -> None:
        self._traffic = traffic
        self._counted = counted

    async def beat(self) -> None:
        for one in await self._counted() if self._counted is not None else ():
            self._traffic.add(one)
        self._traffic.turn()
