"""What is the matter with repositories, in words: a pure function of what the store holds of them.

``muster content status``, the doctor and ``muster parity`` say the same, because they say this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from muster.cluster.file import ClusterFile
from muster.content.mirror import paths
from muster.content.view import Report, Version, View, passed_since, waits
from muster.content.views import HOT_S, Picture, Row, Told, picture_in
from muster.store.reading import Reading

Kind = Literal["behind", "unstaged", "alone", "unreached", "waiting"]
# Worst first.
_KINDS: tuple[Kind, ...] = ("unstaged", "behind", "alone", "unreached", "waiting")


@dataclass(frozen=True)
class Matter:
    """One thing that is not as it should be, or not yet.

    Attributes:
        kind: ``behind``: a Pulp carries something older than what is shown, or nothing; ``unstaged``: a member cannot bring
            what it should to its disk; ``alone``: one Pulp carries the repository, all others nothing; ``unreached``: a
            Pulp gives no useful answer; ``waiting``: something newer is not shown yet.
        members: whose it is; of ``alone`` those that have nothing; empty: of no single one.
        for_s: for how long, by the store's clock; None: nobody knows.
        is_overdue: for longer than Pulps and disks may be behind.
    """

    kind: Kind
    members: tuple[str, ...]
    sentence: str
    for_s: float | None
    is_overdue: bool


@dataclass(frozen=True)
class OfMember:
    """What one member has of a repository.

    Attributes:
        carried: what its Pulp has, in words; empty: that is not known.
        is_staged: whether all of what is shown lies on its disk; None: that is not known, or nothing is shown.
        versions: how many lie on its disk.
        told_s: how long ago it said so; None: never.
    """

    name: str
    carried: str
    is_staged: bool | None
    versions: int
    told_s: float | None
    sentence: str


@dataclass(frozen=True)
class State:
    """One repository.

    Attributes:
        shown: the version clients get, in words; empty: none is shown, and each Pulp answers for itself.
        digest: of its entry: of yum ``repomd.xml``, of a deb suite ``InRelease`` or ``Release``.
        shown_s: for how long it has been shown, None: nothing is.
        asked_s: how long ago clients asked for it last.
        is_followed: clients ask for it now, so members look at it; what is said of another one is what was.
        matters: worst first.
    """

    path: str
    shown: str
    digest: str
    shown_s: float | None
    asked_s: float
    is_followed: bool
    matters: tuple[Matter, ...]
    members: tuple[OfMember, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether anything of it is so for longer than it may be."""
        return any(m.is_overdue for m in self.matters)

    @property
    def sentence(self) -> str:
        """What is the matter, worst first; what there is no matter with, too."""
        if self.matters:
            return "; ".join(m.sentence for m in self.matters)
        if not self.is_followed:
            return "nobody asks for it now"
        return "as it should be" if self.shown else "no Pulp has it"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_wrong": self.is_wrong, "sentence": self.sentence}


def states(picture: Picture, members: Sequence[str], services: Iterable[str], lag_s: float) -> list[State]:
    """Return how all repositories of a picture are, worst first, then by path.

    ``members`` are the names of those of kind ``muster``, ``services`` those of content.
    """
    ready = picture.ready(services)
    found = [_state(picture, row, members, ready, lag_s) for row in picture.rows.values()]
    return sorted(found, key=lambda s: (_rank(s), s.path))


async def states_in(uow: Reading, cluster: ClusterFile, within_s: float = HOT_S) -> list[State]:
    """As :func:`states`, of the repositories asked for within so long; none where each Pulp answers for itself."""
    content = cluster.content
    if content is None or not content.one_version:
        return []
    picture = await picture_in(uow, within_s)
    return states(
        picture, [str(m.name) for m in cluster.members if m.kind == "muster"], content.services, content.lag_s
    )


def _rank(state: State) -> tuple[bool, int, bool]:
    kinds = [_KINDS.index(m.kind) for m in state.matters]
    return not state.is_wrong, min(kinds, default=len(_KINDS)), not state.is_followed


def _state(picture: Picture, row: Row, members: Sequence[str], ready: frozenset[str], lag_s: float) -> State:
    versions = picture.versions.get(row.path, {})
    shown = versions.get(row.view.shown) if row.view.shown is not None else None
    reports = picture.reports(row.path, members, ready)
    asked_s = max(0.0, picture.now - row.asked_at)
    is_followed = asked_s < HOT_S
    matters = tuple(_matters(picture, row, shown, reports, lag_s)) if is_followed else ()
    matters = tuple(replace(m, sentence=paths.spoken(row.path, m.sentence)) for m in matters)
    told = picture.told.get(row.path, {})
    return State(
        row.path,
        str(shown) if shown is not None else "",
        shown.digest if shown is not None else "",
        picture.now - row.view.shown_since if shown is not None else None,
        asked_s,
        is_followed,
        tuple(sorted(matters, key=lambda m: (not m.is_overdue, _KINDS.index(m.kind), m.members))),
        tuple(_of_member(name, told.get(name), picture, row, shown, matters) for name in members),
    )


