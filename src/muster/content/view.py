"""Which version of a repository the cluster shows: a pure function from what backends carry and members hold.

Every member stands in front of a Pulp of its own, and each of these changes at a moment of its own. Clients shall notice
nothing of it: whoever asks is answered from one row, and this is what becomes of the row.

Invariants, cited by number in the tests:
    1. What becomes shown lies whole on the disk of every member that takes clients, and of one at least.
    2. Every change shows something higher in order: nobody who asks after another one was answered gets something older.
       To go back is a new generation, and what is gone back to is raised into it; generations only grow.
    3. Nothing lower is shown while a backend carries what is shown or something above it, or may: it was not reached,
       for less than ``forget_s``, or carries what is not known yet.
    4. Something newer is shown when two backends carry it or something above it: the death of one then takes no packages
       of what clients were told. One is enough when nobody else carries anything, or nobody who was reached what is shown,
       as its packages are going; what is carried and not known yet may be anything, so it is waited for.
       Until all members have that, one below it is shown that they have, also where no backend carries it any more:
       packages that it lacks by then, what is shown lacks as well.
    5. What is newer waits for a second backend no longer than ``lag_s``, counted from when something above what is shown
       was first carried, also where one version follows another faster than that.
    6. When nobody carries what is shown or something above it, nor may, what most backends carry becomes shown, of
       equals what one went to last: a version was withdrawn, or a repository emptied. What was withdrawn keeps its
       generation, so a backend that comes back with it changes nothing.
    7. That there is no such repository is shown only when every backend was reached and says so.
    8. Whoever decides, and from however old a reading, comes to no harm: a decision counts only where since its reading
       the row has not changed and nobody began to take clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

# So many backends shall carry what is shown, or something above it.
_CARRIERS = 2


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a repository that some backend carried.

    Attributes:
        digest: SHA-256 of its ``repomd.xml``; of a deb suite, of its ``InRelease`` or ``Release``.
        generation: in force when it was first seen, or when it was last gone back to.
        revision: -1 where it is no number; Pulp writes 0 for an emptied repository.
        timestamp: the largest of its data, a finite number.
        seen_at: store time of its first sight.
    """

    digest: str
    generation: int
    revision: int
    timestamp: float
    seen_at: float

    @property
    def order(self) -> tuple[int, int, float, str]:
        """What is newer is higher: first sight alone would call new what a lagging backend carries."""
        return self.generation, self.revision, self.timestamp, self.digest

    def __str__(self) -> str:
        named = f"revision {self.revision}" if self.revision >= 0 else "the version"
        return f"{named} ({self.digest[:12]})"


@dataclass(frozen=True, slots=True)
class Report:
    """What one member says of a repository; one that is silent is reported by whoever reads.

    Attributes:
        carried: digest that its backend carries, or did when it was last reached; None: it answered 404, or never.
        carried_since: store time when it was last seen to carry something else, whoever was away or restarted since;
            0: never.
        staged: digests of which everything that is named lies on its disk, and stays there while somebody carries it.
        is_ready: it takes clients of content now, or may, for all that is known of a silent one.
        unreached_since: store time since when nobody heard from its backend, be it that the member is silent, that the
            backend does not answer or that its ``repomd.xml`` cannot be read; None: it was reached.
    """

    member: str
    carried: str | None
    staged: frozenset[str]
    is_ready: bool
    carried_since: float = 0.0
    unreached_since: float | None = None

    @property
    def is_reached(self) -> bool:
        return self.unreached_since is None


