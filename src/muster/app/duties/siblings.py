"""Which other members are ready to be asked for content?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from muster.app.duties.duty import Duty
from muster.app.listed import Listed
from muster.cluster.roster import Roster
from muster.content.fill import Sibling
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.store.engine import Store

_log = log.logger("app")

# One that is started again takes clients of other ports before all know that it is ready for content, and whoever was
# ready a moment ago has what clients left there.
_RETURNS_S = 5.0


class Siblings(Duty):
    """Tells content who is ready, or was a moment ago, by the roster, and who is a member, by the cluster file.

    Without the store whoever was ready last is.

    Args:
        name: this member's, who is none of them.
        port: where members answer content over TLS that have no port of their own.
        tell: hears of them, and of all members of kind ``muster``, each time that they change.
    """

    name = "siblings"

    def __init__(
        self,
        name: str,
        port: int,
        listed: Listed,
        store: Store,
        tell: Callable[[Sequence[Sibling], Sequence[str]], None],
    ) -> None:
        self._own = name
        self._port = port
        self._listed = listed
        self._roster = Roster(store)
        self._tell = tell
        self._ready_at: dict[str, float] = {}
        self._ready: frozenset[str] = frozenset()
        self._told: tuple[tuple[Sibling, ...], tuple[str, ...]] = ((), ())

    async def beat(self) -> None:
        # Who was taken out of it is believed no longer, and that need not wait for the store.
        self._listed.look()
        try:
            seen = await self._roster.seen()
        except MusterError as e:
            _log.debug("The roster was not read", why=str(e))
        else:
            now = time.monotonic()
            heard = {name: one.report for name, one in seen.items() if not one.silent}
            for name, report in heard.items():
                if report.readiness.get("https", {}).get("state") == "ready":
                    self._ready_at[name] = now
            self._ready = frozenset(n for n in heard if n in self._ready_at and now - self._ready_at[n] <= _RETURNS_S)
        ours = [m for m in self._listed.latest.members if m.kind == "muster"]
        siblings = tuple(
            Sibling(str(m.name), m.address, m.ports.get("https", self._port))
            for m in ours
            if str(m.name) in self._ready and str(m.name) != self._own
        )
        found = (siblings, tuple(str(m.name) for m in ours))
        if found != self._told:
            self._told = found
            self._tell(*found)
