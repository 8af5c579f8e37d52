"""What the doctor found last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.web.model.moment import Moment
from muster.web.model.page import Nothing, Page, recorded


@dataclass(frozen=True)
class Cause:
    """A finding, the same of other places, and what follows from it.

    Attributes:
        also: what the others that are alike say of the same place.
        places: of the others that are alike.
        follows: codes of what follows.
    """

    code: str
    place: str
    severity: str
    sentence: str
    cause: str
    remedy: str
    also: tuple[str, ...]
    places: tuple[str, ...]
    follows: tuple[str, ...]


@dataclass(frozen=True)
class Doctor:
    """The section."""

    at: Moment
    by: str
    is_healthy: bool
    causes: tuple[Cause, ...]
    is_cut: bool


def doctor(page: Page) -> Doctor | Nothing:
    """Return what the doctor found last, by cause, in the doctor's order."""
    return recorded(page, page.doctor, lambda record: _read(page, record))


def _read(page: Page, record: Mapping[str, Any]) -> Doctor:
    found = record["found"]
    return Doctor(
        at=Moment.ago(page.at, record["age_s"]),
        by=str(record["by"]),
        is_healthy=bool(found.get("healthy")),
        causes=tuple(_causes(found)),
        is_cut=bool(found.get("cut")),
    )


def _causes(found: Mapping[str, Any]) -> Sequence[Cause]:
    findings, out = list(found.get("findings", ())), []
    for cause in found.get("causes", ()):
        mine, findings = findings[: cause["findings"]], findings[cause["findings"] :]
        firsts = [f for f in mine if not f.get("because")]
        if not firsts:
            continue
        first, *alike = firsts
        places = dict.fromkeys(str(f["place"]) for f in alike if f["place"] != first["place"])
        also = dict.fromkeys(str(f["sentence"]) for f in alike if f["place"] == first["place"])
        is_error = "error" in {f["severity"] for f in firsts}
        out.append(
            Cause(
                code=str(first["code"]),
                place=str(first["place"]),
                severity="error" if is_error else "warning",
                sentence=str(first["sentence"]),
                cause=str(first["cause"]),
                remedy=str(first["remedy"]),
                also=tuple(also),
                places=tuple(places),
                follows=tuple(dict.fromkeys(str(f["code"]) for f in mine if f.get("because"))),
            )
        )
    return out
