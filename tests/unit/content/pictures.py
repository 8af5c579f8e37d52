"""Pictures of the store for who reads them: repositories, and what members said of them."""

from __future__ import annotations

from muster.cluster.roster import Report, Seen, Wish
from muster.content.view import Version, View
from muster.content.views import Picture, Row, Told

NOW = 1_000_000.0
LAG_S = 600.0
MEMBERS = ("p1.test", "p2.test", "p3.test")
PATH = "/pulp/content/r"


def version(revision: int, *, generation: int = 0, seen_at: float = NOW - 5000) -> Version:
    return Version(f"{revision:064x}", generation, revision, float(revision), seen_at)


def told(
    carried: Version | None, *staged: Version, trouble: str = "", unreached_s: float | None = None, age_s: float = 1.0
) -> Told:
    return Told(
        unreached_s is None, carried.digest if carried is not None else "", frozenset(v.digest for v in staged),
        NOW - unreached_s if unreached_s is not None else None, trouble, NOW - age_s,
    )  # fmt: skip


def seen(name: str, *, age_s: float = 0.5, state: str = "ready") -> Seen:
    report = Report(name, 1, "1", "0005", "h", 1, "ready", "", {}, {"https": {"state": state}}, {})
    return Seen(report, NOW - 9000, age_s, Wish())


def picture(
    says: dict[str, Told],
    *versions: Version,
    shown: Version | None = None,
    shown_s: float = 3000.0,
    newer_s: float | None = None,
    asked_s: float = 5.0,
    left: dict[str, float] | None = None,
    members: dict[str, Seen] | None = None,
    path: str = PATH,
) -> Picture:
    """Return a picture of one repository."""
    view = View(
        0, shown.digest if shown is not None else None, NOW - shown_s if shown is not None else 0.0,
        NOW - newer_s if newer_s is not None else None,
    )  # fmt: skip
    return Picture(
        NOW, {path: Row(path, view, 1, NOW - asked_s, None)}, {path: {v.digest: v for v in versions}}, {},
        {path: left or {}}, {path: says}, members if members is not None else {m: seen(m) for m in MEMBERS},
    )  # fmt: skip


def both(*pictures: Picture) -> Picture:
    """Return a picture of the repositories of several."""
    first = pictures[0]
    return Picture(
        NOW, {k: v for p in pictures for k, v in p.rows.items()}, {k: v for p in pictures for k, v in p.versions.items()},
        {}, {k: v for p in pictures for k, v in p.left.items()}, {k: v for p in pictures for k, v in p.told.items()},
        first.members,
    )  # fmt: skip
