from __future__ import annotations

import time

import pytest

from muster.kernel.errors import Rejected
from muster.netboot.address import Address


@pytest.mark.parametrize(
    ("url", "plain", "called"),
    [
        ("http://o.example/a/vmlinuz", "http://o.example/a/vmlinuz", "http://o.example/a/vmlinuz"),
        ("HTTPS://O.example:8443/a?token=x#part", "https://o.example:8443/a?token=x", "https://o.example:8443/a"),
        ("http://u:p%40ss@o.example", "http://o.example/", "http://o.example/"),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x"),
        ("http://u@o.example/a%20b;c=d", "http://o.example/a%20b;c=d", "http://o.example/a%20b;c=d"),
    ],
)
def test_a_url_is_told_from_others_without_its_password_and_shown_without_its_query(
    url: str, plain: str, called: str
) -> None:
    found = Address.parse(url)
    assert (found.plain, str(found)) == (plain, called)
    assert (found.authorization is not None) == ("@" in url)
    assert "p%40ss" not in f"{found!r}{found}{found.plain}"


def test_user_and_password_are_sent_as_they_are_meant() -> None:
    found = Address.parse("http://us%3Aer:p%40ss:w@o.example/").authorization
    assert found is not None
    assert found.reveal() == "Basic dXM6ZXI6cEBzczp3"


@pytest.mark.parametrize(
    "url",
    [
        "", "/vmlinuz", "//o.example/x", "ftp://o.example/x", "file:///etc/passwd", "http:///x", "http://", "http://o:0/x",
        "http://o:99999/x", "http://o:x/", "http://a b/", "http://o/\n", "http://o/\x00", "http://o\\@h/", "http://o/ü",
        "http://[::1/x", "http://-o/", "http://o@/x", "http://user:s3cret@/x", "http://user:s3cret@o:x/", "javascript:x",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_boot_file_is_refused_and_shows_nothing(url: str) -> None:
    with pytest.raises(Rejected) as raised:
        Address.parse(url)
    assert "s3cret" not in str(raised.value)


def test_a_long_url_takes_no_time() -> None:
    since = time.monotonic()
    for url in ("http://" + "a." * 1_000_000, "http://" + "a" * 2000 + "!", "@" * 2040, "http://" + "[" * 2000):
        with pytest.raises(Rejected):
            Address.parse(url)
    assert time.monotonic() - since < 1


@pytest.mark.parametrize(
    ("location", "leads_to", "is_told_who"),
    [
        ("/b", "https://o.example/b", True),
        ("c?d=e", "https://o.example/a/c?d=e", True),
        ("https://o.example/z", "https://o.example/z", True),
        ("https://o.example:444/z", "https://o.example:444/z", False),
        ("//other.example/z", "https://other.example/z", False),
    ],
)
def test_a_redirect_leads_on_and_tells_nobody_else_who_asks(location: str, leads_to: str, is_told_who: bool) -> None:
    found = Address.parse("https://u:p@o.example/a/x").joined(location)
    assert found.plain == leads_to
    assert (found.authorization is not None) == is_told_who


@pytest.mark.parametrize(
    "location", ["http://o.example/", "ftp://o/", "https://u:s3cret@o/", "https://[x/", "\\\\h\\x", "ü"]
)
def test_nobody_is_led_astray(location: str) -> None:
    with pytest.raises(Rejected) as raised:
        Address.parse("https://u:p@o.example/a/x").joined(location)
    assert "s3cret" not in str(raised.value)
