from __future__ import annotations

import bz2
import json
from typing import Any

import pytest

from muster.content.metadata import guarded
from muster.content.metadata.malformed import Malformed
from muster.features.openscap import arf, markup

RULE = "<Rule id='r' severity='high'><title>T</title></Rule>"
RESULT = "<rule-result idref='r'><result>fail</result></rule-result>"


def document(rules: str = RULE, results: str = RESULT) -> str:
    return f"<a><Benchmark>{rules}</Benchmark><TestResult>{results}</TestResult></a>"


def read(xml: str, *, limit_bytes: int = 1 << 20) -> arf.Report:
    packed = bz2.compress(xml.encode())
    # In pieces, as it comes.
    return arf.read([packed[:2], packed[2:9], packed[9:]], limit_bytes=limit_bytes)


def told(xml: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(arf.told(read(xml), digest="d", proxy_name="n", proxy_url="u"))
    return found


def test_results_that_say_nothing_are_not_told_and_the_others_counted() -> None:
    words = ("pass", "fixed", "fail", "error", "unknown", "", "notapplicable", "notselected")
    results = "".join(f"<rule-result idref='r'><result>{w}</result></rule-result>" for w in words)
    found = told(document(results=f"{results}<rule-result idref='r'/>"))
    assert found["metrics"] == {"passed": 2, "failed": 1, "othered": 4}
    assert [e["result"] for e in found["logs"]] == ["pass", "fixed", "fail", "error", "unknown", "", ""]


def test_the_first_benchmark_and_the_first_result_count_whatever_their_namespaces() -> None:
    other = "<Rule id='r'><title>Other</title></Rule>"
    xml = (
        f"<x:a xmlns:x='u'><x:Benchmark>{RULE}</x:Benchmark><Benchmark>{other}</Benchmark>"
        f"<TestResult>{RESULT}<score>75.5</score><score>1</score></TestResult>"
        f"<TestResult><rule-result idref='s'><result>pass</result></rule-result></TestResult></x:a>"
    )
    found = told(xml)
    assert [(e["title"], e["severity"]) for e in found["logs"]] == [("T", "high")]
    assert found["score"] == 75.5


def test_a_result_within_its_benchmark_is_found_too() -> None:
    assert told(f"<Benchmark>{RULE}<TestResult>{RESULT}</TestResult></Benchmark>")["metrics"]["failed"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"), ("a\nb", "a b"), ("a   \n\n\nb", "a b"), ("a\n   \nb", "a  b"), ("\n a \n", "a"),
        ("a  b", "a  b"), ("", ""), ("\n\n", ""), ("a\t\nb", "a\t b"), ("a\n\n \n\nb", "a  b"),
    ],
)  # fmt: skip
def test_descriptions_are_one_line(text: str, expected: str) -> None:
    rule = f"<Rule id='r'><title>T</title><description>{text}</description></Rule>"
    assert told(document(rule))["logs"][0]["description"] == expected


def test_a_text_is_that_of_all_elements_in_it_and_the_first_one_counts() -> None:
    rule = (
        "<Rule id='r'><title>A <b>b</b> c</title><title>No</title><description>D<title>in it</title></description>"
        "<rationale>R &amp; <![CDATA[<r>]]></rationale></Rule>"
    )
    (found,) = told(document(rule))["logs"]
    assert (found["title"], found["description"], found["rationale"]) == ("A b c", "Din it", "R & <r>")


def test_references_are_a_rule_s_own_each_once() -> None:
    rule = (
        "<Rule id='r'><reference href='h'>x</reference><reference href='h'>x</reference><reference href='h'>y</reference>"
        "<description><reference href='no'>no</reference></description><reference>x</reference></Rule>"
    )
    (found,) = told(document(rule))["logs"]
    assert found["references"] == [
        {"href": "h", "title": "x"}, {"href": "h", "title": "y"}, {"href": None, "title": "x"},
    ]  # fmt: skip
    assert (found["title"], found["severity"]) == (None, None)


def test_a_fix_has_the_values_of_the_result_in_it() -> None:
    fix = "<fix id='f' system='s'>a <sub idref='v'>old</sub><b>c<sub idref='v'/></b><sub idref='w'/>d</fix>"
    rule = f"<Rule id='r'><g>{fix}</g></Rule>"
    results = f"<set-value idref='v'>one</set-value><set-value idref='v'>two</set-value>{RESULT}"
    (found,) = told(document(rule, results))["logs"]
    assert found["fixes"] == [{"id": "f", "system": "s", "full_text": "a onecd", "reboot": None}]


