"""Small charts as SVG: drawn here, of one path a colour, so that a page of fifty members stays small.

Colours and sizes are classes of ``static/page.css``: the page's policy allows no style of an element's own. Every chart is
an image with a sentence that says what it shows; what it shows also differs in height, never in colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import log1p

from markupsafe import Markup

HEIGHT = 24
_STRIP = 10
# How high a strip stands where checks said so.
_HEIGHTS = {"r": 3, "d": 6, "u": 10}
_CLASSES = {"r": "ok", "d": "leaving", "u": "bad"}


def bars(values: Sequence[int], marked: Sequence[int], words: str) -> Markup:
    """Return a bar a value, its share that is marked in another colour at the bottom; ``words`` say what it shows."""
    most = max(values, default=0)
    parts = Markup("")
    for row, kind in ((values, "bar"), (marked, "bad")):
        # What is at all is seen.
        heights = [max(1, round(v / most * (HEIGHT - 1))) if v else 0 for v in row]
        if any(heights):
            parts += Markup('<path class="{}" d="{}"/>').format(kind, _steps(heights, HEIGHT))
    return _svg(parts, words, len(values), HEIGHT)


def line(values: Sequence[float | None], words: str) -> Markup:
    """Return a line through the values, on a scale on which a tenth of the largest can still be told from none."""
    most = log1p(max((v for v in values if v is not None), default=0)) or 1
    heights = [None if v is None else HEIGHT - 2 - round(log1p(v) / most * (HEIGHT - 4)) for v in values]
    path, at, drawn = "", 0, False
    for y, run in groupby(heights):
        length = len(list(run))
        if y is not None:
            # Of one point alone its round end is seen.
            path += f"{'L' if drawn else 'M'}{at} {y}" + (f"h{length - 1}" if length > 1 else "" if drawn else "h.1")
        at, drawn = at + length, y is not None
    return _svg(Markup('<path class="line" d="{}"/>').format(path) if path else Markup(""), words, len(values), HEIGHT)


def strip(states: str, words: str) -> Markup:
    """Return what checks said, slot by slot: low where all was well, high where it was not, a gap where nothing is known."""
    parts = Markup("")
    for state, high in _HEIGHTS.items():
        if state in states:
            path = _steps([high if s == state else 0 for s in states], _STRIP)
            parts += Markup('<path class="{}" d="{}"/>').format(_CLASSES[state], path)
    return _svg(parts, words, len(states), _STRIP)


def _steps(heights: Sequence[int], floor: int) -> str:
    """Return the outline of bars that stand beside each other; equal neighbours are one."""
    path, last = f"M0 {floor}", 0
    for height, run in groupby(heights):
        path += f"v{last - height}h{len(list(run))}"
        last = height
    return f"{path}V{floor}z"


def _svg(parts: Markup, words: str, width: int, height: int) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(max(1, width), height, words, parts)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class TimeLine:
    """Where days stand on a line on which a day and ten years can both be read."""

    TICKS = ((1, "1 day"), (7, "1 week"), (30, "1 month"), (365, "1 year"), (3650, "10 years"))

    def __init__(self, longest_days: int) -> None:
        self._most = log1p(max(365, longest_days) * 1.05)

    def share(self, days: int) -> float:
        """Return how far along a number of days is, from 0 to 1; what has ended is at 0."""
        return min(1.0, log1p(max(0, days)) / self._most)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        return [(self.share(days), words) for days, words in self.TICKS if log1p(days) < self._most * 0.97]


_LABELS, _LENGTH, _ROW, _HEAD = 230, 680, 22, 22
TIME_LINE_WIDTH = _LABELS + _LENGTH + 10


def time_line(ends: Sequence[tuple[str, int, str, str]], words: str) -> Markup:
    """Return a row for each end: its label, days from now, state (``ended``, ``soon``, ``fine``), words beside the mark."""
    axis = TimeLine(max((days for _, days, _, _ in ends), default=365))
    high = _HEAD + _ROW * len(ends) + 4
    parts = Markup("")
    for share, text in axis.ticks:
        tick = _n(_LABELS + share * _LENGTH)
        parts += Markup('<path class="grid" d="M{} {}V{}"/><text class="tick" x="{}" y="12">{}</text>').format(
            tick, _HEAD - 4, high, tick, text
        )
    for at, (label, days, state, text) in enumerate(ends):
        x, y = _LABELS + axis.share(days) * _LENGTH, _HEAD + _ROW * at + _ROW // 2
        # Beside the mark, on the side where there is room.
        anchor, beside = ("end", x - 10) if axis.share(days) > 0.75 else ("start", x + 10)
        parts += Markup(
            '<text class="name" x="0" y="{}">{}</text><path class="span {}" d="M{} {}H{}"/>'
            '<circle class="{}" cx="{}" cy="{}" r="5"/><text class="end" text-anchor="{}" x="{}" y="{}">{}</text>'
        ).format(y + 4, label, state, _LABELS, y, _n(x), state, _n(x), y, anchor, _n(beside), y - 3, text)
    return Markup('<svg class="timeline" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        TIME_LINE_WIDTH, high, words, parts
    )
