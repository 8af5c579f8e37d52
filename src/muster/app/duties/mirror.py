"""Does what is mirrored come to this member's disk, and is the work done that somebody asked for?"""

from __future__ import annotations

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.content.mirror.jobs import Jobs
from muster.content.mirror.keeping import Keeping
from muster.kernel import log
from muster.kernel.errors import MusterError

_log = log.logger("app")


class MirrorKept(Duty):
    """Brings what clients are to get; notes what does not come. Whether that takes it out says who follows it."""

    name = "mirror"

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    async def beat(self) -> None:
        try:
            await self._keeping.beat()
        except MusterError as e:
            _log.debug("What is mirrored was not looked at", why=str(e))

    def found(self) -> Found:
        return Found(notes=(self._keeping.note,)) if self._keeping.note else NOTHING

    async def end(self) -> None:
        await self._keeping.close()


class JobsDone(Duty):
    """Synchronises, verifies and reclaims where somebody asked for it. What fails is said of the job."""

    name = "content jobs"

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def beat(self) -> None:
        try:
            await self._jobs.beat()
        except MusterError as e:
            _log.debug("No job was looked for", why=str(e))

    async def end(self) -> None:
        await self._jobs.close()
