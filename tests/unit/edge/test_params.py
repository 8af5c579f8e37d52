from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.edge.params import MAX_DEPTH, MAX_PARAMETERS, from_form, from_query, merged, written
from muster.kernel.errors import Rejected

NESTED = {
    b"": {},
    b"a=1": {"a": "1"},
    b"a=": {"a": ""},
    b"a": {"a": None},
    b"related_macs&x=1": {"related_macs": None, "x": "1"},
    b"a=1&a=2": {"a": "2"},
    b"a=1&&b=2&": {"a": "1", "b": "2"},
    b"a=b=c": {"a": "b=c"},
    b"a+b=c+d": {"a b": "c d"},
    b"a%2Bb=c%2Bd": {"a+b": "c+d"},
    b"a=%C3%A9": {"a": "é"},
    b"a[]=1&a[]=2": {"a": ["1", "2"]},
    b"a%5B%5D=1": {"a": ["1"]},
    b"a[]": {"a": [None]},
    b"a[b]=1&a[c]=2": {"a": {"b": "1", "c": "2"}},
    b"a[b]": {"a": {"b": None}},
    b"a[b][c]=1": {"a": {"b": {"c": "1"}}},
    b"a[b][]=1&a[b][]=2": {"a": {"b": ["1", "2"]}},
    b"a[][b]=1&a[][c]=2": {"a": [{"b": "1", "c": "2"}]},
    b"a[][b]=1&a[][b]=2": {"a": [{"b": "1"}, {"b": "2"}]},
    b"a[][b]=1&a[][c]=2&a[][b]=3": {"a": [{"b": "1", "c": "2"}, {"b": "3"}]},
    b"ztp_firmware[core]=x&ztp_firmware[image]=y": {"ztp_firmware": {"core": "x", "image": "y"}},
    b"a&a[]=1": {"a": ["1"]},
    b"a[b]=1&a=2": {"a": "2"},
    b"a[]=1&a=2": {"a": "2"},
    b"a[=1": {"a[": "1"},
    b"a]=1": {"a]": "1"},
    b"[a]=1": {"[a]": "1"},
    b"a=1& b=2": {"a": "1", "b": "2"},
}
# Rack 2.2.22, run: queries are split at both, bodies at the ampersand only.
SEMICOLONS: dict[bytes, tuple[dict[str, object], dict[str, object]]] = {
    b"a=1;b=2": ({"a": "1", "b": "2"}, {"a": "1;b=2"}),
    b"a=1;b=2&c=3": ({"a": "1", "b": "2", "c": "3"}, {"a": "1;b=2", "c": "3"}),
    b"a=1;b&c=2": ({"a": "1", "b": None, "c": "2"}, {"a": "1;b", "c": "2"}),
    b"fqdn=x;y": ({"fqdn": "x", "y": None}, {"fqdn": "x;y"}),
    b"a=1; b=2": ({"a": "1", "b": "2"}, {"a": "1; b=2"}),
    b"a=1%3Bb=2": ({"a": "1;b=2"}, {"a": "1;b=2"}),
}


@pytest.mark.parametrize(("raw", "meant"), NESTED.items(), ids=lambda v: repr(v)[:50])
def test_parameters_nest_as_rack_nests_them(raw: bytes, meant: dict[str, object]) -> None:
    assert from_query(raw) == from_form(raw) == meant


@pytest.mark.parametrize(("raw", "meant"), SEMICOLONS.items(), ids=repr)
def test_a_semicolon_separates_in_a_query_and_belongs_to_the_value_in_a_body(
    raw: bytes, meant: tuple[dict[str, object], dict[str, object]]
) -> None:
    assert (from_query(raw), from_form(raw)) == meant


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a=1&a[b]=2", r"expected Hash for param `a\[b\]'"),
        (b"a=1&a[]=2", r"expected Array for param `a\[\]'"),
        (b"a[]=1&a[b]=2", r"expected Hash for param `a\[b\]'"),
        (b"a[b]=1&a[]=2", r"expected Array for param `a\[\]'"),
        (b"a[b]=1&a[b][c]=2", r"expected Hash for param `a\[b\]\[c\]'"),
    ],
)
def test_a_parameter_that_is_two_things_is_rejected(raw: bytes, expected: str) -> None:
    with pytest.raises(Rejected, match="Invalid query parameters: " + expected):
        from_query(raw)


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (b"a[][b][c]=1&a[][b][d]=2", {"a": [{"b": {"c": "1", "d": "2"}}]}),
        (b"a[][b][]=1&a[][b][]=2", {"a": [{"b": ["1", "2"]}]}),
    ],
)
def test_a_map_in_a_list_is_filled_until_the_whole_path_repeats(raw: bytes, meant: dict[str, object]) -> None:
    assert from_query(raw) == meant


