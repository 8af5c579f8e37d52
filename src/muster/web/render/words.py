"""The page's own words, where templates need them of values."""

from __future__ import annotations

from collections.abc import Sequence

from muster.web.model.certificates import End
from muster.web.model.traffic import Line

HEADINGS = {
    "matrix": "Members and services",
    "members": "Who stands where",
    "traffic": "Traffic",
    "certificates": "Certificates",
    "puppet-ca": "Puppet CA",
    "parity": "Parity",
    "doctor": "Doctor",
    "boots": "Boots",
    "log": "Log",
}

KINDS = {
    "ca": "cluster's CA",
    "member": "member's bundle",
    "client": "client's bundle",
    "balancer": "balancers' checks",
    "presented": "shown by",
    "puppet ca": "Puppet CA",
    "list": "Puppet CA's revocation list",
    "file": "file",
}

STANDS = {
    "ready": ("ok", "✓"),
    "unreachable": ("bad", "✕"),
    "silent": ("bad", "✕"),
    "unready": ("bad", "✕"),
    "draining": ("leaving", "↓"),
    "drained": ("leaving", "↓"),
    "maintenance": ("leaving", "■"),
    "removed": ("leaving", "–"),
    "joining": ("coming", "↑"),
    "warming": ("coming", "↑"),
}
"""The class and the sign of where a member stands."""

# Rows of the time line; what ends later stands in the table.
_MOST_ENDS = 12


def stands(word: str) -> tuple[str, str]:
    return STANDS.get(word, ("bad", "?"))


def stood(word: str) -> str:
    """Return where members stand in words of a sentence."""
    return {"maintenance": "in maintenance", "unready": "not ready"}.get(word, word)


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"≤ {value / 1000:g} s" if value >= 1000 else f"≤ {value:g} ms"


def of_calls(line: Line) -> str:
    most = max(line.calls, default=0)
    said = f"{line.name}: calls per minute in the last hour: at most {most}, {line.calls[-1] if line.calls else 0} now"
    return f"{said}; {plural(line.all_errors, 'error')}" if line.all_errors else said


def of_latency(line: Line) -> str:
    return f"{line.name}: 95 of 100 calls took {ms(line.worst_ms)} in the last hour"


def of_checks(line: Line) -> str:
    bad, leaving, unknown = (line.states.count(s) for s in "ud-")
    parts = [
        f"not ready in {plural(bad, 'minute')}" if bad else "",
        f"draining in {plural(leaving, 'minute')}" if leaving else "",
        f"nothing known of {plural(unknown, 'minute')}" if unknown else "",
    ]
    said = ", ".join(p for p in parts if p)
    return f"{line.name}: {said or 'ready in every minute'} of the last hour"


def ends_shown(ends: Sequence[End]) -> list[tuple[str, int, str, str]]:
    """Return the rows of the time line: what ends on one day and is of one kind is one row."""
    groups: dict[tuple[str, int, str], list[End]] = {}
    for end in ends:
        if end.ends is not None:
            groups.setdefault((end.what, end.days, end.state), []).append(end)
    rows = []
    for (what, days, state), those in list(groups.items())[:_MOST_ENDS]:
        date = those[0].ends.words if those[0].ends is not None else ""
        rows.append((_label(what, those), days, state, f"{date}, {left(days)}"))
    return rows


def _label(what: str, those: Sequence[End]) -> str:
    """Return what a row of the time line is about, as long as there is room for."""
    kind = KINDS.get(what, what)
    if what in ("ca", "puppet ca", "balancer"):
        return kind
    if len(those) > 1:
        return f"{kind} {len(those)} members" if what == "presented" else f"{kind} × {len(those)}"
    return f"{kind} {those[0].name.split('.')[0]}"


def left(days: int) -> str:
    if days < 0:
        return "ended"
    return plural(days, "day") if days < 3650 else f"{days // 365} years"
