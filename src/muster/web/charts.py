"""Small charts as SVG: drawn here, of one path a colour, so that a page of fifty members stays small.

Colours and sizes are classes of ``static/page.css``: the page's policy allows no style of an element's own. Every chart is
an image with a sentence that says what it shows; what it shows also differs in height, never in colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import log1p

from markupsafe import Markup

WIDTH, HEIGHT = 120, 24
_STRIP = 10
# How high a strip stands where checks said so.
_HEIGHTS = {"r": 3, "d": 6, "u": 10}
_CLASSES = {"r": "ok", "d": "leaving", "u": "bad"}


def bars(values: Sequence[int], marked: Sequence[int], words: str) -> Markup:
    """Return a bar a value, its share that is marked in another colour at the bottom; ``words`` say what it shows."""
    most = max(values, default=0)
    parts = Markup("")
    for row, kind in ((values, "bar"), (marked, "bad")):
        path = "".join(_bar(at, value, most, len(values)) for at, value in enumerate(row) if value)
        if path:
            parts += Markup('<path class="{}" d="{}"/>').format(kind, path)
    return _svg(parts, words, HEIGHT)


def line(values: Sequence[float | None], words: str) -> Markup:
    """Return a line through the values, on a scale on which a tenth of the largest can still be told from none."""
    most = max((v for v in values if v is not None), default=0)
    step = WIDTH / max(1, len(values) - 1)
    path, pen = "", "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        height = log1p(value) / log1p(most) if most else 0
        path += f"{pen}{_n(at * step)} {_n(HEIGHT - 2 - height * (HEIGHT - 4))}"
        # A line of one point only is seen by its round end.
        path += "h.1" if pen == "M" else ""
        pen = "L"
    return _svg(Markup('<path class="line" d="{}"/>').format(path) if path else Markup(""), words, HEIGHT)


def strip(states: str, words: str) -> Markup:
    """Return what checks said, slot by slot: low where all was well, high where it was not, a gap where nothing is known."""
    wide = WIDTH / max(1, len(states))
    paths: dict[str, str] = {}
    at = 0
    for state, run in groupby(states):
        length = len(list(run))
        if state in _HEIGHTS:
            high = _HEIGHTS[state]
            paths[state] = paths.get(state, "") + f"M{_n(at * wide)} {_STRIP}v-{high}h{_n(length * wide)}v{high}z"
        at += length
    parts = Markup("").join(Markup('<path class="{}" d="{}"/>').format(_CLASSES[s], p) for s, p in paths.items())
    return _svg(parts, words, _STRIP)


def _bar(at: int, value: int, most: int, count: int) -> str:
    wide = WIDTH / count
    high = max(1.0, value / most * (HEIGHT - 1))
    return f"M{_n(at * wide)} {HEIGHT}v-{_n(high)}h{_n(wide * 0.8)}v{_n(high)}z"


def _svg(parts: Markup, words: str, height: int) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, height, words, parts)


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


_LABELS, _LENGTH, _ROW, _HEAD = 230, 690, 22, 22
TIME_LINE_WIDTH = _LABELS + _LENGTH


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
