from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.markup import Element, Record, elements, records
from tests.unit.content.metadata.documents import bytewise

WANTED = {"word": frozenset[str](), "thing": frozenset({"a", "b"})}


def read(body: str | bytes, limit: int = 100) -> list[Record]:
    data = body.encode() if isinstance(body, str) else body
    found = list(records([data], "root", WANTED, of="it.xml", limit_records=limit))
    assert found == list(records(bytewise(data), "root", WANTED, of="it.xml", limit_records=limit))
    return found


def refused(body: str | bytes, why: str, limit: int = 100) -> None:
    data = body.encode() if isinstance(body, str) else body
    with pytest.raises(Malformed, match=f"^Reading it.xml failed: .*{why}"):
        list(records([data], "root", WANTED, of="it.xml", limit_records=limit))


def test_records_are_told_in_order() -> None:
    body = (
        "<?xml version='1.0' encoding='utf-8'?><!-- ä --><root x='1'> text <word> one <![CDATA[<&]]>&amp;&#228;\n</word>"
        "<other><a>no</a><thing><a>no</a></thing></other><thing y='2'>text<b z='3'/><c><a>no</a></c> <a> 5\n</a></thing>"
        "<thing/></root>"
    )
    word, thing, empty = read(body)
    assert (word.name, word.text, word.attributes, word.fields) == ("word", "one <&&ä", {}, {})
    assert (thing.attributes, thing.text) == ({"y": "2"}, "")
    assert thing.fields == {"b": ({"z": "3"}, ""), "a": ({}, "5")}
    assert empty.fields == {}


def test_names_are_compared_as_they_are_written() -> None:
    assert read("<root xmlns:p='u'><p:word>1</p:word><word>2</word></root>")[0].text == "2"
    refused("<p:root xmlns:p='u'/>", "root is not root")


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE root>",
        "<!DOCTYPE root SYSTEM 'it.dtd'>",
        "<!DOCTYPE root [<!ENTITY e 'text'>]>",
        "<!DOCTYPE root [<!ENTITY % e 'text'>]>",
        "<?xml version='1.0' standalone='yes'?><!DOCTYPE root [<!ATTLIST root a CDATA 'b'>]>",
    ],
)
def test_a_document_type_is_refused(head: str) -> None:
    refused(f"{head}<root><word>1</word></root>", "document type")


@pytest.mark.parametrize(
    "body",
    [
        "", " ", "<root>", "<root><word>", "<root></word></root>", "<root/><root/>", "text",
        "<root>&e;</root>", "<root a='1' a='2'/>",
        "<root><word>1</word>", "<root/>text", b"<root>\0</root>", b"<root>\xff</root>", b"<root>\xc3</root>",
        b"<root>\xed\xa0\x80</root>",
        b"<root>&#0;</root>",
    ],
)  # fmt: skip
def test_what_is_no_xml_is_refused(body: str | bytes) -> None:
    refused(body, "no well-formed XML")


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "utf-16", "us-ascii", "x", "windows-1252"])
def test_another_encoding_is_refused(encoding: str) -> None:
    refused(f"<?xml version='1.0' encoding='{encoding}'?><root/>", "encoding is not UTF-8")
    assert read(b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?><root/>") == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_another_encoding_is_refused_whatever_it_says(encoding: str) -> None:
    for body in ("<?xml version='1.0' encoding='UTF-8'?><root/>", "<root/>"):
        refused(body.encode(encoding), "encoding is not UTF-8")
        with pytest.raises(Malformed):
            list(records(bytewise(body.encode(encoding)), "root", WANTED, of="it.xml", limit_records=9))
    refused(b"\x1f\x8b\x08\0", "encoding is not UTF-8")


def test_another_root_is_refused() -> None:
    refused("<html><root/></html>", "root is not root")


def test_depth_is_limited() -> None:
    def nested(depth: int) -> str:
        return f"<root><thing>{'<x>' * (depth - 2)}{'</x>' * (depth - 2)}</thing></root>"

    assert len(read(nested(16))) == 1
    refused(nested(17), "nest deeper than 16")


def test_records_are_limited() -> None:
    assert len(read("<root>" + "<word/>" * 100 + "<x/>" * 100 + "</root>")) == 100
    refused("<root>" + "<word/>" * 101 + "</root>", "more than 100 entries")


def test_texts_that_are_looked_for_are_limited() -> None:
    for body in ("<word>{}</word>", "<thing><a>{}</a></thing>"):
        assert len(read("<root>" + body.format("x" * 4096) + "</root>")) == 1
        refused("<root>" + body.format("x" * 4097) + "</root>", "longer than 4096 characters")
        refused("<root>" + body.format("x<y/>z") + "</root>", "an element is in the text")
    for body in (f"<other>{'x' * 300_000}</other>", f"<thing>{'x' * 300_000}<a/></thing>"):
        assert len(list(records([f"<root>{body}<word/></root>".encode()], "root", WANTED, of="x", limit_records=9))) > 0


@pytest.mark.parametrize("body", ["<root a='{}'/>", "<root><!--{}--></root>", "<root><?p {}?></root>", "<{}/>"])
def test_a_token_is_limited(body: str) -> None:
    refused(body.format("x" * 400_000), "a token is longer than 262144 bytes")


def test_a_field_is_there_once() -> None:
    refused("<root><thing><a/><b/><a/></thing></root>", "a is there twice")
    assert len(read("<root><thing><c/><c/></thing></root>")) == 1


def test_what_came_before_a_fault_was_told() -> None:
    coming = records([b"<root><word>1</word>", b"<word>2</x>"], "root", WANTED, of="it.xml", limit_records=9)
    assert next(coming).text == "1"
    with pytest.raises(Malformed):
        next(coming)


@given(st.text("<>/ab&;'=!-? [](x", max_size=60))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        read(f"<root>{text}</root>")


def test_elements_are_told_wherever_they_are() -> None:
    body = (
        b"<root><url>0</url><files><file name='a'><resources><url p='1'> http://a/&amp; </url><x><url/></x></resources>"
        b"</file></files></root>"
    )
    told = [
        Element("url", "root", {}, "0"),
        Element("url", "resources", {"p": "1"}, "http://a/&"),
        Element("url", "x", {}, ""),
    ]
    for pieces in ([body], bytewise(body)):
        assert list(elements(pieces, "root", {"url"}, of="it.xml", limit_elements=3)) == told


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<root>" + b"<url>1</url>" * 4 + b"</root>", "more than 3 entries"),
        (b"<root><url><b/></url></root>", "an element is in the text of url"),
        (b"<url>1</url>", "root is not root"),
        (b"<!DOCTYPE root><root><url>1</url></root>", "document type"),
        (b"<root><url>" + b"x" * 5000 + b"</url></root>", "longer than 4096"),
        (b"<root>" + b"<a>" * 20, "deeper than 16"),
        (b"<root><url>1</url>", "no well-formed XML"),
    ],
)
def test_elements_are_read_within_the_same_limits(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading it.xml failed: .*{why}"):
        list(elements([body], "root", {"url"}, of="it.xml", limit_elements=3))


def test_names_are_limited() -> None:
    names = "".join(f"<n{n}/>" for n in range(10_001))
    with pytest.raises(Malformed, match="more than 10000 names"):
        list(records([f"<root>{names}</root>".encode()], "root", WANTED, of="it.xml", limit_records=99_999))
