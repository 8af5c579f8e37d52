"""Where what is mirrored is given to clients: ``/pulp/content/muster/ENVIRONMENT/KIND/NAME``, and below it."""

from __future__ import annotations

from typing import NamedTuple

from muster.cluster.mirror import Kind, Mirrored

ROOT = "/pulp/content/muster/"


def is_mirrored(path: str) -> bool:
    """Whether what members mirror is given at a path."""
    return path.startswith(ROOT)


def spoken(path: str, sentence: str) -> str:
    """Return a sentence about a repository as it is said of what is mirrored, where no Pulp has it."""
    return sentence.replace("Pulp", "mirror") if is_mirrored(path) else sentence


class Place(NamedTuple):
    """A repository in an environment."""

    environment: str
    kind: str
    name: str

    @property
    def path(self) -> str:
        """What clients are told."""
        return f"{ROOT}{self.environment}/{self.kind}/{self.name}"


def parts(mirrored: Mirrored) -> tuple[str, ...]:
    """Return what is published of a repository: of deb each suite, as ``dists/SUITE``, else the whole, which is empty."""
    return tuple(f"dists/{suite}" for suite in mirrored.suites) or ("",)


def at(environment: str, kind: Kind, name: str, part: str) -> str:
    """Return the path of a part of a repository, as it is followed."""
    path = Place(environment, kind, name).path
    return f"{path}/{part}" if part else path


def split(path: str) -> tuple[Place, str] | None:
    """Return the place that a path is in, and what follows it, without its slash; None: it is in none."""
    if not is_mirrored(path):
        return None
    environment, kind, name, below = (*path[len(ROOT) :].split("/", 3), "", "", "")[:4]
    return (Place(environment, kind, name), below) if environment and kind and name else None
