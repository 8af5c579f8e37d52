"""The machines that booted last, each with its story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster.web.model.moment import Moment
from muster.web.model.page import Page

MOST = 40
"""Lines of a story that are shown, the newest."""

_SHORT = {
    "nothing": ("nothing yet", "coming"),
    "offered": ("address offered", "coming"),
    "prepared": ("prepared", "coming"),
    "told": ("told what to load", "coming"),
    "loader": ("has its loader", "coming"),
    "menu": ("has its menu", "coming"),
    "kernel": ("has its kernel", "coming"),
    "template": ("has its template", "coming"),
    "built": ("built", "ok"),
}


@dataclass(frozen=True)
class Line:
    """What happened; ``sign`` says beside the colour that it failed."""

    at: Moment
    member: str
    what: str
    sign: str


@dataclass(frozen=True)
class Boot:
    """A machine.

    Attributes:
        stage, kind: how far it came, in words, and how that looks.
        is_cut: whether older lines are left out.
    """

    mac: str
    names: str
    addresses: str
    last: Moment
    stage: str
    kind: str
    stops: str
    lines: tuple[Line, ...]
    is_cut: bool


def boots(page: Page) -> tuple[Boot, ...] | None:
    """Return the machines that booted last, the newest first; None: there is nothing to know of any."""
    if page.boots is None:
        return None
    return tuple(_boot(one) for one in page.boots)


def _boot(one: Mapping[str, Any]) -> Boot:
    happenings = one["happenings"]
    stage, kind = _SHORT.get(str(one["stage"]), (str(one["stage"]), "coming"))
    # Probing for what is not there is no failure of the boot; where the story stops at one, its sentence says so.
    return Boot(
        mac=str(one["mac"] or ""),
        names=", ".join(map(str, one["names"])),
        addresses=", ".join(map(str, one["addresses"])),
        last=_moment(happenings[-1]["at"]),
        stage=stage,
        kind=kind,
        stops=str(one["stops"]),
        lines=tuple(_line(h) for h in happenings[-MOST:]),
        is_cut=bool(one["cut"]) or len(happenings) > MOST,
    )


def _line(one: Mapping[str, Any]) -> Line:
    return Line(_moment(one["at"]), str(one["member"]).split(".")[0], str(one["what"]), "" if one["ok"] else "✕")


def _moment(at: str) -> Moment:
    found = datetime.fromisoformat(at)
    return Moment(f"{found:%Y-%m-%dT%H:%M:%SZ}", f"{found:%m-%d %H:%M:%S}")
