from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.realm.active_directory import ldif
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret


@given(st.text(), st.text())
def test_no_value_becomes_a_line_of_its_own(dn: str, value: str) -> None:
    dn, value = (t.encode("utf-8", "replace").decode() for t in (dn, value))
    lines = ldif.added(dn, [("cn", value)]).decode().splitlines()
    assert lines[1] == "changetype: add"
    assert [base64.b64decode(line.partition(":: ")[2]).decode() for line in (lines[0], lines[2])] == [dn, value]
    assert len(lines) == 3


def test_a_replacement_is_one_change() -> None:
    text = ldif.replaced("CN=a", [("x", "1"), ("y", b"\xff")]).decode()
    assert text == "dn:: Q049YQ==\nchangetype: modify\nreplace: x\nx:: MQ==\n-\nreplace: y\ny:: /w==\n-\n"


def test_what_is_below_goes_only_where_it_is_asked_for() -> None:
    assert ldif.deleted("CN=a", with_all_below=False) == b"dn:: Q049YQ==\nchangetype: delete\n"
    assert b"control: 1.2.840.113556.1.4.805 true\n" in ldif.deleted("CN=a", with_all_below=True)


def test_a_password_is_in_quotes_and_utf_16() -> None:
    assert ldif.password(Secret("aB1")) == b'"\0a\0B\x001\0"\0'


def test_entries_are_read_and_referrals_are_not() -> None:
    text = (
        "dn: CN=WEB01,DC=example,DC=com\ndNSHostName: web01.example.com\nuserAccountControl: 4096\n\n"
        "# refldap://example.com/CN=Configuration,DC=example,DC=com\n\n"
        "dn:: Q049w6QsREM9ZXhhbXBsZQ==\nobjectClass: top\nobjectClass: computer\n"
    )
    first, second = ldif.entries(text)
    assert (first.dn, first.first("dNSHostName"), first.first("absent")) == (
        "CN=WEB01,DC=example,DC=com", "web01.example.com", None,
    )  # fmt: skip
    assert (second.dn, second.values["objectclass"]) == ("CN=ä,DC=example", ["top", "computer"])
    assert ldif.entries("") == []


@pytest.mark.parametrize("text", ["cn: x\n", "dn: CN=a\nnothing\n", "dn:: ***\n"])
def test_what_is_no_ldif_is_said(text: str) -> None:
    with pytest.raises(Unavailable):
        ldif.entries(text)