@pytest.mark.parametrize(
    ("text", "score"), [("", 0.0), ("x", 0.0), (" 12.5 of 100", 12.5), ("1e999", 0.0), ("-3", -3.0), ("9" * 400, None)]
)
def test_a_score_is_the_number_that_its_text_begins_with(text: str, score: float | None) -> None:
    found = told(document(results=f"{RESULT}<score>{text}</score>"))["score"]
    assert found == (score if score is not None else float("9" * 30))
    assert told(document())["score"] is None


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        ("<a><TestResult/></a>", "it has no Benchmark"),
        (f"<a><Benchmark>{RULE}</Benchmark></a>", "it has no TestResult"),
        (document(rules=""), "the result of a rule that its Benchmark lacks"),
        ("<a>", "no well-formed XML"),
        ("<!DOCTYPE a><a/>", "it has a document type"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a/>", "its encoding is not UTF-8"),
        ("<a>" * 200, "elements nest deeper than 128"),
        (f"<a b='{'x' * (2 << 20)}'/>", "a token is longer than"),
    ],
)
def test_what_is_no_report_is_named(xml: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(xml, limit_bytes=4 << 20)


def test_bounds_hold_for_what_is_unpacked_and_for_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Malformed, match="it holds more than 1000 bytes"):
        read(document() + " " * 1000, limit_bytes=1000)
    monkeypatch.setattr(markup, "KEPT_CHARACTERS", 100)
    with pytest.raises(Malformed, match="characters of text"):
        read(document(f"<Rule id='r'><title>{'x' * 101}</title></Rule>"))
    # What nobody asks for is not kept.
    read(document(f"<x>{'x' * 1000}</x>{RULE}"))


@pytest.mark.parametrize("body", [b"", b"B", b"<a/>", b"\x1f\x8b\x08", b"\xfd7zXZ\0"])
def test_only_bzip2_is_read(body: bytes) -> None:
    with pytest.raises(Malformed, match="it is not packed with bzip2"):
        arf.read([body] if body else [], limit_bytes=1000)


def test_utf_16_is_not_read() -> None:
    with pytest.raises(Malformed, match="its encoding is not UTF-8"):
        arf.read([bz2.compress("<a/>".encode("utf-16"))], limit_bytes=1000)


@pytest.mark.parametrize(
    ("rules", "results"),
    [
        (f"<Rule id='r'><description>{'x' * 400}</description></Rule>", RESULT * 4),
        ("<Rule id='r'>" + "<reference/><fix/>" * 50 + "</Rule>", RESULT * 4),
        (
            "<Rule id='r'><fix>" + "<sub idref='v'/>" * 4 + "</fix></Rule>",
            f"<set-value idref='v'>{'x' * 400}</set-value>{RESULT}",
        ),
    ],
    ids=["of one rule many results", "of one rule empty fixes", "one value in many places"],
)
def test_a_short_report_of_which_much_would_be_told_is_not_read(
    monkeypatch: pytest.MonkeyPatch, rules: str, results: str
) -> None:
    monkeypatch.setattr(arf, "KEPT_CHARACTERS", 1500)
    with pytest.raises(Malformed, match="Foreman would be told more"):
        told(document(rules, results))
    monkeypatch.setattr(arf, "KEPT_CHARACTERS", 15000)
    assert told(document(rules, results))["metrics"]["failed"] > 0


@pytest.mark.parametrize(
    ("rules", "results", "why"),
    [
        ("<Rule id=''>" + "<fix/>" * 99 + "</Rule>", "", "more than 50 texts"),
        ("<Rule id=''><fix>" + "<sub/>" * 99 + "</fix></Rule>", "", "more than 50 texts"),
        ("<Rule id=''>" + "<reference/>" * 99 + "</Rule>", "", "more than 50 texts"),
        ("<Rule id=''><title>" + "x<b/>" * 99 + "</title></Rule>", "", "more than 50 texts"),
        ("", "<rule-result/>" * 99, "more than 50 texts"),
        ("", "<set-value/>" * 99, "more than 50 texts"),
        ("".join(f"<n{n}/>" for n in range(99)), "", "more than 40 names"),
        ("".join(f"<n a{n}=''/>" for n in range(99)), "", "more than 40 names"),
        ("<n/>" * 999, "", "more than 500 elements"),
    ],
)
def test_a_report_of_many_small_things_is_not_read(
    monkeypatch: pytest.MonkeyPatch, rules: str, results: str, why: str
) -> None:
    # Of each a large report has some bytes, and Python keeps hundreds.
    monkeypatch.setattr(markup, "KEPT_VALUES", 50)
    monkeypatch.setattr(guarded, "_NAMES", 40)
    monkeypatch.setattr(markup, "_ELEMENTS", 500)
    with pytest.raises(Malformed, match=why):
        read(document(rules, results))
