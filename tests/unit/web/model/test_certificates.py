from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from muster.web.model.certificates import certificates
from tests.servers import pages


def test_everything_that_ends_is_there_the_nearest_first() -> None:
    found = certificates(pages.page_of(3)).ends
    assert [(e.what, e.name, e.days, e.state) for e in found][:3] == [
        ("list", "4711", 6, "fine"),
        ("balancer", "balancer", 12, "soon"),
        ("presented", "proxy03.example.com", 21, "soon"),
    ]
    assert {e.what for e in found} == {"ca", "member", "client", "balancer", "presented", "puppet ca", "list"}


def test_what_has_ended_and_what_cannot_be_read_say_so() -> None:
    page = pages.page_of(1)
    broken = {"kind": "member", "name": "x", "path": "/pki/x", "problem": "The certificate cannot be read"}
    found = certificates(replace(page, at=page.at + timedelta(days=40), certificates=[*page.certificates, broken])).ends
    assert (found[0].problem, found[0].ends) == ("The certificate cannot be read", None)
    assert {e.name: e.state for e in found}["balancer"] == "ended"
