"""Keepers: distributions of our own in a member's Pulp that lead to publications which its own have left. Pure.

What a distribution names, Pulp keeps whole, whatever it keeps else. Each repository has a ring of a few, and the one that
was turned longest ago is turned to what is served now.

Source: docs/facts/content-and-boot.md §8.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from muster.content.pulp import Distribution

CONTENT = "/pulp/content/"
"""Below it Pulp's content application has what is distributed."""
LABEL = "muster_keeper"
"""Holds the cluster's name; without it nothing is ours."""
_TURN = "muster_turn"
_SPARED = "katello_orphan_cleanup"
MOST = 8
# Beside the repository, not in front of its whole path: who may read it is told by the beginning of that, too.
_SEGMENT = "muster-keep"
_KEEPER = re.compile(r"(?P<parent>(?:[^/]+/)*)muster-keep/(?P<number>[0-9])/(?P<last>[^/]+)\Z")
_INSIDE = re.compile(r"(?:\A|/)muster-keep/[0-9](?:/|\Z)")
# What other bytes than a package's may be at, in another version, is never asked of a keeper.
_PACKAGES = (".rpm", ".drpm")


@dataclass(frozen=True, slots=True)
class Keeper:
    """One distribution of ours.

    Attributes:
        number: its place in the ring.
        of: the base path of the repository's own distribution.
        turn: counts; what was turned last has the highest.
        hidden: as :class:`~muster.content.pulp.Distribution` has it.
    """

    href: str
    number: int
    of: str
    publication: str
    turn: int
    guard: str
    hidden: bool | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one keeper becomes.

    Attributes:
        href: of the keeper; empty: it is made.
    """

    href: str
    number: int
    publication: str
    turn: int


def base_path(of: str, number: int) -> str:
    """Return where a keeper of a repository is, given the base path of its own distribution."""
    parent, slash, last = of.rpartition("/")
    return f"{parent}{slash}{_SEGMENT}/{number}/{last}"


def paths(at: str, below: str, count: int) -> list[str]:
    """Return where keepers may have a package, as paths at the content application; ``at`` is the repository's."""
    if not below.endswith(_PACKAGES) or not at.startswith(CONTENT):
        return []
    of = at.removeprefix(CONTENT)
    return [f"{CONTENT}{base_path(of, number)}/{below}" for number in range(count)]


def is_inside(path: str) -> bool:
    """Whether a path at the content application leads to a keeper: clients have no business there."""
    below = path.partition("?")[0].removeprefix(CONTENT)
    return path.startswith(CONTENT) and _INSIDE.search(unquote(below)) is not None


def recognised(found: Distribution, cluster: str) -> Keeper | None:
    """Return a distribution as a keeper of this cluster's; None: it is somebody else's."""
    if found.labels.get(LABEL) != cluster or (at := _KEEPER.match(found.base_path)) is None:
        return None
    turn = found.labels.get(_TURN, "")
    return Keeper(
        found.href, int(at["number"]), f"{at['parent']}{at['last']}", found.publication,
        int(turn) if turn.isascii() and turn.isdigit() and len(turn) < 16 else 0, found.guard, found.hidden,
    )  # fmt: skip


def turned(ring: Sequence[Keeper], served: Sequence[str], count: int) -> list[Turn]:
    """Return what becomes of a ring when publications were served, the one that is served now last."""
    now = {k.number: k for k in ring if k.number < count}
    turns: dict[int, Turn] = {}
    for publication in served[-count:] if count else ():
        last = max((k.turn for k in now.values()), default=0)
        same = next((k for k in now.values() if k.publication == publication), None)
        if same is not None and (same.turn == last or publication != served[-1]):
            continue
        free = next((n for n in range(count) if n not in now), None)
        if same is not None:
            # What is served again is as good as new.
            keeper = same
        elif free is not None:
            keeper = Keeper("", free, "", "", 0, "")
        else:
            keeper = min(now.values(), key=lambda k: k.turn)
        now[keeper.number] = replace(keeper, publication=publication, turn=last + 1)
        turns[keeper.number] = Turn(keeper.href, keeper.number, publication, last + 1)
    return sorted(turns.values(), key=lambda t: t.turn)


def labels(cluster: str, turn: int) -> dict[str, str]:
    """Return the labels of a keeper."""
    return {LABEL: cluster, _TURN: str(turn), _SPARED: "false"}


def made(turn: Turn, of: Distribution, cluster: str) -> Mapping[str, Any]:
    """Return what a keeper consists of that is made: it asks the guard of the repository's own distribution."""
    at = base_path(of.base_path, turn.number)
    # An earlier Pulp refuses fields that it does not know.
    hidden = {} if of.hidden is None else {"hidden": True}
    return {
        "name": f"{_SEGMENT}/{cluster}/{turn.number}/{of.base_path}", "base_path": at, "publication": turn.publication,
        "content_guard": of.guard or None, "pulp_labels": labels(cluster, turn.turn), **hidden,
    }  # fmt: skip


def altered(turn: Turn, of: Distribution, cluster: str) -> Mapping[str, Any]:
    """Return what changes of a keeper that is turned."""
    return {
        "publication": turn.publication, "content_guard": of.guard or None, "pulp_labels": labels(cluster, turn.turn),
    }  # fmt: skip
