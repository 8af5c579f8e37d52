"""How far the Pulps are with the next state of a repository, and to what all were turned before: values alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

Phase = Literal["new", "ready", "syncing", "synced", "publishing", "staged", "left"]
"""``new``: what it needs there may not be there; ``ready``: it is; ``syncing``, ``publishing``: there is a task; ``synced``:
there is a version; ``staged``: a publication of it; ``left``: it is gone on without."""


@dataclass(frozen=True)
class At:
    """How far one Pulp is.

    Attributes:
        repository, task, version, publication: what Pulp calls them; empty: not known yet.
        digest: of all that the version has; empty: not read yet.
        ended: its synchronisation was the so manieth to end.
        tries: how often it failed.
        away_s: for how long it has not answered, or had nobody who works for it.
        why: what came back at last; empty: all is well.
    """

    phase: Phase = "new"
    repository: str = ""
    task: str = ""
    version: str = ""
    publication: str = ""
    digest: str = ""
    packages: int = 0
    ended: int = 0
    tries: int = 0
    away_s: float = 0.0
    why: str = ""

    @property
    def is_in(self) -> bool:
        """Whether it is not gone on without."""
        return self.phase != "left"


@dataclass(frozen=True)
class Stage:
    """The next state of a repository, on its way.

    Attributes:
        job: for which it is done.
        of: the content's digest that is published again; empty: what the origin has.
        rounds: how often Pulps that got something older were sent to the origin again.
        pulps: by their names in the services register.
    """

    repository: str
    job: int
    of: str = ""
    rounds: int = 0
    pulps: Mapping[str, At] = field(default_factory=dict)

    def having(self, pulp: str, at: At) -> Stage:
        """Return it with one Pulp elsewhere."""
        return dataclasses.replace(self, pulps={**self.pulps, pulp: at})

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Stage:
        """Return what :meth:`as_json` wrote down, here or in another version."""
        known = {f.name for f in dataclasses.fields(At)}
        pulps = {name: At(**{k: v for k, v in one.items() if k in known}) for name, one in said["pulps"].items()}
        # A phase that this version does not know is begun anew.
        pulps = {n: at if at.phase in get_args(Phase) else At() for n, at in pulps.items()}
        return cls(said["repository"], said["job"], said.get("of", ""), said.get("rounds", 0), pulps)


@dataclass(frozen=True)
class Turned:
    """To what one Pulp is turned: a publication of a version of it."""

    version: str
    publication: str


@dataclass(frozen=True)
class Flip:
    """The decision what clients get of a repository.

    Attributes:
        generation: the so manieth of the repository.
        digest: of all that it has; the same in every Pulp.
        of: whether it is content of before, published again.
        pulps: to what each is turned; one that is not named is behind.
    """

    repository: str
    generation: int
    digest: str
    packages: int
    pulps: Mapping[str, Turned]
    of: bool = False
    job: int = 0
    by: str = ""
    at: float = 0.0

    def says(self, digest: str, pulps: Mapping[str, Turned]) -> bool:
        """Whether this is what it says already."""
        return self.digest == digest and {**self.pulps} == {**pulps}


@dataclass(frozen=True)
class Follower:
    """What is known of a Pulp that is turned.

    Attributes:
        generation: to which it was turned at last; 0: to none.
        why: why that is not the newest; empty: it is.
        since: store time.
    """

    repository: str
    pulp: str
    generation: int
    why: str = ""
    since: float = 0.0


def turned_of(said: Mapping[str, Any]) -> dict[str, Turned]:
    """Return what a row of the store says of Pulps."""
    return {name: Turned(**cast("Mapping[str, str]", one)) for name, one in said.items()}
