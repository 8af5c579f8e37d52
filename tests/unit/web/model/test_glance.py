from __future__ import annotations

from muster.web.model.glance import changes, glance
from tests.servers import pages


def test_members_are_counted_by_where_they_stand_those_that_need_somebody_first() -> None:
    found = glance(pages.page_of(50))
    assert [(t.stands, t.members) for t in found.tallies] == [
        ("unreachable", 1), ("draining", 1), ("maintenance", 1), ("ready", 47),
    ]  # fmt: skip
    assert [(n.about, n.sentence) for n in found.needs] == [("proxy49.example.com", "silent for 41 s")]
    assert found.behind == ("proxy03.example.com",)
    assert (found.steward_by, found.is_well) == ("member proxy01.example.com", False)


def test_what_became_of_members_is_said_in_sentences() -> None:
    well, troubled = pages.page_of(3, troubled=False), pages.page_of(3)
    assert changes(well, troubled) == ("proxy02 is unreachable",)
    assert changes(troubled, troubled) == ()
    gone = pages.page_of(3, troubled=False, store="refused")
    assert changes(well, gone) == ("The store does not answer",)
    assert changes(gone, well) == ("The store answers again",)
    # Who comes or goes did not change where it stands.
    assert changes(well, pages.page_of(4, troubled=False)) == ()
