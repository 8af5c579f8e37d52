"""The cluster at a glance: is somebody needed, and what for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from muster.web.model.page import Page

# Where members stand, those first that need somebody.
_ORDER = (
    "unreachable", "silent", "unready", "draining", "drained", "maintenance", "joining", "warming", "removed", "ready",
)  # fmt: skip
_ALARMS = frozenset({"unreachable", "silent", "unready"})


@dataclass(frozen=True)
class Tally:
    """How many members stand somewhere."""

    stands: str
    members: int


@dataclass(frozen=True)
class Need:
    """Something that needs somebody: what it is about, and in words."""

    about: str
    sentence: str


@dataclass(frozen=True)
class Glance:
    """What the top of the page says.

    Attributes:
        is_well: whether nobody is needed.
        store: why the store did not answer; empty: it did.
        behind: members that run with another cluster file.
        steward: what the process that decides said last, and who that is; empty: nothing yet.
    """

    cluster: str
    address: str
    is_well: bool
    tallies: tuple[Tally, ...]
    needs: tuple[Need, ...]
    nowhere: tuple[str, ...]
    store: str
    behind: tuple[str, ...]
    steward: str
    steward_by: str
    has_steward: bool


def glance(page: Page) -> Glance:
    """Return what the top of the page says."""
    status = page.status
    counts = Counter(str(m["stands"]) for m in status["members"])
    known = [s for s in _ORDER if counts[s]]
    tallies = tuple(Tally(s, counts[s]) for s in (*known, *sorted(counts.keys() - set(known))))
    steward = status["steward"]
    return Glance(
        cluster=str(status["cluster"]),
        address=str(status["address"]),
        is_well=bool(status["ready"]),
        tallies=tallies,
        needs=tuple(Need(str(m["name"]), str(m["sentence"])) for m in status["members"] if not m["as_wished"]),
        nowhere=tuple(status["nowhere"]),
        store=str(status["store"]["trouble"] or ""),
        behind=tuple(str(m["name"]) for m in status["members"] if not m["has_this_file"]),
        steward=str(steward["sentence"]),
        # Its process and start tell it from its successor, which nobody reads here.
        steward_by=" ".join(str(steward["by"]).split()[:2]),
        has_steward=bool(steward["decides"]),
    )


def changes(before: Page, now: Page) -> tuple[str, ...]:
    """Return in sentences what became of members between two looks, for who cannot see the page change."""
    stood = {m["name"]: m["stands"] for m in before.status["members"]}
    said = [
        f"{_first(str(m['name']))} is {m['stands']}"
        for m in now.status["members"]
        if m["name"] in stood and stood[m["name"]] != m["stands"]
    ]
    were, are = before.status["store"]["trouble"], now.status["store"]["trouble"]
    if bool(were) != bool(are):
        said.append("The store does not answer" if are else "The store answers again")
    return tuple(said)


def _first(name: str) -> str:
    return name.split(".")[0]
