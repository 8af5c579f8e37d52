from __future__ import annotations

from muster.web.model.members import members
from tests.servers import pages


def test_who_is_out_by_whom_and_why_and_since_when() -> None:
    found = members(pages.page_of(50))
    assert [(m.name, m.stands, m.by, m.wish) for m in found.out] == [
        ("proxy02.example.com", "draining", "anna", "kernel update"),
        ("proxy29.example.com", "maintenance", "ben", "new disks"),
    ]
    assert found.out[0].since is not None
    assert found.out[0].since.words == "2026-11-30 09:00 UTC"


def test_balancers_say_what_their_checks_say() -> None:
    (first, _) = members(pages.page_of(50)).balancers
    assert first.down == (("proxy49.example.com", "anaconda, https, http, puppet, puppetca, smartproxy"),)
    assert first.sessions == sum(12 * n for n in range(1, 51))


def test_with_the_store_away_nobody_knows_since_when() -> None:
    found = members(pages.page_of(3, store="refused"))
    assert all(m.since is None and m.by == "" for m in found.members)
    assert not any(b.is_known for b in found.balancers)
