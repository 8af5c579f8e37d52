"""Everything that ends, on one time line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from muster.pki.complaints import alarms
from muster.web.model.moment import Moment
from muster.web.model.page import Page


@dataclass(frozen=True)
class End:
    """Something that ends.

    Attributes:
        what: the kind of thing: ``ca``, ``member``, ``client``, ``balancer``, ``presented``, ``puppet ca``, ``list``.
        ends: None: the file cannot be read, and ``problem`` says why.
        state: ``ended``, ``soon`` (an alarm sounds) or ``fine``.
    """

    what: str
    name: str
    where: str
    ends: Moment | None
    days: int
    state: str
    problem: str = ""


@dataclass(frozen=True)
class Certificates:
    """The section: all ends, the nearest first."""

    by: str
    ends: tuple[End, ...]


def certificates(page: Page) -> Certificates:
    """Return what ends, the nearest first; what cannot be read in front."""
    found = sorted(_ends(page), key=lambda e: (e.ends is not None, e.days, e.name))
    return Certificates(page.by, tuple(found))


def _ends(page: Page) -> Iterator[End]:
    for one in page.certificates:
        what, name, where = str(one["kind"]), str(one["name"]), str(one["path"])
        if "problem" in one:
            yield End(what, name, where, None, 0, "ended", str(one["problem"]))
        else:
            yield _end(
                what, name or str(one["subject_cn"] or ""), where, datetime.fromisoformat(one["not_after"]), page
            )
    for member in page.status["members"]:
        presented: dict[str, Any] = (member["said"] or {}).get("certificate") or {}
        if "not_after" in presented:
            end = datetime.fromtimestamp(presented["not_after"], UTC)
            yield _end("presented", str(member["name"]), "", end, page)
    if page.puppet_ca is not None:
        ca, crl = page.puppet_ca["ca"], page.puppet_ca["list"]
        if ca is not None:
            yield _end("puppet ca", str(ca["name"]), "", datetime.fromisoformat(ca["not_after"]), page)
        if crl is not None:
            yield _end("list", str(crl["number"]), "", datetime.fromisoformat(crl["not_after"]), page)


def _end(what: str, name: str, where: str, ends: datetime, page: Page) -> End:
    # A list is made anew each day or so; whether that is late its own checks say.
    sounding = alarms(ends, page.at) if what != "list" else ()
    state = "ended" if ends <= page.at else "soon" if sounding else "fine"
    return End(what, name, where, Moment.of(ends, to="day"), (ends - page.at).days, state)
