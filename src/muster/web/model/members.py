"""Who stands where since when and why, and what balancers make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster.web.model.moment import Moment
from muster.web.model.page import Page


@dataclass(frozen=True)
class Standing:
    """A member.

    Attributes:
        since: since when it stands there by what was decided; None: nobody decided anything, or nobody knows.
        by: who wants it out; empty: nobody does.
        wish: why.
    """

    name: str
    address: str
    stands: str
    sentence: str
    since: Moment | None
    by: str
    wish: str
    version: str
    kind: str
    has_this_file: bool


@dataclass(frozen=True)
class Seen:
    """A balancer.

    Attributes:
        down: members that its checks hold for down, with the services.
        trouble: what keeps it from doing what it should.
        unchecked: services that it sends to everybody because every check fails there.
    """

    name: str
    address: str
    is_known: bool
    is_silent: bool
    is_blind: bool
    engine: str
    generation: str
    sessions: int
    down: tuple[tuple[str, str], ...]
    trouble: tuple[str, ...]
    unchecked: tuple[str, ...]


@dataclass(frozen=True)
class Members:
    """The section."""

    members: tuple[Standing, ...]
    out: tuple[Standing, ...]
    balancers: tuple[Seen, ...]


def members(page: Page) -> Members:
    """Return where members stand; ``out`` are those that somebody wants out."""
    all_ = tuple(_standing(m, page.at) for m in page.status["members"])
    return Members(all_, tuple(m for m in all_ if m.by), tuple(_seen(b) for b in page.status["balancers"]))


def _standing(member: Mapping[str, Any], now: datetime) -> Standing:
    said, life = member["said"] or {}, member["life"]
    wish = said.get("wish") or {}
    is_wanted_out = wish.get("wanted") == "drain"
    return Standing(
        name=str(member["name"]),
        address=str(member["address"]),
        stands=str(member["stands"]),
        sentence=str(member["sentence"]),
        since=Moment.ago(now, life["age_s"]) if life else None,
        by=str(wish.get("by", "")) if is_wanted_out else "",
        wish=str(wish.get("reason", "")) if is_wanted_out else "",
        version=str(said.get("version", "")),
        kind=str(member["kind"]),
        has_this_file=bool(member["has_this_file"]),
    )


def _seen(balancer: Mapping[str, Any]) -> Seen:
    said = balancer["said"] or {}
    down = []
    for member, opinions in (said.get("opinions") or {}).items():
        services = [service for service, opinion in opinions.items() if opinion == "down"]
        if services:
            down.append((str(member), ", ".join(services)))
    return Seen(
        name=str(balancer["name"]),
        address=str(balancer["address"]),
        is_known=balancer["said"] is not None,
        is_silent=bool(said.get("silent")),
        is_blind=bool(said.get("blind")),
        engine=str(said.get("engine", "")),
        generation=str(said.get("generation", "")),
        sessions=sum((said.get("sessions") or {}).values()),
        down=tuple(down),
        trouble=tuple(str(said[k]) for k in ("refused", "trouble") if said.get(k)),
        unchecked=tuple(balancer["unchecked"]),
    )
