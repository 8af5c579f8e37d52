"""What is published of a repository, what an environment has of it, and what is being done about it: values alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

JobKind = Literal["sync", "verify", "reclaim", "publish"]
JobState = Literal["asked", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Publication:
    """One state of a repository. It never changes; its name is what it consists of.

    Attributes:
        parts: the digest of each part's manifest (:mod:`muster.content.manifest`), by the part's path below the repository.
        made_at: store time.
        origin: where it was fetched from.
        packages: how many they name together.
        size_bytes: how large these are.
        of: the publication whose content it has, and only a newer revision; empty: it is of the origin.
    """

    repository: str
    parts: Mapping[str, str]
    origin: str = ""
    packages: int = 0
    size_bytes: int = 0
    of: str = ""
    made_at: float = 0.0

    @property
    def digest(self) -> str:
        """What names it: the same for the same content, on every member."""
        return hashlib.sha256(json.dumps([self.repository, dict(sorted(self.parts.items()))]).encode()).hexdigest()


@dataclass(frozen=True)
class Distribution:
    """What clients of one environment are to get of one part of a repository.

    Attributes:
        path: where they get it.
        manifest: the digest of the part's manifest in that publication.
        since: store time.
        version: counts its changes.
    """

    path: str
    environment: str
    repository: str
    part: str
    publication: str
    manifest: str
    since: float = 0.0
    version: int = 0


@dataclass(frozen=True)
class Job:
    """Work that somebody asked for, and what became of it.

    Attributes:
        repository: empty: all of them.
        member: who is to do it, empty: one of them.
        done, of: how far it is, in bytes or files; ``of`` is 0 where nobody knows.
        sentence: what it does now, did at last, or why it failed.
        is_unwanted: somebody has cancelled it.
        publication: whose content is to be published again.
    """

    id: int
    kind: JobKind
    repository: str
    member: str
    state: JobState
    asked_by: str
    asked_at: float
    started_at: float | None = None
    ended_at: float | None = None
    holder: str = ""
    done: int = 0
    of: int = 0
    sentence: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    is_unwanted: bool = False
    publication: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "cancelled")
