from __future__ import annotations

import pytest

from muster.content.backend import BadGateway
from muster.content.mirror.targets import Target, plain, refuse_outside
from muster.kernel.errors import Rejected

HERE = Target.of("https://origin.example:8443/a/b/c.rpm")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("http://a", ("http", "a", "", "")),
        ("HTTPS://A.example:8443/x%20y?s=1#f", ("https", "A.example", ":8443", "/x%20y?s=1")),
        ("https://[2001:DB8::1]:443/", ("https", "[2001:DB8::1]", ":443", "/")),
        ("http://10.0.0.1/p", ("http", "10.0.0.1", "", "/p")),
        ("http://a:/p", ("http", "a", "", "/p")),
        ("http://a?x", ("http", "a", "", "/?x")),
    ],
)
def test_an_address_has_parts(address: str, parts: tuple[str, ...]) -> None:
    assert tuple(Target.of(address)) == parts


@pytest.mark.parametrize(
    "address",
    [
        "", "/p", "//a/p", "a/p", "ftp://a/p", "file:///etc/passwd", "gopher://a", "http://", "http:///p", "http:a",
        "http://u@a/", "http://u:p@a/", "http://a:b/", "http://a:99999/", "http://a:80:80/", "http://[::1/", "http://::1/",
        "http://a b/", "http://a\\b/", "http://a\n/", "http://ä/", "http://-a/", "http://a%2eb/", "http://a/\x7f",
        "http://[fe80::1%eth0]/", "http://a/" + "x" * 9000,
    ],
)  # fmt: skip
def test_what_is_none_is_refused(address: str) -> None:
    with pytest.raises(Rejected):
        Target.of(address)


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("/x", "https://origin.example:8443/x"),
        ("d.rpm", "https://origin.example:8443/a/b/d.rpm"),
        ("../d.rpm?q", "https://origin.example:8443/a/d.rpm?q"),
        ("/a b/\xc3\xa4|\"<>%2F", "https://origin.example:8443/a%20b/%C3%A4%7C%22%3C%3E%2F"),
        ("https:///x", "https://origin.example:8443/x"),
        ("/x#part", "https://origin.example:8443/x"),
    ],
)  # fmt: skip
def test_a_location_leads_on(location: str, found: str) -> None:
    to = HERE.joined(location)
    assert f"{to.base}{to.path}" == found


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://origin.example:8443/x?secret", "away from TLS"),
        ("ftp://a/x?secret", "ftp, and neither HTTP nor HTTPS"),
        ("javascript:secret", "javascript, and neither"),
        ("https://me:secret@a/", "credentials"),
        ("https://a@b@c/?secret", "credentials"),
        ("https://a\\@b/?secret", "credentials"),
        ("https://a\\b/?secret", "its host is none"),
        ("https://\xe4.example/?secret", "its host is none"),
        ("https://[secret", "no address"),
        ("/" + "secret" * 2000, "no address"),
    ],
)
def test_where_nobody_is_led_is_said_without_what_may_be_a_secret(location: str, why: str) -> None:
    with pytest.raises(BadGateway, match=why) as caught:
        HERE.joined(location)
    assert str(HERE) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_from_http_it_may_lead_to_both() -> None:
    here = Target.of("http://a")
    assert [here.joined(x).scheme for x in ("https://a/", "http://b/", "/x")] == ["https", "http", "http"]


def test_what_is_shown_has_no_query() -> None:
    assert str(Target.of("https://a/x?signature=secret")) == "https://a/x"


def test_a_path_lies_below() -> None:
    assert Target.of("http://a/b/").below("/c/d").path == "/b/c/d"
    assert Target.of("http://a").below("/c").path == "/c"


def test_hosts_are_compared_without_their_case_and_last_dot() -> None:
    assert plain("A.Example.") == Target.of("http://a.EXAMPLE/").key == "a.example"


@pytest.mark.parametrize("path", ["/", "/repodata/repomd.xml", "/pool/a%2Bb_1%3a2~rc1.deb", "/a/..b/...", "/%C3%A4"])
def test_a_quoted_path_is_one(path: str) -> None:
    refuse_outside(path)


@pytest.mark.parametrize(
    "path",
    ["", "x", "/../x", "/a/%2e%2E/b", "/.", "/a?b", "/a#b", "/a b", "/a\r\nX: y", "/ä", "/\x00", "/" + "x" * 9000],
)
def test_what_is_no_path_below_is_refused(path: str) -> None:
    with pytest.raises(Rejected, match="no path below an origin"):
        refuse_outside(path)
