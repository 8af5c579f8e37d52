from __future__ import annotations

import pytest

from muster.authority.x509.certnames import ROUTABLE, refuse_unless_hostname
from muster.kernel.errors import Rejected


@pytest.mark.parametrize(
    "name",
    [
        "agent01.example.net",
        "single",
        "_with_underscores.example.net",
        "a",
        "1.2.3.4",
        "with-dash.example.net",
        "trailing-dot.example.net.",
        "x" * 63 + "." + "y" * 63,
        "cart.ca",
        "ca.example.net",
        ".".join(["a"] * 127),
    ],
)
def test_names_puppet_takes_are_taken(name: str) -> None:
    refuse_unless_hostname(name)
    assert ROUTABLE.match(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Agent.example.net", "must be lower case"),
        ("*.example.net", "contains a wildcard"),
        ("-a.example.net", "format is invalid"),
        ("a-.example.net", "format is invalid"),
        ("a.-b.net", "format is invalid"),
        (".a.example.net", "format is invalid"),
        ("a..example.net", "format is invalid"),
        ("a.example.net..", "format is invalid"),
        ("", "format is invalid"),
        (".", "format is invalid"),
        ("a b", "format is invalid"),
        ("a/b", "format is invalid"),
        ("a\n", "format is invalid"),
        ("a\x00b", "format is invalid"),
        ("näme.example.net", "format is invalid"),
        ("../signed/a", "format is invalid"),
        ("a,b", "format is invalid"),
        ("x" * 254, "format is invalid"),
        ("ca", "is reserved"),
    ],
)
def test_other_names_are_refused_in_puppetservers_words(name: str, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        refuse_unless_hostname(name)


@pytest.mark.parametrize("name", ["a/b", "a b", "a\n", "a%", "a@b", "a+b", "", "x" * 256, "ä"])
def test_no_route_takes_what_no_host_has(name: str) -> None:
    assert not ROUTABLE.match(name)