def test_too_many_parameters_are_rejected() -> None:
    assert len(from_query(b"&".join(b"a%d=1" % n for n in range(MAX_PARAMETERS)))) == MAX_PARAMETERS
    for separator in (b"&", b";"):
        with pytest.raises(Rejected, match=f"more than {MAX_PARAMETERS}"):
            from_query(separator * MAX_PARAMETERS)


def test_too_deep_a_name_is_rejected_and_shown_short() -> None:
    from_query(b"a" + b"[b]" * MAX_DEPTH + b"=1")
    with pytest.raises(Rejected, match=f"nests deeper than {MAX_DEPTH}") as raised:
        from_query(b"a" + b"[b]" * 10_000 + b"=1")
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("raw", [b"a=x%FF", b"a=x\xff", b"a%FF=x", b"a[%FF]=x", b"a=%ED%A0%80", b"a=%C0%AF"])
@pytest.mark.parametrize("parse", [from_query, from_form])
def test_a_text_that_is_not_utf_8_is_refused_before_anybody_reads_it(
    raw: bytes, parse: Callable[[bytes], object]
) -> None:
    with pytest.raises(Rejected, match=r"^a parameter is not valid UTF-8$"):
        parse(raw)


@given(
    st.one_of(
        st.binary(),
        st.lists(st.sampled_from([b"a", b"b", b"[", b"]", b"[]", b"[a]", b"&", b"=", b";", b"%", b"+"])).map(b"".join),
    )
)
def test_any_query_is_parsed_or_rejected(raw: bytes) -> None:
    try:
        found = from_query(raw)
    except Rejected:
        return
    assert all(isinstance(key, str) for key in found)


def test_the_later_source_wins() -> None:
    assert merged({"a": "1", "b": "1"}, {"b": "2"}, {"c": ["3"]}) == {"a": "1", "b": "2", "c": ["3"]}


WRITTEN = {
    b"token=abc-123": "token=abc-123",
    b"a%20b=c%26d&keys=ak1,ak2": "a+b=c%26d&keys=ak1%2Cak2",
    b"u=http://x.test:80/%7e": "u=http%3A%2F%2Fx.test%3A80%2F~",
    b"a&b=": "b=",
    b"a=1&b=2&a=3": "a=3&b=2",
    b"a[]=1&a[]=2": "a%5B%5D=1&a%5B%5D=2",
    b"r[][repo]=x&r[][key]=y&r[][repo]=z": "r%5B%5D%5Brepo%5D=x&r%5B%5D%5Bkey%5D=y&r%5B%5D%5Brepo%5D=z",
    b"a[b][c]": "a%5Bb%5D%5Bc%5D",
    b"x=%C3%A9": "x=%C3%A9",
}


@pytest.mark.parametrize("raw", WRITTEN)
def test_parameters_are_written_in_their_order(raw: bytes) -> None:
    assert written(from_query(raw)) == WRITTEN[raw]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["a", "b", "a b", "a[]", "a[b]", "a[][b]", "a[][c]", "b[c][]", "b[c][][d]", "[a]", "a[", "é"]
            ),
            st.sampled_from(["", "=", "=1", "=x&y", "=a=b", "=+", "=é"]),
        ),
        max_size=8,
    )
)
def test_what_was_written_is_read_as_the_same(pairs: list[tuple[str, str]]) -> None:
    try:
        read = from_query("&".join(name + value for name, value in pairs).encode())
    except Rejected:
        return
    assert from_query(written(read).encode()) == {name: value for name, value in read.items() if value is not None}
