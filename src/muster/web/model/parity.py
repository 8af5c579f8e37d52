"""In what members differ, as the census found it last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.observed.parity import lasting
from muster.web.model.moment import Moment
from muster.web.model.page import Nothing, Page, recorded


@dataclass(frozen=True)
class Parity:
    """The section.

    Attributes:
        drifts, expected: sentences: of differences that nobody meant, and of declared ones.
        unasked: why, by member that could not be asked.
        unneeded: declared differences that no member shows, with the reason given.
    """

    at: Moment
    by: str
    is_alike: bool
    fields: int
    asked: int
    drifts: tuple[str, ...]
    expected: tuple[str, ...]
    unasked: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    unneeded: tuple[tuple[str, str], ...]


def parity(page: Page) -> Parity | Nothing:
    """Return what the census found last."""
    return recorded(page, page.parity, lambda record: _read(page, record))


def _read(page: Page, record: Mapping[str, Any]) -> Parity:
    found = record["found"]
    drifts = found.get("drifts", ())
    unasked = found.get("unasked", {})
    return Parity(
        at=Moment.ago(page.at, record["age_s"]),
        by=str(record["by"]),
        is_alike=bool(found.get("alike")),
        fields=int(found.get("fields", 0)),
        asked=len(found.get("members", ())) - len(unasked),
        drifts=tuple(f"{d['sentence']}{lasting(float(d.get('lasted_s', 0.0)))}" for d in drifts if d["differing"]),
        expected=tuple(str(d["sentence"]) for d in drifts if not d["differing"]),
        unasked=tuple((str(m), str(why)) for m, why in unasked.items()),
        notes=tuple(str(n) for n in found.get("notes", ())),
        unneeded=tuple((str(e["field"]), str(e["reason"])) for e in found.get("unneeded", ())),
    )
