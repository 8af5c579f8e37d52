"""Whether a member takes clients, and what it reports of itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from muster.cluster.file import SCHEMA_VERSION, Member
from muster.cluster.roster import Report, Told
from muster.edge.feature import Features
from muster.edge.health import Health
from muster.kernel import log
from muster.version import VERSION

_log = log.logger("app")


class Standing:
    """One member's readiness as it is changed from outside: drained, readmitted, stopped.

    Args:
        drain: has every reply close its connection, or no longer.

    Attributes:
        stopping: a stopping member only stops, whatever is decided about it.
    """

    def __init__(self, health: Health, drain: Callable[[bool], None]) -> None:
        self.stopping = False
        self._health = health
        self._drain = drain

    def drain(self, reason: str) -> None:
        """Ask for no new clients: readiness says draining and every reply closes its connection."""
        if not self._health.draining:
            _log.info("Draining", why=reason)
        self._health.draining = reason
        self._drain(True)

    def readmit(self) -> None:
        """Take clients again, unless the member stops."""
        if self._health.draining and not self.stopping:
            _log.info("Taking clients again")
            self._health.draining = ""
            self._drain(False)

    def obey(self, told: Told) -> None:
        """Take clients or send them away as was decided about this member; a stopping member only stops."""
        if self.stopping:
            return
        if told.leaving:
            self.drain(told.leaving)
        else:
            self.readmit()

    def report(self, member: Member, features: Features, certificate: Callable[[], dict[str, object]]) -> Report:
        """Return what the member says of itself with each heartbeat."""
        verdicts = {s: self._health.verdict(s) for s in sorted(self._health.services)}
        state = "stopping" if self.stopping else "draining" if self._health.draining else "ready"
        return Report(
            name=str(member.name),
            member_id=member.id,
            version=VERSION,
            schema_version=str(SCHEMA_VERSION),
            host=socket.gethostname(),
            pid=os.getpid(),
            state="starting" if self._health.starting else state,  # type: ignore[arg-type]
            reason=self._health.draining,
            features={name: s.state.value for name, s in features.served.items()},
            readiness={s: {"state": v.state, "reason": v.reason} for s, v in verdicts.items()},
            certificate=certificate(),
        )
