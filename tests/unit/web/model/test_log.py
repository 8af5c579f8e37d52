from __future__ import annotations

from muster.web.model.log import MOST, Filter, log
from tests.servers import pages


def test_the_newest_are_first_and_so_many() -> None:
    found = log(pages.page_of(3), Filter())
    assert len(found.records) == MOST
    assert found.is_cut
    assert found.records[0].message.endswith("n=159")


def test_member_level_and_text_take_what_is_asked_for() -> None:
    page = pages.page_of(3)
    warned = log(page, Filter(level="WARN"))
    assert {r.level for r in warned.records} == {"WARN", "ERROR"}
    assert {r.member for r in log(page, Filter(member="PROXY02.example.com")).records} == {"proxy02"}
    assert {r.level for r in log(page, Filter(text="notAUTH")).records} == {"ERROR"}
    assert log(page, Filter(text="no such words")).records == ()
