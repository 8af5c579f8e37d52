"""Pulps in memory, an origin, and a store, for who steers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.cluster.steered import Steered
from muster.content.mirror.jobs import Outcome
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Job, JobKind
from muster.content.steered.ledger import Steerings
from muster.content.steered.reached import Reached
from muster.content.steered.stages import At, Turned
from muster.content.steered.steering import Steering
from muster.kernel.errors import MusterError, NotFound, Rejected
from muster.store.engine import Store
from muster.store.leases import Lease

NAMES = ("pulp@a", "pulp@b")


@dataclass
class Origin:
    """Attributes: revision: what it has now."""

    revision: int = 1


@dataclass
class MemoryPulp:
    """One. It numbers versions as Pulp does: only what is new makes one.

    Attributes:
        leads: the publication that clients get, empty: none.
        raises: what it answers to a method, instead of doing it.
        is_signed: whether the origin has signed what it has.
        lost: publications that were removed.
    """

    name: str
    origin: Origin
    versions: list[int] = field(default_factory=list)
    publications: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    leads: str = ""
    exists: bool = False
    is_signed: bool = False
    lost: set[str] = field(default_factory=set)
    raises: dict[str, MusterError] = field(default_factory=dict)

    def _ask(self, what: str) -> None:
        for key in ("all", what):
            if key in self.raises:
                raise self.raises[key]

    async def ensured(self, *_: object) -> str:
        self._ask("ensured")
        self.exists = True
        return "repository"

    async def begun(self, *_: object, anew: bool = False) -> str:
        self._ask("begun")
        self.tasks.append(f"task {len(self.tasks)}")
        return self.tasks[-1]

    async def looked(self, at: At, number: int) -> tuple[At, Mapping[str, int]]:
        self._ask("looked")
        if at.phase == "publishing":
            return dataclasses.replace(at, phase="staged", publication=at.task, why="", away_s=0.0), {}
        if not self.versions or self.versions[-1] != self.origin.revision:
            self.versions.append(self.origin.revision)
        return At("synced", at.repository, version=f"{len(self.versions)}", ended=number, tries=at.tries), {}

    async def read(self, _: str, at: At) -> At:
        self._ask("read")
        revision = self.versions[int(at.version) - 1]
        return dataclasses.replace(at, digest=f"{revision:08x}" * 8, packages=revision, why="", away_s=0.0)

    async def refuse_signed(self, *_: object) -> None:
        if self.is_signed:
            raise Rejected("the origin has signed it")

    async def published(self, _: str, at: At, known: Sequence[Turned], *, again: bool) -> At:
        self._ask("published")
        if not again and (one := next((k for k in known if k.version == at.version), None)) is not None:
            return dataclasses.replace(at, phase="staged", publication=one.publication)
        self.publications.append(f"{self.name} {len(self.publications)} of {at.version}{' again' if again else ''}")
        return dataclasses.replace(at, phase="publishing", task=self.publications[-1])

    async def turned(self, _: str) -> dict[str, tuple[str, str]]:
        self._ask("turned")
        return {"rocky9": ("distribution", self.leads)} if self.exists else {}

    async def turn(self, _: str, to: Turned) -> None:
        self._ask("turn")
        if to.publication in self.lost:
            raise Rejected("there is no such publication")
        self.leads = to.publication


@dataclass
class World:
    store: Store
    origin: Origin = field(default_factory=Origin)
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        self.pulps = {name: MemoryPulp(name, self.origin) for name in NAMES}
        self.absent: dict[str, str] = {}
        self.steerings, self.ledger = Steerings(self.store), Ledger(self.store)
        self.restart()

    def restart(self) -> None:
        """Have another process steer."""
        repositories = {"rocky9": {"kind": "yum", "url": "http://origin.test", "path": "rocky9"}}
        settings = Steered.model_validate({"pulps": NAMES, "repositories": repositories, "wait_s": self.wait_s})
        self.steering = Steering(settings, self.steerings, self.ledger, self)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Reached]:
        pulps: Any = {name: one for name, one in self.pulps.items() if name not in self.absent}
        yield Reached(pulps, self.absent)

    async def job(self, kind: JobKind = "sync", *, publication: str = "") -> Job:
        return await self.ledger.ask(kind, "rocky9", "", "me", publication=publication)

    async def does(self, job: Job, lease: Lease | None = None) -> Outcome:
        """Do a job, and end it."""
        await self.ledger.take("h", "m", [job.kind])
        outcome = await self.steering.runs_beside({})[job.kind](job, _progress, lease)
        await self.ledger.end(job.id, "h", "done", "")
        return outcome

    async def sync(self) -> Outcome:
        return await self.does(await self.job())

    def shown(self) -> list[str]:
        """Return what clients of each get."""
        return [one.leads for one in self.pulps.values()]

    def gone(self, name: str) -> NotFound:
        return NotFound(f"{name} is gone")


async def _progress(_done: int, _of: int, _sentence: str) -> None: ...
