"""Which findings have one cause, so that a person reads what to mend first, and not the same thing twelve times. Pure.

One cause makes many findings: of a member that is down every port refuses, it is silent, and HAProxy has it out. A cause
is a finding itself; what follows from it vanishes with it, and is counted under it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from muster.doctor.matrix import Cell, Entrance
from muster.kernel.findings import Finding

# Nobody is there: what a host that is off says, and a process that does not run.
_NOBODY = frozenset({"TLS-REFUSED", "TLS-TIMEOUT", "TLS-UNREACHABLE", "TLS-UNRESOLVED"})
_OF_A_DEAD_MEMBER = _NOBODY | {"SERVICE-DOWN", "MEMBER-SILENT", "BALANCER-OUT", "SIGNER-DOWN"}
# In this order: what has to be mended before anything else can be seen or mended.
_FIRST = (
    "PKI-UNUSABLE", "STORE-SETTINGS", "STORE-DOWN", "DISK-FULL", "CLUSTER-DOWN", "MEMBER-DOWN", "BALANCER-DOWN",
    "ENTRANCE-DOWN",
)  # fmt: skip
# What says of a service on a member why the other finding about it is there, the first cause in front.
_OF_A_PLACE = {
    "MEMBER-UNREADY": ("CONTENT-BACKEND",),
    "BALANCER-OUT": ("CONTENT-BACKEND", "MEMBER-UNREADY"),
    "SERVICE-DOWN": ("CONTENT-BACKEND",),
}
# What says of a repository why a member is out, worst first.
_OF_A_REPOSITORY = ("CONTENT-UNSTAGED", "CONTENT-BEHIND", "CONTENT-ALONE")
# What says once for all members why they do not hear Foreman's version, and how their notes of it begin.
_OF_FOREMAN = ("FOREMAN-API", "FOREMAN-VERSION-UNKNOWN")
_FOREMANS_VERSION = ": Foreman's version "
# What members say of themselves: their sentences, and not the findings' causes, tell what it is about.
_OF_ITSELF = ("MEMBER-NOTE", "MEMBER-UNREADY")
# How the store's own errors begin, wherever they are repeated.
_STORE = "The store ("
_NO_STORE_YET = "There is no store"


@dataclass(frozen=True)
class Cause:
    """A finding, and what vanishes with it.

    Attributes:
        alike: findings of the same code and cause elsewhere.
        follows: what follows from any of these.
    """

    finding: Finding
    alike: tuple[Finding, ...] = ()
    follows: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        return (self.finding, *self.alike, *self.follows)

    @property
    def is_error(self) -> bool:
        return any(f.severity == "error" for f in (self.finding, *self.alike))


def dead(
    members: Sequence[str],
    entrances: Sequence[Entrance],
    cells: Sequence[Cell],
    *,
    is_here_down: bool = False,
    ruby: Container[str] = (),
) -> list[Finding]:
    """Return a finding for each member and entrance where nothing answers at all; one for all when no member does.

    ``is_here_down``: this host's own HAProxy is known not to answer, which says it of the first entrance. ``ruby``: the
    members that are Ruby Smart Proxies, which start otherwise.
    """
    silent = [m for m in members if _is_dead(m.lower(), cells)]
    asked = [m for m in members if any(c.path == m.lower() and c.asked for c in cells)]
    if len(silent) > 1 and silent == asked:
        found = [
            Finding(
                "CLUSTER-DOWN",
                ", ".join(silent),
                f"None of the {len(silent)} members answers on any port",
                "The cluster was not started, or this host does not reach the members' network.",
                f"On each member's host: {_start(silent, ruby)}; when they run, look at the network from here.",
            )
        ]
    else:
        found = [
            Finding(
                "MEMBER-DOWN",
                member,
                f"{member} answers on none of its ports",
                "The member is stopped, its host is off, or a firewall lies between.",
                f"On that host: {_look(member, ruby)}; when it is meant: muster maintenance {member}",
            )
            for member in silent
        ]
    if len(silent) < len(asked):
        found += [
            Finding(
                "ENTRANCE-DOWN",
                entrance.host,
                f"Nothing answers {entrance.words} ({entrance.host}), though members do",
                "The balancer does not run, listens elsewhere, or a firewall lies between.",
                "On the balancer's host: systemctl status muster-balancer; compare its addresses with: ss -ltnp",
            )
            for entrance in entrances[1 if is_here_down else 0 :]
            if _is_dead(entrance.path, cells)
        ]
    return found


def _look(member: str, ruby: Container[str]) -> str:
    if member in ruby:
        return "systemctl status foreman-proxy"
    return f"systemctl status muster-member, or muster serve --member {member}"


def _start(members: Sequence[str], ruby: Container[str]) -> str:
    ours = "systemctl start muster-member, or muster serve --member NAME"
    theirs = "systemctl start foreman-proxy"
    kinds = {member in ruby for member in members}
    if kinds == {True, False}:
        return f"{ours}; of Ruby members {theirs}"
    return theirs if kinds == {True} else ours


def grouped(findings: Iterable[Finding], members: Sequence[str], entrances: Sequence[Entrance]) -> list[Cause]:
    """Return the causes, first things first; every finding stands under one of them."""
    found = list(dict.fromkeys(findings))
    by_code: dict[str, list[Finding]] = {}
    for finding in found:
        by_code.setdefault(finding.code, []).append(finding)
    root = {f: _root(f, by_code, members, entrances) for f in found}
    causes: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in found:
        if root[finding] is None:
            causes.setdefault((finding.code, finding.cause, _topic(finding, members)), []).append(finding)
    groups = [
        Cause(first, tuple(alike), tuple(f for f in found if _top(f, root) in (first, *alike) and root[f] is not None))
        for first, *alike in causes.values()
    ]
    return sorted(groups, key=_rank)


def _topic(finding: Finding, members: Sequence[str]) -> str:
    """Return what a member's own sentence is about, ``feature dns, provider ns2``; empty of any other finding."""
    if finding.code not in _OF_ITSELF:
        return ""
    head, _, rest = finding.sentence.partition(": ")
    said = rest if any(m.lower() in head.lower() for m in members) else finding.sentence
    return said.partition(": ")[0]