def _matters(
    picture: Picture, row: Row, shown: Version | None, reports: Sequence[Report], lag_s: float
) -> Iterable[Matter]:
    versions = picture.versions.get(row.path, {})
    view = row.view if shown is not None else View(row.view.generation, newer_since=row.view.newer_since)
    told = {r.member: said for r in reports if (said := picture.heard(row.path, r.member)) is not None}
    heard = [r for r in reports if r.member in told]
    carriers = [r.member for r in heard if r.is_reached and r.carried is not None]
    nothing = [r.member for r in heard if r.is_reached and r.carried is None]
    is_alone = shown is not None and len(carriers) == 1 and bool(nothing)
    if is_alone:
        for_s = picture.now - row.view.shown_since
        yield Matter(
            "alone", tuple(nothing), f"the Pulp of {carriers[0]} alone has it, {', '.join(nothing)} "
            f"{'has' if len(nothing) == 1 else 'have'} no such repository, {ago(for_s)} after it was shown",
            for_s, for_s >= lag_s,
        )  # fmt: skip
    for one in heard:
        said = told[one.member]
        if one.unreached_since is not None:
            for_s = picture.now - one.unreached_since
            why = f" ({said.trouble})" if said.trouble else ""
            sentence = f"the Pulp of {one.member} has given no useful answer for {ago(for_s)}{why}"
            yield Matter("unreached", (one.member,), sentence, for_s, for_s >= lag_s)
            continue
        behind = _behind(one, shown, versions, picture.left.get(row.path, {}), row)
        if behind is not None and not (is_alone and one.carried is None):
            has, since = behind
            for_s = picture.now - since
            yield Matter(
                "behind", (one.member,), f"the Pulp of {one.member} {has}, for {ago(for_s)}", for_s, for_s >= lag_s
            )
        if said.trouble:
            since_when = _unstaged_since(row, shown, one)
            lasts_s = picture.now - since_when if since_when is not None else None
            # What nobody could bring yet has no time; members speak of what lasts.
            is_overdue = lasts_s is None or lasts_s >= lag_s
            yield Matter(
                "unstaged",
                (one.member,),
                f"{one.member} cannot bring it to its disk: {said.trouble}",
                lasts_s,
                is_overdue,
            )
    if why := waits(view, versions, reports, picture.now, lag_s):
        for_s = picture.now - (row.view.newer_since or picture.now)
        sentence = why[0].lower() + why[1:].removesuffix(".")
        yield Matter("waiting", (), f"{sentence}, for {ago(for_s)}", for_s, False)


def _behind(
    report: Report, shown: Version | None, versions: Mapping[str, Version], left: Mapping[str, float], row: Row
) -> tuple[str, float] | None:
    """Return what a Pulp has in place of what is shown, and since when; None: it is not behind."""
    if shown is None:
        return None
    if report.carried is None:
        return "has no such repository", row.view.shown_since
    carried = versions.get(report.carried)
    if carried is None or carried.order >= shown.order:
        return None
    return f"still carries {carried}", passed_since(carried, row.view, versions, left)


def _unstaged_since(row: Row, shown: Version | None, report: Report) -> float | None:
    """Return since when a member could have had what it has not."""
    if shown is not None and shown.digest not in report.staged:
        return row.view.shown_since
    return row.view.newer_since


def _of_member(
    name: str, told: Told | None, picture: Picture, row: Row, shown: Version | None, matters: Sequence[Matter]
) -> OfMember:
    if told is None:
        return OfMember(name, "", None, 0, None, "has said nothing of it")
    versions = picture.versions.get(row.path, {})
    age_s = max(0.0, picture.now - told.told_at)
    carried = str(versions.get(told.carried, "something that is not known yet")) if told.carried else "nothing"
    is_staged = shown.digest in told.staged if shown is not None else None
    mine = [m.sentence for m in matters if name in m.members]
    seen = picture.members.get(name)
    if mine:
        sentence = "; ".join(mine)
    elif seen is None or seen.silent:
        sentence = "is silent; this is what it said last"
    else:
        sentence = "" if is_staged is not False else "has not all metadata of what is shown yet"
    return OfMember(name, carried if told.reached else "", is_staged, len(told.staged), age_s, sentence)


def ago(seconds: float) -> str:
    """Return a time as a person says it: 12 s, 3 min, 5 h, 2 d."""
    for most, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{max(0.0, seconds) / unit:.0f} {word}"
    return f"{seconds / 86_400:.0f} d"
