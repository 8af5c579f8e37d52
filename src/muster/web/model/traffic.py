"""Calls, errors, how long they took and what checks said in the last hour, per service and member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from muster.edge.traffic import STATES, added, below_ms
from muster.web.model.moment import Moment
from muster.web.model.page import Page


@dataclass(frozen=True)
class Line:
    """What one chart row shows: a slot a minute, oldest first.

    Attributes:
        late_ms: a bound that 95 of 100 calls of the slot stayed below; None without calls.
        states: a letter a slot, as ``edge/traffic.py: STATES`` says; empty: of several members.
        worst_ms: the same of the whole hour.
    """

    name: str
    calls: tuple[int, ...]
    errors: tuple[int, ...]
    late_ms: tuple[float | None, ...]
    states: str
    all_calls: int
    all_errors: int
    worst_ms: float | None


@dataclass(frozen=True)
class Service:
    """A service: all its members together, and each."""

    all: Line
    members: tuple[Line, ...]


@dataclass(frozen=True)
class Traffic:
    """The section.

    Attributes:
        unasked: why, by member that told nothing.
    """

    since: Moment
    until: Moment
    services: tuple[Service, ...]
    unasked: tuple[tuple[str, str], ...]


def traffic(page: Page) -> Traffic:
    """Return what the charts show."""
    told = page.traffic
    begin, step = told["from"], told["step_s"]
    slots = told["slots"]
    services = []
    for name, of in told["services"].items():
        lines = tuple(_line(m.split(".")[0], row) for m, row in of.items())
        services.append(Service(_all(name, list(of.values()), slots), lines))
    return Traffic(
        Moment.of(datetime.fromtimestamp(begin, UTC)),
        Moment.of(datetime.fromtimestamp(begin + slots * step, UTC)),
        tuple(sorted(services, key=lambda s: -s.all.all_calls)),
        tuple(told["unasked"].items()),
    )


def merged(rings: Mapping[str, Mapping[str, Any]], unasked: Mapping[str, str], now_s: float) -> dict[str, Any]:
    """Return members' rings as one JSON value: by service, then member, all of the same slots.

    ``rings`` is what each told (``edge/traffic.py: Traffic.told``), by member, of the same ``step_s``.
    """
    step = next((r["step_s"] for r in rings.values()), 60)
    slots = 3600 // step
    begin = (int(now_s) // step - slots + 1) * step
    services: dict[str, dict[str, Any]] = {}
    for member, told in rings.items():
        shift = (told["from"] - begin) // step
        for name, of in told["services"].items():
            services.setdefault(name, {})[member] = {
                "calls": _moved(of["calls"], shift, slots, 0),
                "errors": _moved(of["errors"], shift, slots, 0),
                "buckets": _moved(of["buckets"], shift, slots, []),
                "states": "".join(_moved(of["states"], shift, slots, "-")),
            }
    return {"step_s": step, "from": begin, "slots": slots, "services": services, "unasked": dict(unasked)}


def joined(before: Mapping[str, Any] | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a member told now behind what it told before; of slots that both have, the newer word counts."""
    if before is None or before["step_s"] != told["step_s"] or told["from"] < before["from"]:
        return dict(told)
    kept = (told["from"] - before["from"]) // told["step_s"]
    first = max(0, kept + _length(told) - 3600 // told["step_s"])
    services = {}
    for name in before["services"].keys() | told["services"].keys():
        of = {}
        for column, nothing in (("calls", 0), ("errors", 0), ("buckets", []), ("states", "-")):
            old = list(before["services"].get(name, {}).get(column, ()))[:kept]
            new = list(told["services"].get(name, {}).get(column, ()))
            row = _moved(old, 0, kept, nothing) + _moved(new, 0, _length(told), nothing)
            of[column] = "".join(row[first:]) if column == "states" else row[first:]
        services[name] = of
    return {**told, "from": before["from"] + first * told["step_s"], "services": services}


def _length(told: Mapping[str, Any]) -> int:
    return max((len(of["calls"]) for of in told["services"].values()), default=0)


def _moved(row: Sequence[Any], shift: int, slots: int, nothing: Any) -> list[Any]:
    """Return a row of so many slots in which the given one begins at a slot, before the first where that is negative."""
    return [row[at - shift] if 0 <= at - shift < len(row) else nothing for at in range(slots)]


def _line(name: str, row: Mapping[str, Any]) -> Line:
    buckets = row["buckets"]
    late = tuple(below_ms(b) if b else None for b in buckets)
    calls, errors = tuple(row["calls"]), tuple(row["errors"])
    states = row["states"]
    return Line(name, calls, errors, late, states, sum(calls), sum(errors), below_ms(added(buckets)))


def _all(name: str, rows: Sequence[Mapping[str, Any]], slots: int) -> Line:
    calls = [sum(r["calls"][at] for r in rows) for at in range(slots)]
    errors = [sum(r["errors"][at] for r in rows) for at in range(slots)]
    buckets = [added(r["buckets"][at] for r in rows) if calls[at] else [] for at in range(slots)]
    states = "".join(max((r["states"][at] for r in rows), key=STATES.index, default="-") for at in range(slots))
    return _line(name, {"calls": calls, "errors": errors, "buckets": buckets, "states": states})