def _rank(cause: Cause) -> tuple[bool, int]:
    code = cause.finding.code
    return not cause.is_error, _FIRST.index(code) if code in _FIRST else len(_FIRST)


def _top(finding: Finding, root: Mapping[Finding, Finding | None]) -> Finding:
    above = root[finding]
    return finding if above is None else _top(above, root)


def _root(
    finding: Finding, by_code: Mapping[str, Sequence[Finding]], members: Sequence[str], entrances: Sequence[Entrance]
) -> Finding | None:
    """Return the finding that this one follows from, None when from none."""

    def first(code: str) -> Finding | None:
        return next((f for f in by_code.get(code, ()) if f != finding), None)

    if finding.code == "MEMBER-NOTE" and _FOREMANS_VERSION in finding.sentence:
        return next((f for code in _OF_FOREMAN if (f := first(code)) is not None), None)
    store = first("STORE-DOWN")
    if store is not None and _STORE in finding.sentence:
        return store
    cluster = first("CLUSTER-DOWN")
    if cluster is not None and (
        finding.code in _OF_A_DEAD_MEMBER | {"SERVICE-NOWHERE", "BALANCER-DOWN"}
        or (finding.code == "STORE-DOWN" and _NO_STORE_YET in finding.sentence)
    ):
        return cluster
    service, _, where = finding.place.rpartition(" on ")
    member = next((m for m in members if m.lower() == where.lower()), None)
    if finding.code in _OF_A_DEAD_MEMBER and (
        gone := next((f for f in by_code.get("MEMBER-DOWN", ()) if f.place == (member or where)), None)
    ):
        return gone
    entrance = next((e for e in entrances if e.path == where), None)
    if entrance is not None and finding.code in _OF_A_DEAD_MEMBER:
        own = first("BALANCER-DOWN") if entrance == entrances[0] else None
        return (
            own
            or next((f for f in by_code.get("ENTRANCE-DOWN", ()) if f.place == entrance.host), None)
            or next((f for f in by_code.get("SERVICE-NOWHERE", ()) if f.place == service), None)
        )
    if (of := _OF_A_PLACE.get(finding.code)) is not None:
        found = (f for code in of for f in by_code.get(code, ()) if f.place.lower() == finding.place.lower())
        return next(found, None) or _of_a_repository(finding, where, by_code)
    if finding.code == "CONTENT-UNREACHED":
        return _behind_it(finding, by_code)
    if finding.code in ("SERVICE-NOWHERE", "SERVICE-SHORT"):
        return _why_nowhere(finding.place, by_code, members)
    return None


def _of_a_repository(finding: Finding, member: str, by_code: Mapping[str, Sequence[Finding]]) -> Finding | None:
    """Return which finding of a repository says why a member is out."""
    if finding.code != "MEMBER-UNREADY":
        return None
    found = (f for code in _OF_A_REPOSITORY for f in by_code.get(code, ()) if member.lower() in f.sentence.lower())
    return next((f for f in found if f"{f.place}: " in finding.sentence), None)


def _behind_it(finding: Finding, by_code: Mapping[str, Sequence[Finding]]) -> Finding | None:
    """Return why a Pulp gives no answer for a repository: it gives none at all."""
    said = finding.sentence.lower()
    return next((f for f in by_code.get("CONTENT-BACKEND", ()) if f.place.rpartition(" on ")[2].lower() in said), None)


def _why_nowhere(service: str, by_code: Mapping[str, Sequence[Finding]], members: Sequence[str]) -> Finding | None:
    """Return the first of the findings that say why members do not serve it."""
    names = {m.lower() for m in members}
    for findings in by_code.values():
        for finding in findings:
            about, _, where = finding.place.rpartition(" on ")
            if finding.severity == "error" and about == service and where.lower() in names:
                return finding
    return next(iter(by_code.get("MEMBER-DOWN", ())), None)


def _is_dead(path: str, cells: Sequence[Cell]) -> bool:
    mine = [c for c in cells if c.path == path and c.asked]
    codes = [{f.code for f in c.findings if f.severity == "error"} for c in mine]
    return bool(mine) and any(c & _NOBODY for c in codes) and all(c and c <= _NOBODY | {"SERVICE-DOWN"} for c in codes)
