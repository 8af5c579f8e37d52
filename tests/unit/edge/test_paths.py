from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.edge.paths import check_query, cleaned, decoded, inside, sent
from muster.kernel.errors import Rejected


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", "/"),
        (b"/", "/"),
        (b"*", "/*"),
        (b"/version", "/version"),
        (b"/version/", "/version/"),
        (b"//version", "/version"),
        (b"///dns//a///", "/dns/a/"),
        (b"/%76ersion", "/version"),
        (b"/dns/a%2Fb", "/dns/a/b"),
        (b"/dns/a%2F%2Fb", "/dns/a/b"),
        (b"/dns/a+b", "/dns/a+b"),
        (b"/dhcp/192.0.2.0/aa:bb", "/dhcp/192.0.2.0/aa:bb"),
        (b"/%C3%A9", "/é"),
        ("/é".encode(), "/é"),
        (b"/%ff", "/\udcff"),
        (b"/%00", "/\x00"),
        (b"/%0A", "/\n"),
        (b"/%252e", "/%2e"),
        (b"/./version", "/./version"),
        (b"/v2/../version", "/v2/../version"),
        (b"/a/%2e%2e/b", "/a/../b"),
    ],
)
def test_a_path_is_decoded_whole(raw: bytes, path: str) -> None:
    assert decoded(raw) == path


@pytest.mark.parametrize(
    ("raw", "as_sent"),
    [
        (b"", b"/"),
        (b"dns", b"/dns"),
        (b"//dns///a", b"/dns/a"),
        (b"/dns%2F%2F", b"/dns%2F%2F"),
        (b"/%64ns/", b"/%64ns/"),
    ],
)
def test_prefixes_are_compared_with_the_path_as_it_was_sent(raw: bytes, as_sent: bytes) -> None:
    assert sent(raw) == as_sent


@pytest.mark.parametrize(
    ("rest", "path"),
    [(b"", "/"), (b"/", "/"), (b"/a%2Fb", "/a/b"), (b"/a/%2e%2e/b", "/b"), (b"/%2F/", "/"), (b"/a/", "/a/")],
)
def test_what_follows_the_prefix_is_decoded_and_cleaned(rest: bytes, path: str) -> None:
    assert inside(rest) == path


@pytest.mark.parametrize(
    "raw",
    [b"/../etc/passwd", b"/%2e%2e/version", b"/a/../../b", b"/..", b"/a/..%2F..%2Fb", b"/./../a", b"//../a", b".."],
)
def test_a_path_that_climbs_above_the_root_is_rejected(raw: bytes) -> None:
    with pytest.raises(Rejected, match="bad URI"):
        decoded(raw)


@pytest.mark.parametrize("raw", [b"/%zz", b"/%", b"/a%2", b"/%2g", b"/%%41"])
def test_a_broken_escape_is_rejected(raw: bytes) -> None:
    with pytest.raises(Rejected, match="bad URI"):
        decoded(raw)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("", "/"),
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/./version", "/version"),
        ("/../version", "/version"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/b/../", "/a/"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/.hidden", "/.hidden"),
        ("/..a/b..", "/..a/b.."),
        ("/...", "/..."),
    ],
)
def test_dots_are_resolved_inside_the_mount_and_never_leave_it(path: str, inside: str) -> None:
    assert cleaned(path) == inside


segments = st.lists(
    st.sampled_from(["a", ".", "..", "...", "", "%2e", "%2E%2e", "%2F", "..%2f", "%", "\n"]), max_size=8
)


@given(segments.map("/".join))
def test_a_cleaned_path_holds_no_dots_and_no_empty_segments(text: str) -> None:
    try:
        path = decoded(b"/" + text.encode())
    except Rejected:
        return
    for start in [i for i, c in enumerate(path) if c == "/"]:
        # Every mount's view of the path begins at one of its slashes.
        inside = cleaned(path[start:])
        assert inside.startswith("/")
        between = inside.split("/")[1:-1]
        assert not {"", ".", ".."} & set(between)
        assert inside.split("/")[-1] not in (".", "..")


@given(st.binary())
def test_any_bytes_are_a_path_or_rejected_in_one_line(raw: bytes) -> None:
    try:
        path = decoded(raw)
    except Rejected as e:
        assert str(e).isprintable()  # noqa: PT017 - most bytes are a path
        return
    assert path.startswith("/")
    assert "//" not in path


@pytest.mark.parametrize("raw", [b"%zz", b"a=%", b"a=%4"])
def test_a_query_with_a_broken_escape_is_rejected(raw: bytes) -> None:
    with pytest.raises(Rejected, match="bad URI"):
        check_query(raw)


def test_a_query_may_hold_bytes_that_are_not_utf_8() -> None:
    check_query(b"a=%ff&b[c]=1")
    check_query(b"")
