"""The store is told of this member, what is wished of it is done, and what the members share is kept up."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable

from muster.app.duties.duty import Duty, Found
from muster.app.listed import Listed
from muster.cluster.roster import Report, Roster, Told
from muster.cluster.steward import Steward
from muster.cluster.timeline import Timeline
from muster.edge.metrics import EdgeMetrics
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.rings import LogRings
from muster.store.engine import Store

_log = log.logger("app")
_BEATS_PER_COMPARISON = 10


class Attendance(Duty):
    """Each beat a heartbeat with this member's report; the store may be down.

    Args:
        holder: unique to one life of this process; in its name the cluster is decided for, where the role is had.
        report: returns what this member says of itself now.
        obey: takes clients or sends them away, as was decided about this member.
        compare: tells what this member is made of, and finds in what it differs; now and then, after a heartbeat.

    In the order of one beat: who is not in the roster yet makes no statement.
    """

    name = "roster"

    def __init__(
        self,
        store: Store,
        holder: str,
        listed: Listed,
        timeline: Timeline,
        rings: LogRings,
        metrics: EdgeMetrics,
        *,
        report: Callable[[], Report],
        obey: Callable[[Told], None],
        compare: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._roster = Roster(store)
        self._steward = Steward(store, holder)
        self._listed = listed
        self._timeline = timeline
        self._rings = rings
        self._metrics = metrics
        self._report = report
        self._obey = obey
        self._compare = compare
        self._is_first = True
        self._beats = itertools.count()

    async def beat(self) -> None:
        try:
            self._obey(await self._roster.beat(self._report(), first=self._is_first))
            self._is_first = False
            self._listed.look()
            await self._steward.beat(self._listed.latest)
            await self._timeline.share(self._rings)
            if next(self._beats) % _BEATS_PER_COMPARISON == 0:
                await self._compare()
        except Unavailable as e:
            self._metrics.store_up.set(0)
            _log.debug("Beat without store", why=str(e))
        except MusterError as e:
            _log.error("Beat failed", why=str(e))
        else:
            self._metrics.store_up.set(1)

    def found(self) -> Found:
        return Found(notes=(self._store.trouble,) if self._store.trouble else ())

    async def end(self) -> None:
        with contextlib.suppress(MusterError):
            await self._steward.resign()
