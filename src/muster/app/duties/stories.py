"""What this member saw of machines that boot goes into the store; what is old goes out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.kernel.errors import MusterError

if TYPE_CHECKING:
    from muster.netboot.story.ledger import BootEvents
    from muster.netboot.story.telling import Telling
    from muster.store.leases import Leases

ROLE = "boot-stories"
_FORGOTTEN_EVERY_S = 60.0


class StoriesTold(Duty):
    """Writes what waits. A store that is away costs the rows of that time and nothing else."""

    name = "boot stories"
    every_s = 0.5

    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    async def beat(self) -> None:
        await self._telling.flush()


class StoriesForgotten(Duty):
    """Drops what is old, or too much, a minute after a minute; one member of the cluster does.

    Nothing is fenced by the role's epoch: two who drop the same drop it once.
    """

    name = "old boot stories"
    every_s = _FORGOTTEN_EVERY_S
    begins_at_once = False

    def __init__(self, events: BootEvents, leases: Leases, holder: str) -> None:
        self._events = events
        self._leases = leases
        self._holder = holder
        self._why = ""

    async def beat(self) -> None:
        try:
            if await self._leases.acquire(ROLE, self._holder, 2 * _FORGOTTEN_EVERY_S) is not None:
                await self._events.forget()
            self._why = ""
        except MusterError as e:
            self._why = str(e)

    def found(self) -> Found:
        return Found(notes=(f"old boot stories were not dropped: {self._why}",)) if self._why else NOTHING
