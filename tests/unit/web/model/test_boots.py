from __future__ import annotations

from dataclasses import replace

from muster.web.model.boots import MOST, boots
from tests.servers import pages


def test_each_machine_has_its_story_with_how_far_it_came() -> None:
    found = boots(pages.page_of(3))
    assert found is not None
    stuck, built = found
    assert (stuck.mac, stuck.stage, stuck.kind) == ("52:54:00:b0:07:01", "has its menu", "coming")
    assert "never asked for its kernel" in stuck.stops
    assert (built.stage, built.kind, built.is_cut) == ("built", "ok", True)
    assert [line.sign for line in built.lines].count("\N{MULTIPLICATION X}") == 1
    assert built.lines[0].member == "proxy01"
    assert built.last.words == "11-30 11:58:04"


def test_the_newest_lines_of_a_long_story_are_shown() -> None:
    page = pages.page_of(3)
    assert page.boots is not None
    one = page.boots[0]
    long = {**one, "happenings": list(one["happenings"]) * 20}
    found = boots(replace(page, boots=[long]))
    assert found is not None
    assert (len(found[0].lines), found[0].is_cut) == (MOST, True)


def test_where_members_see_nothing_of_boots_there_is_no_section() -> None:
    assert boots(replace(pages.page_of(3), boots=None)) is None
    assert boots(replace(pages.page_of(3), boots=[])) == ()


def test_a_stage_of_a_newer_version_is_shown_by_its_word() -> None:
    page = pages.page_of(3)
    assert page.boots is not None
    found = boots(replace(page, boots=[{**page.boots[0], "stage": "discovered"}]))
    assert found is not None
    assert found[0].stage == "discovered"
