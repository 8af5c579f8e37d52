"""``content.steered`` of the cluster file: Pulps that members lead, all to the same content, and what these have."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.mirror import Label, OriginURL, Policy, Suite, Word
from muster.kernel.settings import Settings

SteeredKind = Literal["yum", "deb", "file"]

PulpName = Annotated[str, StringConstraints(pattern=r"\Apulp(?:@[a-z0-9](?:[a-z0-9.-]{0,98}[a-z0-9])?)?\z")]
"""A Pulp in the services register: ``pulp``, ``pulp@dmz``, ``pulp@proxy01.example.net``."""

_BasePath = Annotated[
    str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,15}\z")
]


class SteeredRepository(Settings):
    """A repository that each of the Pulps has."""

    kind: SteeredKind
    """``yum``; ``deb``, whose suites are named; ``file``, what a ``PULP_MANIFEST`` lists."""
    url: OriginURL
    """Where it is: of yum what lies above ``repodata``, of deb what lies above ``dists``, of files what lies above
    ``PULP_MANIFEST``. Pulps ask there, members do not."""
    path: _BasePath
    """Below what the Pulps' content applications give it to clients (``base_path``), the same in each of them."""
    policy: Policy = "on_demand"
    """When Pulps fetch packages: ``immediate``, ``on_demand`` or ``streamed``."""
    suites: Annotated[tuple[Suite, ...], Field(max_length=100)] = ()
    """Of deb: what lies below ``dists``."""
    components: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    """Of deb: which of them. Absent: all."""
    architectures: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    """Of deb: which of them. Absent: all."""
    sync_every_s: Annotated[float, Field(ge=60, le=30 * 86_400)] | None = None
    """How often it is looked at. Absent: when somebody says so."""

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> SteeredRepository:
        if (self.kind == "deb") != bool(self.suites):
            raise ValueError("suites are named for deb, and for no other kind")
        if self.kind != "deb" and (self.components or self.architectures):
            raise ValueError("components and architectures are of deb")
        if self.path.split("/")[0] == "muster":
            raise ValueError("path begins with muster/, where members answer what they mirror themselves")
        return self


class Steered(Settings):
    """Pulps that members lead: what is named here is made and changed in them, and nothing else. Not those of Katello."""

    pulps: Annotated[tuple[PulpName, ...], Field(min_length=1, max_length=50)]
    """Which, by their names in the services register (``muster services add``): its control URL is where the API is asked,
    its credentials are what that is shown."""
    repositories: Annotated[dict[Label, SteeredRepository], Field(max_length=1000)] = {}
    """By name; none that ``content.mirror`` has."""
    wait_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """How long a synchronisation waits for a Pulp that does not answer before it goes on without it."""
    retain_versions: Annotated[int, Field(ge=3, le=100)] = 5
    """How many versions of each repository Pulps keep, so that clients with metadata of before find its packages."""

    @model_validator(mode="after")
    def _has_one_of_each(self) -> Steered:
        if len(set(self.pulps)) != len(self.pulps):
            raise ValueError("a Pulp is named twice")
        paths = sorted((one.path.split("/"), name) for name, one in self.repositories.items())
        for (path, first), (other, second) in pairwise(paths):
            if other[: len(path)] == path:
                raise ValueError(f"the path of {second} is that of {first}, or lies below it")
        return self
