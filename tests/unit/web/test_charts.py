from __future__ import annotations

import re
from xml.etree import ElementTree

from muster.web import charts

WORDS = 'a & "b" <c>'


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def test_every_chart_is_an_image_with_words_and_without_a_style_of_its_own() -> None:
    for made in (
        charts.bars([1, 2, 0], [0, 1, 0], WORDS),
        charts.line([None, 2.0, 3.0], WORDS),
        charts.strip("rrdu-", WORDS),
        charts.time_line([(WORDS, 12, "soon", WORDS)], WORDS),
        charts.bars([], [], WORDS),
        charts.line([], WORDS),
        charts.strip("", WORDS),
    ):
        image = parsed(made)
        assert (image.get("role"), image.get("aria-label")) == ("img", WORDS)
        assert not re.search(r"style=|#[0-9a-f]{3}|https?:", made)


def test_equal_neighbours_are_one_bar_and_what_is_at_all_is_seen() -> None:
    assert 'd="M0 24v-23h2v22h1v1h1V24z"' in charts.bars([1000, 1000, 1, 0], [0] * 4, "")
    assert "bad" not in charts.bars([3, 3], [0, 0], "")
    assert 'class="bad" d="M0 24v0h1v-12h1V24z"' in charts.bars([2, 2], [0, 1], "")


def test_a_line_has_a_gap_where_nobody_called() -> None:
    drawn = parsed(charts.line([5.0, 5.0, None, 5.0, 1.0], ""))[0].get("d") or ""
    assert drawn.count("M") == 2
    assert drawn.startswith("M0 2h1M3 2")


def test_what_checks_said_differs_in_height() -> None:
    paths = {p.get("class"): p.get("d") for p in parsed(charts.strip("rduu-", ""))}
    assert paths == {
        "ok": "M0 10v-3h1v3h4V10z",
        "leaving": "M0 10v0h1v-6h1v6h3V10z",
        "bad": "M0 10v0h2v-10h2v10h1V10z",
    }


def test_a_day_and_ten_years_are_both_on_the_time_line() -> None:
    axis = charts.TimeLine(5000)
    assert axis.share(-5) == 0
    assert 0.05 < axis.share(1) < axis.share(7) < axis.share(365) < axis.share(5000) < 1
    assert [words for _, words in axis.ticks] == ["1 day", "1 week", "1 month", "1 year", "10 years"]
    assert [words for _, words in charts.TimeLine(20).ticks] == ["1 day", "1 week", "1 month"]
