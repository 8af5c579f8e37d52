"""The cluster as viewers see it: looked at once for all of them, and only while somebody looks.

However many look, members are asked in one round of questions on kept connections, and the store is read once. A round ends
before the next begins; the more members there are, the longer it rests in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.edge.traffic import BOUNDS_S, STATES, Traffic
from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.tasks import each, ended
from muster.observed.recorded import records_in
from muster.observed.status import StoreSays, said_in, status_of
from muster.observed.survey import Answer, Survey
from muster.pki.listed import listed
from muster.store.reading import Readable, Reading
from muster.web.model.page import Page
from muster.web.model.traffic import joined, merged

_log = log.logger("web")

_INTERVAL_S = 2.0
# A round of fifty members is worth resting five seconds for.
_MEMBERS_PER_S = 10
_SELDOM_S = 30.0
_RINGS_EVERY_S = 10.0
_BOOTS_EVERY_S = 5.0
# What fifty members tell is drawn anew once a minute, as long as a bar is.
_RINGS_REST_S = 1.2
_RINGS_AT_ONCE = 8
_STEP_S = 60
_MOST_SERVICES = 200
# A minute of more calls, and a time later than this, is no member's.
_MOST_CALLS = 1 << 40
_LATEST = 1 << 34
_RINGS = "/cluster/rings.json?since={}&step_s=60"
_STORE_WITHIN_S = 2.0
# Certificates are read from their files anew with the connections.
_CONNECTIONS_LAST_S = 600.0
_LOGS_AGAIN_S = 15.0
_MOST_LOGS = 4000
_MUSTER = "muster"


class Records(Protocol):
    """Where the merged log comes from (``edge/logs.py``)."""

    async def told(self, since: float) -> dict[str, Any]:
        """Return what ``/logs`` answers."""


@dataclass(frozen=True)
class Sources:
    """What a watch looks at.

    Attributes:
        by: who looks.
        cluster, balancing: return the cluster with its members of now, and what its balancers have to do.
        survey: opens what asks the members.
        store: opens the store to read.
        pki: where the certificates of this host lie.
        puppet_ca: reads how the Puppet CA stands; None: members are none.
        boots: reads the machines that booted last, as ``muster netboot boots --json`` does; None: members see nothing of
            any.
        own: this process' member, in lower case, and its rings; None: it is no member.
        here: returns what HAProxy on this host says, as ``muster status --json`` does.
    """

    by: str
    cluster: Callable[[], ClusterFile]
    balancing: Callable[[], Balancing]
    survey: Callable[[], Survey]
    store: Callable[[], AbstractAsyncContextManager[Readable]]
    pki: Path
    records: Records
    puppet_ca: Callable[[Reading], Awaitable[dict[str, Any]]] | None = None
    boots: Callable[[Reading], Awaitable[Sequence[Mapping[str, Any]]]] | None = None
    own: tuple[str, Traffic] | None = None
    here: Callable[[], Awaitable[dict[str, Any] | None]] | None = None


@dataclass
class _Known:
    """What is asked less often than each round.

    Attributes:
        behind: members that run with another cluster file, as the store's statements say.
        rings: what members told of their traffic, by name.
    """

    behind: Sequence[str] = ()
    parity: Mapping[str, Any] | None = None
    doctor: Mapping[str, Any] | None = None
    puppet_ca: Mapping[str, Any] | None = None
    boots: Sequence[Mapping[str, Any]] | None = None
    certificates: Sequence[Mapping[str, Any]] = ()
    rings: dict[str, dict[str, Any]] = field(default_factory=dict)
    unasked: dict[str, str] = field(default_factory=dict)
    merged: Mapping[str, Any] | None = None
    logs: list[dict[str, Any]] = field(default_factory=list)
    store_due: float = 0.0
    boots_due: float = 0.0
    rings_due: float = 0.0
    newest_log: float = 0.0


class Watch:
    """What viewers are shown. Use :func:`opened`.

    Attributes:
        viewers: who follows now.

    Concurrency: one loop; any number of viewers.
    """

    def __init__(self, sources: Sources, *, clock: Clock | None = None) -> None:
        self.viewers = 0
        self._sources = sources
        self._clock = clock or SystemClock()
        self._known = _Known()
        self._page: Page | None = None
        self._trouble: MusterError | None = None
        self._looked_at = float("-inf")
        self._asked_at = float("-inf")
        self._turned = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def interval_s(self) -> float:
        """How long a round rests."""
        return max(_INTERVAL_S, len(self._sources.cluster().members) / _MEMBERS_PER_S)

    async def page(self) -> Page:
        """Return what is to be seen now, or was a moment ago.

        Raises:
            Unavailable: nothing can be seen.
        """
        now = self._asked_at = self._now()
        self._begin()
        if self._page is None or now - self._looked_at > 2 * self.interval_s:
            await self._turned.wait()
        return self._seen()

    async def turned(self, within_s: float) -> Page | None:
        """Return the page of the next round; None: it did not come within that time.

        Raises:
            Unavailable: nothing can be seen.
        """
        self._begin()
        try:
            async with asyncio.timeout(within_s):
                await self._turned.wait()
        except TimeoutError:
            return None
        return self._seen()

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Have rounds go on for the block."""
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    async def close(self) -> None:
        await ended([self._task] if self._task is not None else [])

    def _now(self) -> float:
        return self._clock.monotonic()

    def _seen(self) -> Page:
        if self._trouble is not None or self._page is None:
            raise Unavailable(str(self._trouble or "Nothing was looked at yet"))
        return self._page

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_while_wanted(), name="web watch")

    async def _look_while_wanted(self) -> None:
        until = float("-inf")
        async with contextlib.AsyncExitStack() as stack:
            survey: Survey | None = None
            balancing: Balancing | None = None
            while True:
                try:
                    if survey is None or balancing is not self._sources.balancing() or until < self._now():
                        # What is closed is asked no more, also when nothing takes its place.
                        survey = None
                        await stack.aclose()
                        balancing = self._sources.balancing()
                        survey = await stack.enter_async_context(self._sources.survey())
                        until = self._now() + _CONNECTIONS_LAST_S
                    self._page, self._trouble = await self._look(survey), None
                except MusterError as e:
                    self._trouble = e
                except Exception as e:  # noqa: BLE001 - boundary: viewers hear of a bug, and the next round may go well
                    _log.exception("Looking at the cluster broke")
                    self._trouble = Unavailable(f"A defect of Muster, which the log has: {type(e).__name__}")
                self._looked_at = self._now()
                turned, self._turned = self._turned, asyncio.Event()
                turned.set()
                await asyncio.sleep(self.interval_s)
                if not self.viewers and self._asked_at <= self._looked_at:
                    return

    async def _look(self, survey: Survey) -> Page:
        cluster, known = self._sources.cluster(), self._known
        now = self._clock.now()
        answers, says = await asyncio.gather(survey.round(), self._store_says(cluster))
        await self._ask_for_rings(survey, cluster, answers)
        await self._follow_logs(now)
        here = await self._sources.here() if self._sources.here is not None else None
        at = self._clock.now()
        return Page(
            at=at,
            by=self._sources.by,
            status=status_of(cluster, self._sources.balancing(), answers, says, here),
            parity=known.parity,
            doctor=known.doctor,
            certificates=known.certificates,
            puppet_ca=known.puppet_ca,
            boots=known.boots,
            logs={"info": self._about_logs, "logs": tuple(known.logs)},
            traffic=self._merged(at),
        )

    def _merged(self, at: datetime) -> Mapping[str, Any]:
        """Return the members' rings as one; the same value as before until they are read again."""
        known = self._known
        if known.merged is None:
            known.merged = merged(known.rings, known.unasked, at.timestamp())
        return known.merged

    async def _store_says(self, cluster: ClusterFile) -> StoreSays:
        """Read the store once, within a short time: whoever looks would wait for it."""
        known = self._known
        seldom = self._now() >= known.store_due
        try:
            async with (
                asyncio.timeout(_STORE_WITHIN_S),
                self._sources.store() as store,
                store.read() as uow,
            ):
                says = await said_in(uow, cluster, None if seldom else known.behind)
                # Cheap, and whoever has just examined the cluster wants to see it.
                records = {kind: r.as_json() for kind, r in (await records_in(uow)).items()}
                if seldom and self._sources.puppet_ca is not None:
                    known.puppet_ca = await self._sources.puppet_ca(uow)
                if self._sources.boots is not None and self._now() >= known.boots_due:
                    known.boots = await self._sources.boots(uow)
                    known.boots_due = self._now() + _BOOTS_EVERY_S
        except TimeoutError:
            return StoreSays(trouble=f"The store did not answer within {_STORE_WITHIN_S:g} s")
        except MusterError as e:
            return StoreSays(trouble=str(e))
        known.parity, known.doctor, known.behind = records.get("parity"), records.get("doctor"), says.behind
        if seldom:
            known.certificates = await asyncio.to_thread(lambda: [c.as_json() for c in listed(self._sources.pki)])
            known.store_due = self._now() + _SELDOM_S
        return says

    async def _ask_for_rings(self, survey: Survey, cluster: ClusterFile, answers: Sequence[Answer]) -> None:
        known, own = self._known, self._sources.own
        if self._now() < known.rings_due:
            return
        known.rings_due = self._now() + max(_RINGS_EVERY_S, _RINGS_REST_S * len(cluster.members))
        silent = {a.member for a in answers if a.standing == "unreachable" and a.service == "smartproxy"}
        reasons = {a.member: a.reason for a in answers if a.member in silent and a.service == "smartproxy"}
        unasked: dict[str, str] = {}

        async def ask(name: str) -> None:
            before = known.rings.get(name)
            # The newest slot was not over.
            since = before["from"] + before["step_s"] * (_slots(before) - 2) if before is not None else 0
            try:
                if own is not None and own[0] == name.lower():
                    told = own[1].told(max(0, since), 60)
                elif name.lower() in silent:
                    raise Unavailable(reasons[name.lower()])
                else:
                    told = await survey.told(name.lower(), _RINGS.format(max(0, int(since))))
                known.rings[name] = joined(before, _checked(told))
            except MusterError as e:
                unasked[name] = str(e)

        names = [str(m.name) for m in cluster.members if m.kind == _MUSTER]
        for gone in known.rings.keys() - set(names):
            del known.rings[gone]
        await each(names, ask, at_once=_RINGS_AT_ONCE)
        unasked |= {str(m.name): "a Ruby member keeps no such record" for m in cluster.members if m.kind != _MUSTER}
        # In the cluster file's order, whoever answered first.
        known.rings = {n: known.rings[n] for n in names if n in known.rings}
        known.unasked = {str(m.name): unasked[str(m.name)] for m in cluster.members if str(m.name) in unasked}
        known.merged = None

    async def _follow_logs(self, now: datetime) -> None:
        """Read records since the newest known, and those of a little before: they may come late."""
        known = self._known
        since = max(0.0, known.newest_log - _LOGS_AGAIN_S)
        told = await self._sources.records.told(since)
        fresh = told["logs"]
        if fresh:
            # Clocks of members differ; the newest by one that is ahead must not hide the others'.
            known.newest_log = min(max(r["timestamp"] for r in fresh), now.timestamp())
        known.logs = ([r for r in known.logs if r["timestamp"] < since] + list(fresh))[-_MOST_LOGS:]
        self._about_logs = told["info"]

    _about_logs: Mapping[str, Any] = {}


