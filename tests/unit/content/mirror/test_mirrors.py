from __future__ import annotations

import pytest

from muster.cluster.mirror import Kind
from muster.content.metadata.malformed import Malformed
from muster.content.mirror import mirrors

VERSION_3 = """<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" xmlns:mm0="http://example.org/mm">
 <publisher><name>Example</name><url>https://publisher.example/repodata/repomd.xml</url></publisher>
 <files><file name="repomd.xml"><mm0:timestamp>1</mm0:timestamp><size>5</size>
  <verification><hash type="sha256">00</hash></verification>
  <resources maxconnections="1">
   <url protocol="rsync" type="rsync" location="DE" preference="100">rsync://a.example/f/repodata/repomd.xml</url>
   <url protocol="http" type="http" location="DE" preference="99">http://b.example/f/repodata/repomd.xml</url>
   <url protocol="https" type="https" location="DE" preference="90">https://d.example/f/repodata/repomd.xml</url>
   <url protocol="https" type="https" location="US" preference="95">https://c.example/f/repodata/repomd.xml</url>
   <url protocol="https" type="https" location="US" preference="98">https://e.example/other.iso</url>
  </resources></file></files>
</metalink>"""
VERSION_4 = """<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="PULP_MANIFEST">
<url location="de" priority="2">https://b.example/f/PULP_MANIFEST</url><url>https://z.example/PULP_MANIFEST</url>
<url priority="1">https://a.example/f/PULP_MANIFEST</url></file></metalink>"""


def read(body: str | bytes, kind: Kind = "yum", *, only_tls: bool = False) -> list[str]:
    data = body.encode() if isinstance(body, str) else body
    return [str(m) for m in mirrors.read(data, kind, of="the list", only_tls=only_tls)]


def test_of_a_plain_list_each_line_is_one() -> None:
    body = "# mirrors\r\n\r\nhttps://a.example/f/\nhttp://b.example/f  # near\n\trsync://c.example/f\nhttp://u:p@d.example/\n"
    assert read(body + "not an address\nhttps://a.example/f\n") == ["https://a.example/f", "http://b.example/f"]
    assert read("http://a.example/f\tpriority:1") == ["http://a.example/f"]


def test_of_a_metalink_they_come_by_preference() -> None:
    assert read(VERSION_3) == ["http://b.example/f", "https://c.example/f", "https://d.example/f"]
    assert read(VERSION_4, "file") == ["https://a.example/f", "https://b.example/f", "https://z.example"]


def test_of_a_list_over_tls_only_such_count() -> None:
    assert read(VERSION_3, only_tls=True) == ["https://c.example/f", "https://d.example/f"]
    with pytest.raises(Malformed, match="names no mirror that can be asked; http:// does not count"):
        read("http://a.example/", only_tls=True)


def test_ten_are_used() -> None:
    assert len(read("\n".join(f"http://m{n}.example/" for n in range(50)))) == mirrors.LIMIT_MIRRORS


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "names no mirror"),
        ("# nothing\n", "names no mirror"),
        ("<html><body>Sign in</body></html>", "its root is not metalink"),
        ("<!DOCTYPE html><html/>", "document type"),
        (VERSION_4.replace("https", "ftp"), "names no mirror"),
        (VERSION_3[:600], "no well-formed XML"),
        ("\n" * 10_001, "more than 10000 lines"),
        ("#" * (mirrors.LIMIT_BYTES + 1), "larger than 1048576 bytes"),
        (b"\xff\xfe\x00<", "names no mirror"),
    ],
)
def test_what_is_no_list_is_refused(body: str | bytes, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading the list failed: .*{why}"):
        read(body)


def test_numbers_that_are_none_are_last() -> None:
    body = VERSION_4.replace('priority="1"', 'priority="first"').replace("a.example", "y.example")
    assert read(body, "file") == ["https://b.example/f", "https://z.example", "https://y.example/f"]
