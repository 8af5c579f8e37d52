"""Are the Pulps that members lead turned to what was decided?"""

from __future__ import annotations

from muster.app.duties.duty import Duty
from muster.content.mirror.jobs import Jobs
from muster.content.steered.steering import Steering
from muster.kernel import log
from muster.kernel.errors import MusterError

_log = log.logger("app")


class PulpsTurned(Duty):
    """Brings along Pulps that were away, as the one process that has the role. What does not follow the doctor names."""

    name = "steered pulps"
    every_s = 10.0

    def __init__(self, steering: Steering, jobs: Jobs) -> None:
        self._steering, self._jobs = steering, jobs

    async def beat(self) -> None:
        if not self._jobs.has_role:
            return
        try:
            await self._steering.beat()
        except MusterError as e:
            _log.debug("Steered Pulps were not looked at", why=str(e))
