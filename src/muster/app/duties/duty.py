"""A duty as a value: a name, a cadence, a beat, and what was found; and how duties are run side by side."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster.kernel import log

if TYPE_CHECKING:
    from muster.edge.health import Health
    from muster.edge.metrics import EdgeMetrics

_log = log.logger("app")

BEAT_S = 1.0
_LAST_BEAT_S = 2.0
# Longer than the longest beat that is in order: several statements to a store that answers none, and a census.
_PATIENCE_S = 120.0
# What all duties do together is named as one of them.
_READINESS = "readiness"


@dataclass(frozen=True, slots=True)
class Found:
    """What a duty knows of its member.

    Attributes:
        down: why a service is down here, by its name; one sentence each.
        out: why every service is; one sentence each.
        notes: what is wrong but takes no service out; one sentence each.
    """

    down: Mapping[str, str] = field(default_factory=dict)
    out: Sequence[str] = ()
    notes: Sequence[str] = ()


NOTHING = Found()


class Duty(ABC):
    """Something a member does again and again. It owns its state; what it reads it is given.

    Attributes:
        name: as an administrator reads it: ``disks``.
        every_s: how long it rests after a beat.
        begins_at_once: whether the first beat comes before the first rest.

    Concurrency: all on the member's loop. Beats of one duty never overlap, those of several do.
    """

    name: str
    every_s: float = BEAT_S
    begins_at_once: bool = True

    @abstractmethod
    async def beat(self) -> None:
        """Do it once. It may take long; an exception is a defect, which is named and does not end the duty."""

    def found(self) -> Found:
        """Return what is known now; looks at values only, since it is asked for after every beat of any duty."""
        return NOTHING

    async def end(self) -> None:  # noqa: B027 - most duties hold nothing that others wait for
        """Give up what others wait for; called once, after the last beat. Raising changes nothing."""


def joined(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return why services are down, several reasons as one sentence."""
    out: dict[str, str] = {}
    for one in found:
        for service, why in one.items():
            out[service] = f"{out[service]}; {why}" if service in out else why
    return out


class Duties:
    """The duties of one member. Readiness joins what they found, in their order."""

    def __init__(
        self, duties: Sequence[Duty], health: Health, metrics: EdgeMetrics, *, patience_s: float = _PATIENCE_S
    ) -> None:
        self._duties = tuple(duties)
        self._health = health
        self._metrics = metrics
        self._patience_s = patience_s
        self._closing = asyncio.Event()
        # What is wrong with a duty itself, by its name, and which of its methods it is.
        self._amiss: dict[tuple[str, str], str] = {}
        self._found: dict[str, Found] = {}
        self._out: tuple[str, ...] = ()
        self._notes: tuple[str, ...] = ()
        health.reasons.append(lambda: self._out)
        health.notes.append(lambda: (*self._notes, *self._amiss.values()))

    def judge(self) -> None:
        """Say of every service whether it is ready, from what was last found; balancers' questions only look at that."""
        found = [self._found_by(d) for d in self._duties]
        self._out = tuple(why for f in found for why in f.out)
        self._notes = tuple(note for f in found for note in f.notes)
        self._health.down = joined(f.down for f in found)
        verdicts = {s: self._health.verdict(s) for s in self._health.services}
        self._metrics.traffic.judge({s: v.state for s, v in verdicts.items()})
        self._metrics.judge({s: "" if v.status == 200 else v.reason or v.state for s, v in verdicts.items()})

    def _found_by(self, duty: Duty) -> Found:
        """Return what a duty found; when it cannot say, what it said last."""
        try:
            self._found[duty.name] = duty.found()
        except Exception as e:  # noqa: BLE001 - boundary: a duty with a bug must not keep the others from being heard
            self._broke(duty.name, "found", e)
        else:
            self._well(duty.name, "found")
        return self._found.get(duty.name, NOTHING)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the duties beside the block. On leaving, a beat that has begun may end: half a transaction helps nobody."""
        tasks = [asyncio.create_task(self._kept(d), name=f"duty {d.name}") for d in self._duties]
        try:
            yield
        finally:
            self._closing.set()
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=_LAST_BEAT_S)
                for task in late:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _kept(self, duty: Duty) -> None:
        if duty.begins_at_once:
            await self._beat(duty)
        while await self._rested(duty.every_s):
            await self._beat(duty)
        try:
            await duty.end()
        except Exception:  # noqa: BLE001 - boundary: whoever closes has nobody to tell; what was held ends by itself
            _log.debug("A duty's end broke", duty=duty.name, exc_info=True)

    async def _beat(self, duty: Duty) -> None:
        watch = asyncio.get_running_loop().call_later(self._patience_s, self._hung, duty)
        try:
            await duty.beat()
        except asyncio.CancelledError as e:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody ended this duty: something that it waited for was given up.
            self._broke(duty.name, "beat", e)
        except Exception as e:  # noqa: BLE001 - boundary: a duty with a bug must not stop the others, nor its next beat
            self._broke(duty.name, "beat", e)
        else:
            self._well(duty.name, "beat")
        finally:
            watch.cancel()
        try:
            self.judge()
        except Exception as e:  # noqa: BLE001 - boundary: whatever it stumbles over, every duty goes on
            self._broke(_READINESS, "judge", e)
        else:
            self._well(_READINESS, "judge")

    def _broke(self, name: str, method: str, why: BaseException) -> None:
        said = f"duty {name} broke: {type(why).__name__}: {why}"
        if self._amiss.get((name, method)) != said:
            _log.error("A duty broke", duty=name, exc_info=why)
        self._amiss[name, method] = said

    def _hung(self, duty: Duty) -> None:
        self._amiss[duty.name, "beat"] = f"duty {duty.name} has hung for more than {self._patience_s:g} s"
        _log.warning("A duty hangs", duty=duty.name, limit_s=self._patience_s)

    def _well(self, name: str, method: str) -> None:
        if self._amiss.pop((name, method), None):
            _log.info("A duty is done again", duty=name)

    async def _rested(self, seconds: float) -> bool:
        """Wait; false when the member closes and there is no next beat."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return not self._closing.is_set()
