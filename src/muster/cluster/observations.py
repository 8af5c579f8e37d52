"""What each balancer sees of the members, told to the store once a beat by the process that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from muster.cluster.roster import SILENT_AFTER_S
from muster.store.reading import Query, Readable, Reading

if TYPE_CHECKING:
    from muster.store.engine import Unit

_OBSERVATIONS = Query("SELECT name, content, heartbeat_at FROM balancers", json=("content",))

Opinion = Literal["up", "down", "unknown"]


@dataclass(frozen=True)
class Observation:
    """One balancer's view.

    Attributes:
        generation: hash of the configuration in force.
        opinions: what its checks say, by member, then service; ``unknown`` until one has ended.
        sessions: connections by member, over all of HAProxy's workers.
        trouble: why the balancer could not do what it should; empty when it could.
        totals: connections, failures and bytes by member since the balancer was first started.
        blind: whether HAProxy did not answer, so that opinions and sessions are not known rather than none.
        refused: why what follows from the cluster file and the files it names is not in force; empty when it is.
        held: members (lower case) that it lets no new client reach for some service; None: it does not say.
    """

    name: str
    engine: str = ""
    generation: str = ""
    opinions: Mapping[str, Mapping[str, Opinion]] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""
    totals: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    blind: bool = False
    refused: str = ""
    held: Sequence[str] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def count(self, member: str) -> int | None:
        """Return the connections it has to a member (lower case), None when it does not know."""
        if self.blind:
            return None
        # A balancer of an older Muster does not say that it is blind: in trouble, what is missing was not counted.
        return self.sessions.get(member, None if self.trouble else 0)


@dataclass(frozen=True)
class Observed:
    """An observation and its age in store time."""

    observation: Observation
    age_s: float

    @property
    def silent(self) -> bool:
        return self.age_s > SILENT_AFTER_S

    def as_json(self) -> dict[str, Any]:
        return {**self.observation.as_json(), "age_s": round(self.age_s, 3), "silent": self.silent}


async def told(uow: Unit, observation: Observation) -> None:
    """Write a balancer's observation; only the balancer itself does."""
    from sqlalchemy import insert, update

    from muster.store.tables import balancers, store_now

    content = observation.as_json()
    name = content.pop("name")
    values = {"content": content, "heartbeat_at": store_now()}
    changed = await uow.connection.execute(update(balancers).where(balancers.c.name == name).values(**values))
    if changed.rowcount == 0:
        await uow.connection.execute(insert(balancers).values(name=name, **values))


async def observations_in(uow: Reading) -> dict[str, Observed]:
    """Return every balancer's last observation, by name."""
    now = await uow.now()
    rows = await uow.rows(_OBSERVATIONS)
    return {r["name"]: Observed(_observation(r["name"], r["content"]), max(0.0, now - r["heartbeat_at"])) for r in rows}


class Observations:
    """The balancers' observations in a store, to read."""

    def __init__(self, store: Readable) -> None:
        self._store = store

    async def all(self) -> dict[str, Observed]:
        """Return every balancer's last observation, by name.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await observations_in(uow)


def _observation(name: str, content: Mapping[str, Any]) -> Observation:
    # A newer balancer may tell more than this version knows.
    known = {k: v for k, v in content.items() if k in Observation.__dataclass_fields__}
    return Observation(name, **known)