@contextlib.asynccontextmanager
async def opened(sources: Sources) -> AsyncIterator[Watch]:
    """Yield a watch; on leaving, what it asks is ended."""
    watch = Watch(sources)
    try:
        yield watch
    finally:
        await watch.close()


def _slots(told: Mapping[str, Any]) -> int:
    return max((len(of["calls"]) for of in told["services"].values()), default=0)


def _checked(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's rings when they are some.

    Raises:
        Unavailable: something else answered.
    """
    try:
        services: dict[str, dict[str, Any]] = {
            str(name): {
                "calls": [int(n) for n in of["calls"]],
                "errors": [int(n) for n in of["errors"]],
                "buckets": [[int(n) for n in row] for row in of["buckets"]],
                "states": "".join(c if c in STATES else "-" for c in str(of["states"])),
            }
            for name, of in told["services"].items()
        }
        found = {**told, "from": int(told["from"]), "step_s": int(told["step_s"]), "services": services}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise Unavailable(f"the answer has no record of traffic: {e}") from e
    # Of members of other versions, too: what cannot be laid over ours is not drawn.
    if (
        found["step_s"] != _STEP_S
        or found["from"] % _STEP_S
        or not 0 <= found["from"] < _LATEST
        or found.get("bounds_ms") != [round(b * 1000) for b in BOUNDS_S]
        or len(services) > _MOST_SERVICES
        or not all(_fits(of) for of in services.values())
    ):
        raise Unavailable("the answer is a record of another kind than was asked for")
    return found


def _fits(of: Mapping[str, Any]) -> bool:
    """Whether a service's row is of one length, an hour at most, and of numbers that can be drawn."""
    length = len(of["calls"])
    return (
        length <= 3600 // _STEP_S + 1
        and {len(of[column]) for column in ("errors", "buckets", "states")} == {length}
        and all(len(row) in (0, len(BOUNDS_S) + 1) for row in of["buckets"])
        and all(0 <= n < _MOST_CALLS for row in (of["calls"], of["errors"], *of["buckets"]) for n in row)
    )
