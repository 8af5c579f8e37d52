"""What a benchmark found, and the table it is printed in."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured thing: our rounds, and the rounds of the peer they were interleaved with.

    Attributes:
        ours, peer: one value per round, in the order they were taken; ``peer`` is empty when there is none.
        goal: what the project set itself, in words; empty when it set nothing.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peer_name: str = ""
    peer: Sequence[float] = ()
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' own ratios: what disturbs the machine disturbs both halves of a round."""
        pairs = [mine / other for mine, other in zip(self.ours, self.peer, strict=False) if other]
        return statistics.median(pairs) if pairs else None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "peer_name": self.peer_name,
            "peer": list(self.peer),
            "ratio": self.ratio,
            "goal": self.goal,
        }


@dataclass
class Findings:
    """Everything one benchmark found.

    Attributes:
        notes: sentences a reader needs to judge the figures: what was missing, what was replaced.
    """

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"title": self.title, "figures": [f.as_json() for f in self.figures], "notes": self.notes}


def table(findings: Findings) -> str:
    """Return the findings as text: medians, the spread of the rounds in brackets, and ratios."""
    heads = ("", "unit", "Muster", "peer", "ratio", "goal")
    rows = [heads, *(_row(f) for f in findings.figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = [findings.title, *(_line(row, widths) for row in rows)]
    return "\n".join([*lines, *(f"  note: {n}" for n in findings.notes)])


def _row(figure: Figure) -> tuple[str, ...]:
    peer = f"{_spread(figure.peer)} {figure.peer_name}" if figure.peer else "–"
    ratio = "–" if figure.ratio is None else f"{figure.ratio:.{2 if figure.ratio >= 0.1 else 4}f}"
    return (figure.name, figure.unit, _spread(figure.ours), peer, ratio, figure.goal)


def _line(row: Iterable[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{_number(min(values))}–{_number(max(values))}]"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
