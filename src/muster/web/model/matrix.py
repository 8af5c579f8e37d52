"""Members × services, with the reason of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.web.model.page import Page

# What a cell says, and the sign beside it: no state is told by colour alone.
WORDS = {
    "ready": ("ready", "✓"),
    "draining": ("draining", "↓"),
    "unready": ("not ready", "✕"),
    "unreachable": ("no answer", "✕"),
}


@dataclass(frozen=True)
class Column:
    """A service."""

    name: str
    ports: str
    balance: str


@dataclass(frozen=True)
class Cell:
    """One member's answer for one service; ``state`` is empty where the service does not lead to it."""

    state: str = ""
    words: str = ""
    sign: str = ""


@dataclass(frozen=True)
class Reason:
    """Why cells are as they are, and of which services."""

    services: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Row:
    """A member.

    Attributes:
        short: its name up to the first dot.
        reasons: of its cells; the same of several services once.
    """

    name: str
    short: str
    stands: str
    is_ruby: bool
    cells: tuple[Cell, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Matrix:
    """The table."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def matrix(page: Page) -> Matrix:
    """Return the table of members and services."""
    services = page.status["services"]
    columns = tuple(
        Column(
            str(s["name"]),
            ", ".join(str(p) for p in (s["listen_port"], *s["also_listen_ports"])),
            str(s["balance"]),
        )
        for s in services
    )
    answers = {(s["name"], a["member"]): a for s in services for a in s["members"]}
    rows = []
    for member in page.status["members"]:
        name = str(member["name"])
        mine = {s["name"]: a for s in services if (a := answers.get((s["name"], name.lower()))) is not None}
        cells = tuple(_cell(mine.get(s["name"])) for s in services)
        rows.append(
            Row(name, name.split(".")[0], str(member["stands"]), member["kind"] == "foreman", cells, _reasons(mine))
        )
    return Matrix(columns, tuple(rows))


def _cell(answer: Mapping[str, Any] | None) -> Cell:
    if answer is None:
        return Cell()
    state = str(answer["state"])
    words, sign = WORDS.get(state, (state, "✕"))
    return Cell(state, words, sign)


def _reasons(answers: Mapping[str, Mapping[str, Any]]) -> tuple[Reason, ...]:
    by_sentence: dict[str, list[str]] = {}
    for service, answer in answers.items():
        said = [answer["reason"]] if answer["reason"] else []
        for sentence in (*said, *answer["notes"]):
            by_sentence.setdefault(_without_service(str(sentence), service), []).append(service)
    return tuple(Reason(tuple(services), sentence) for sentence, services in by_sentence.items())


def _without_service(sentence: str, service: str) -> str:
    """Return a sentence so that the same of another service is the same: of one port all are asked alike."""
    return sentence.replace(f"?service={service} ", " ")