@dataclass(frozen=True, slots=True)
class View:
    """The row of a repository.

    Attributes:
        shown: a digest; None: nothing was ever shown, or the repository is gone.
        shown_since: store time.
        newer_since: store time since when some backend has carried something above what is shown; None: none does.
    """

    generation: int = 0
    shown: str | None = None
    shown_since: float = 0.0
    newer_since: float | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What the row becomes.

    Attributes:
        raised: digest of the version whose generation becomes the view's, in the same unit of work.
        why: one sentence for the log and the status.
    """

    view: View
    raised: str | None
    why: str


def decided(
    view: View,
    versions: Mapping[str, Version],
    reports: Sequence[Report],
    now: float,
    *,
    lag_s: float,
    forget_s: float,
) -> Decided | None:
    """Return what the row becomes; None: it stays as it is.

    The row is read first, then versions, then reports, one of every member that the cluster file lists. ``versions`` holds
    what is shown, and what is or was carried as far as it is known.
    """
    carried = sorted(_carried(versions, reports), key=lambda v: v.order, reverse=True)
    shown = None if view.shown is None else versions[view.shown]
    above = [v for v in carried if shown is None or v.order > shown.order]
    if not above:
        back = None if shown is None or shown in carried else _gone_back(view, shown, versions, reports, now, forget_s)
        if back is None and view.newer_since is not None:
            return Decided(replace(view, newer_since=None), None, "What was newer is carried no more.")
        return back
    since = now if view.newer_since is None else view.newer_since
    highest, why = _allowed(shown, carried, _unknown(versions, reports), is_overdue=now - since >= lag_s)
    for version in sorted({*above, *passed(view, versions)}, key=lambda v: v.order, reverse=True):
        if highest is not None and version.order <= highest.order and _is_staged(version, reports):
            newer_since = now if version.order < above[0].order else None
            # One that was known before all said that there is none is of the generation that began then.
            raised = version.digest if version.generation < view.generation else None
            row = View(view.generation, version.digest, now, newer_since)
            return Decided(row, raised, f"Showing {version}: {why}.")
    if view.newer_since is not None:
        return None
    return Decided(replace(view, newer_since=now), None, _waiting(highest, above, reports))


def passed(view: View, versions: Mapping[str, Version]) -> list[Version]:
    """Return what was above what is shown and carried since it is shown, be it that no backend carries it any more.

    Where one version follows another faster than all members have it, none would be shown while it is carried.
    """
    if view.shown is None:
        return []
    shown = versions[view.shown]
    return [v for v in versions.values() if v.seen_at > view.shown_since and v.order > shown.order]


def lagging(
    view: View,
    versions: Mapping[str, Version],
    report: Report,
    now: float,
    lag_s: float,
    reports: Sequence[Report] = (),
    left: Mapping[str, float] | None = None,
) -> str:
    """Return why a member is not fit to answer for the repository; empty when it is.

    Whether its backend answers at all is asked elsewhere. ``reports`` are those of all members: one that cannot bring what
    another one that takes clients has would keep that from being shown for ever. ``left`` is as in :func:`passed_since`.
    """
    shown = None if view.shown is None else versions[view.shown]
    if shown is not None and shown.digest not in report.staged:
        return f"it has not all metadata of {shown} yet"
    if why := _holding_up(view, shown, versions, report, now, lag_s, reports):
        return why
    if shown is None or not report.is_reached:
        return ""
    # Whose backend does not have the repository at all was not given it, and answers with what others have.
    carried = versions.get(report.carried) if report.carried is not None else None
    if carried is None or carried.order >= shown.order:
        return ""
    for_s = now - passed_since(carried, view, versions, left or {})
    return f"its Pulp still carries {carried}, {for_s:.0f} s after something newer was shown" if for_s >= lag_s else ""


def passed_since(carried: Version, view: View, versions: Mapping[str, Version], left: Mapping[str, float]) -> float:
    """Return since when something newer than a version has been shown, however often that has changed since.

    ``left`` says of versions since when they are not shown any more.
    """
    passed = [at for digest, at in left.items() if digest in versions and versions[digest].order >= carried.order]
    return min([*passed, view.shown_since])


def waits(view: View, versions: Mapping[str, Version], reports: Sequence[Report], now: float, lag_s: float) -> str:
    """Return what something newer than what is shown waits for; empty when there is nothing newer."""
    carried = sorted(_carried(versions, reports), key=lambda v: v.order, reverse=True)
    shown = None if view.shown is None else versions[view.shown]
    above = [v for v in carried if shown is None or v.order > shown.order]
    if not above or view.newer_since is None:
        return ""
    highest, _ = _allowed(shown, carried, _unknown(versions, reports), is_overdue=now - view.newer_since >= lag_s)
    return _waiting(highest, above, reports)


def _holding_up(
    view: View,
    shown: Version | None,
    versions: Mapping[str, Version],
    report: Report,
    now: float,
    lag_s: float,
    reports: Sequence[Report],
) -> str:
    """Return which version this member keeps from being shown, by not having it, for longer than anybody waits for it."""
    if view.newer_since is None or now - view.newer_since < lag_s:
        return ""

    def is_newer(version: Version) -> bool:
        return shown is None or version.order > shown.order

    elsewhere = [r.staged for r in reports if r.is_ready and r.member != report.member]
    newer = [v for v in _carried(versions, reports) if is_newer(v) and any(v.digest in staged for staged in elsewhere)]
    newest = max(newer, key=lambda v: v.order, default=None)
    if newest is None or newest.digest in report.staged:
        return ""
    # One that has brought others since has lag_s for each; one that brings none has had its time, however many came.
    if now - newest.seen_at < lag_s and any(is_newer(versions[d]) for d in report.staged if d in versions):
        return ""
    return f"it has not all metadata of {newest}, {now - view.newer_since:.0f} s after something newer was first seen"


def _carried(versions: Mapping[str, Version], reports: Sequence[Report]) -> list[Version]:
    digests = [r.carried for r in reports if r.is_reached and r.carried is not None]
    return [versions[d] for d in digests if d in versions]


def _unknown(versions: Mapping[str, Version], reports: Sequence[Report]) -> int:
    """Return how many backends carry what is not known yet."""
    return sum(r.is_reached and r.carried is not None and r.carried not in versions for r in reports)


def _may_carry_anything(report: Report, versions: Mapping[str, Version], now: float, forget_s: float) -> bool:
    if report.unreached_since is not None:
        return now - report.unreached_since < forget_s
    return report.carried is not None and report.carried not in versions


def _is_staged(version: Version, reports: Sequence[Report]) -> bool:
    have = [version.digest in r.staged for r in reports if r.is_ready]
    return all(have) and any(version.digest in r.staged for r in reports)


def _allowed(
    shown: Version | None, carried: Sequence[Version], unknown: int, *, is_overdue: bool
) -> tuple[Version | None, str]:
    """Return the highest that may be shown, None: nothing may, and why; ``carried`` has the highest first.

    ``unknown`` backends carry something else, which may be above or below.
    """
    if is_overdue:
        return carried[0], "the other Pulps had time enough to follow"
    if len(carried) + unknown < _CARRIERS:
        return carried[0], "no other Pulp carries anything"
    highest = carried[_CARRIERS - 1] if len(carried) >= _CARRIERS else None
    is_alone = highest is None or (shown is not None and shown not in carried and highest.order < shown.order)
    if not is_alone:
        return highest, f"{_CARRIERS} Pulps carry it or something newer"
    if unknown:
        return None, ""
    # It is the only one above: were there two, the second would be the highest that may.
    return carried[0], "no Pulp carries what was shown"


def _waiting(allowed: Version | None, above: Sequence[Version], reports: Sequence[Report]) -> str:
    if allowed is None or allowed not in above:
        return f"Not showing {above[0]} yet: one Pulp alone carries it."
    late = sorted(r.member for r in reports if r.is_ready and allowed.digest not in r.staged)
    return f"Not showing {allowed} yet: not all metadata of it is at {', '.join(late) or 'any member'}."


def _gone_back(
    view: View,
    shown: Version,
    versions: Mapping[str, Version],
    reports: Sequence[Report],
    now: float,
    forget_s: float,
) -> Decided | None:
    if any(_may_carry_anything(r, versions, now, forget_s) for r in reports):
        return None
    votes = Counter(_carried(versions, reports))
    if votes:
        # The highest could be that of a backend that lagged behind the withdrawn one already; the last one to leave that
        # says where it went.
        since = {r.carried: r.carried_since for r in sorted(reports, key=lambda r: r.carried_since) if r.is_reached}
        version = max(votes, key=lambda v: (votes[v], since[v.digest], v.order))
        if not _is_staged(version, reports):
            return None
        why = f"Showing {version} in a new generation: no Pulp carries {shown} or anything newer."
        return Decided(View(view.generation + 1, version.digest, now), version.digest, why)
    if not reports or not all(r.is_reached for r in reports):
        return None
    why = f"There is no such repository any more: every Pulp says so, the last shown was {shown}."
    return Decided(View(view.generation + 1, None, now), None, why)
