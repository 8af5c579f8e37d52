from __future__ import annotations

import pytest

from muster.content.paths import LIMIT_BYTES, forwarded
from muster.content.places import PLACES, Place, on
from muster.kernel.errors import Rejected

CONTENT = PLACES[0]


def test_no_two_places_are_the_same_prefix() -> None:
    assert len({p.prefix for p in PLACES}) == len(PLACES)
    assert all(p.prefix.startswith("/") and not p.prefix.endswith("/") for p in PLACES)


def test_what_changes_something_or_tells_who_somebody_is_needs_tls() -> None:
    assert {p.prefix for p in on("http")} == {"/pulp/content", "/pulp/repos", "/pulp/isos", "/pulp/deb", "/pub"}


@pytest.mark.parametrize(
    ("prefix", "sent", "to"),
    [
        ("/pulp/content", b"/pulp/content", "/pulp/content"),
        ("/pulp/content", b"/pulp/content/", "/pulp/content/"),
        ("/pulp/repos", b"/pulp/repos/a/b", "/pulp/content/a/b"),
        ("/pulpcore_registry", b"/pulpcore_registry/v2/x", "/v2/x"),
        ("/pulpcore_registry", b"/pulpcore_registry", "/"),
        ("/pulp/content", b"/pulp/content/a%20b%C3%A4+~^", "/pulp/content/a%20b%C3%A4+~^"),
        ("/pulp/content", b"/pulp/content/..a/b..c/.treeinfo/...", "/pulp/content/..a/b..c/.treeinfo/..."),
        ("/pulp/content", b"/pulp/content//a", "/pulp/content//a"),
    ],
)
def test_what_follows_the_prefix_goes_on_as_it_is(prefix: str, sent: bytes, to: str) -> None:
    place = next(p for p in PLACES if p.prefix == prefix)
    assert forwarded(place, sent, b"") == to
    assert forwarded(place, sent, b"a=1&b=%2F") == f"{to}?a=1&b=%2F"


@pytest.mark.parametrize(
    "rest",
    [b"/..", b"/../a", b"/a/./b", b"/.", b"/%2e", b"/%2E%2e/a", b"/a%2fb", b"/a%5Cb", b"/%00", b"/%0a", b"/%1F", b"/%7f",
     b"/%", b"/%2", b"/%g0", b"/a b", b"/a\\b", b"/\x80", b"/a?b", b"/a#b", b"/a\nb", b"/..;/a", b"/a/..;x=1"],
)  # fmt: skip
def test_what_two_programs_might_read_differently_is_refused(rest: bytes) -> None:
    with pytest.raises(Rejected):
        forwarded(CONTENT, b"/pulp/content" + rest, b"")


@pytest.mark.parametrize("prefix", [p.prefix for p in PLACES])
def test_a_slash_too_many_in_the_prefix_is_refused(prefix: str) -> None:
    place = next(p for p in PLACES if p.prefix == prefix)
    for sent in (f"/{prefix}/x", f"///{prefix}", prefix.replace("/", "//") + "/x"):
        with pytest.raises(Rejected):
            forwarded(place, sent.encode(), b"")


@pytest.mark.parametrize("query", [b"a b", b"\x80", b"a\r\nb"])
def test_a_query_is_visible_ascii(query: bytes) -> None:
    with pytest.raises(Rejected):
        forwarded(CONTENT, b"/pulp/content/a", query)


def test_a_path_has_an_end() -> None:
    fits = b"/pulp/content/" + b"a" * (LIMIT_BYTES - 14)
    assert len(forwarded(CONTENT, fits, b"")) == LIMIT_BYTES
    with pytest.raises(Rejected, match="4096"):
        forwarded(CONTENT, fits, b"a")


def test_places_are_values() -> None:
    assert Place("/x", "content", "/y", frozenset()) == Place("/x", "content", "/y", frozenset())
