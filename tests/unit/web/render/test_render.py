from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from muster.web.model.log import Filter
from muster.web.model.page import Page
from muster.web.render import SECTIONS, Rendered
from tests.servers import pages
from tests.servers.html import Read

# What a name, a reason or a log line may hold; harmless here, and markup where it is not escaped.
ODD = """<b class="odd">&amp;"'</b>{{ 7 * 7 }}<!--"""


def read(page: Page, wanted: Filter | None = None) -> Read:
    return Read(Rendered().page(page, wanted or Filter()))


@pytest.mark.parametrize("members", [1, 3, 50])
@pytest.mark.parametrize("store", ["", "The store did not answer: connection refused"])
def test_the_page_is_whole_html_with_one_heading_and_landmarks(members: int, store: str) -> None:
    found = read(pages.page_of(members, store=store))
    assert found.unclosed == []
    assert [len(found.named(t)) for t in ("h1", "main", "header", "footer", "nav")] == [1, 1, 1, 1, 1]
    ids = [i for _, a in found.elements if (i := a.get("id"))]
    assert len(ids) == len(set(ids))
    links = {h[1:] for a in found.named("a") if (h := a.get("href")) and h.startswith("#")}
    assert links <= set(ids)
    # Every table has its caption and heads with a scope; every field its label.
    assert len(found.named("caption")) == len(found.named("table"))
    assert all(a.get("scope") in ("row", "col") for a in found.named("th"))
    assert not any("style" in a or any(n.startswith("on") for n in a) for _, a in found.elements)


@pytest.mark.parametrize("where", ["mark", "log"])
def test_what_others_said_is_text_whatever_it_holds(where: str) -> None:
    page = pages.page_of(3, mark=ODD if where == "mark" else "")
    if where == "log":
        record = {
            "timestamp": 1.0,
            "level": "ERROR",
            "message": ODD,
            "member": ODD,
            "backtrace": ODD,
            "request_id": ODD,
        }
        page = replace(page, logs={"info": {"failed_modules": {ODD: ODD}, "incomplete": ODD}, "logs": [record]}, by=ODD)
    found = read(page, Filter(text=ODD))
    plain = read(pages.page_of(3))
    assert not any(a.get("class") == "odd" for _, a in found.elements)
    assert len(found.named("b")) <= len(plain.named("b")) + 2
    joined = " ".join(found.texts)
    assert ODD in joined
    assert "49" not in joined.replace("2026", "") or "{{ 7 * 7 }}" in joined
    assert found.unclosed == []


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(k) for k in value] + [leaf for v in value.values() for leaf in leaves(v)]
    if isinstance(value, list | tuple):
        return [leaf for v in value for leaf in leaves(v)]
    return [str(value)]


def test_every_word_of_the_page_is_a_commands_or_the_pages_own() -> None:
    """Words that are on the page of one cluster and not on that of another are found in the JSON that it is made of."""
    page = pages.page_of(3, mark="")
    own = set(" ".join(read(pages.page_of(3, mark="-other")).texts).split())
    other = " ".join(leaves(json.loads(json.dumps(pages.page_of(3, mark="-marked").as_json()))))
    words = {w for t in read(pages.page_of(3, mark="-marked")).texts for w in t.split()} - own
    assert any("-marked" in w for w in words)
    # Marks of punctuation are the page's.
    strange = {w for w in words if w.strip("(),.:;") not in other and w not in other}
    assert strange == set()
    assert page.as_json().keys() == {
        "at", "by", "status", "parity", "doctor", "certificates", "puppet_ca", "logs", "traffic", "boots",
    }  # fmt: skip


def test_what_did_not_change_is_the_same_section_and_is_not_rendered_again() -> None:
    rendered = Rendered()
    first = {s.name: s for s in rendered.sections(pages.page_of(3), Filter())}
    again = {s.name: s for s in rendered.sections(pages.page_of(3), Filter())}
    assert list(first) == list(SECTIONS)
    assert all(again[name] is first[name] for name in first)
    other = {s.name: s for s in rendered.sections(pages.page_of(3, troubled=False), Filter())}
    assert other["matrix"].digest != first["matrix"].digest
    assert other["log"] is first["log"]


def test_filters_of_readers_are_remembered_so_many_and_no_more() -> None:
    rendered = Rendered()
    page = pages.page_of(3)
    for n in range(100):
        rendered.sections(page, Filter(text=str(n)))
    assert len(rendered._logs) <= 32


def test_no_state_is_told_by_colour_alone() -> None:
    found = Rendered().sections(pages.page_of(50), Filter())
    html = next(s.html for s in found if s.name == "matrix")
    cells = re.findall(r'<td class="(\w+)">(.*?)</td>', html)
    words = {state: re.sub(r"<[^>]+>", "", text).split(" ", 1)[1] for state, text in cells if state != "none"}
    assert words == {"ready": "ready", "draining": "draining", "unready": "not ready", "unreachable": "no answer"}


def test_reasons_stand_below_their_row_once_for_all_services_alike() -> None:
    html = next(s.html for s in Rendered().sections(pages.page_of(50), Filter()) if s.name == "matrix")
    texts = Read(html).texts
    assert texts.count("drained by anna: kernel update") == 1
    assert "GET https://192.0.2.49:9090/health/ready failed: connection refused" in texts


def test_without_parity_doctor_and_ca_the_page_says_how_one_gets_them() -> None:
    page = replace(pages.page_of(1), parity=None, doctor=None, puppet_ca=None, certificates=[])
    found = read(page)
    joined = " ".join(found.texts)
    assert "Nobody has compared the members yet" in joined
    assert "muster doctor --record" in joined
    gone = " ".join(read(replace(pages.page_of(1, store="refused"), parity=None, doctor=None)).texts)
    assert gone.count("What was found last lies in the store, which does not answer.") == 2
    assert "Nobody has compared" not in gone
    assert "puppet-ca" not in [a.get("id") for a in found.named("h2")]


def test_the_first_sentence_says_whether_somebody_is_needed() -> None:
    assert "Somebody is needed." in read(pages.page_of(3)).texts
    assert "All is well; nobody is needed." in read(pages.page_of(3, troubled=False)).texts
    gone = read(pages.page_of(3, store="The store did not answer: refused")).texts
    assert "The store does not answer." in gone


@pytest.mark.parametrize(
    "found",
    [
        [], {"causes": [{}], "drifts": [{}]}, {"causes": 3, "drifts": 3, "unasked": 3}, {"fields": "x", "findings": 7},
        {"causes": [{"findings": 1}], "findings": [{"code": "A"}], "drifts": ["a"]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["doctor", "parity"])
def test_what_a_member_of_another_version_recorded_breaks_no_page(which: str, found: Any) -> None:
    page = replace(pages.page_of(3), **{which: {"found": found, "age_s": 1.0, "by": "proxy02.test"}})  # type: ignore[arg-type]
    shown = " ".join(read(page).texts)
    assert "a member of another version wrote it" in shown or "Something is wrong" in shown
