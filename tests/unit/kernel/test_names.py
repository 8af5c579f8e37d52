from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, MACAddress, ServiceName, host_or_address, ip_address, shown
from muster.kernel.settings import Settings

LABEL_ENDS = "abcxyzABCXYZ0189"
labels = st.builds(
    lambda first, middle, last: first + middle + last,
    st.sampled_from(LABEL_ENDS),
    st.text(LABEL_ENDS + "-", max_size=61),
    st.sampled_from(LABEL_ENDS),
)
host_names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda n: len(n) <= 253)
# Mostly characters that names are made of, so that many of these come close to being one.
near_names = st.text(st.sampled_from("aA0-_.\n\r\t \x00\x1b\"'`;$\\é\udcff"), max_size=20)

REFUSED = {
    "nothing": "",
    "only a dot": ".",
    "two dots": "..",
    "an empty label": "bad..example.com",
    "a leading dot": ".example.com",
    "two trailing dots": "a.example.com..",
    "a newline inside": "host.example.com\nsecond line",
    "a newline at the end": "host.example.com\n",
    "a newline behind the trailing dot": "host.example.com.\n",
    "a carriage return": "host.example.com\r",
    "a NUL": "host\x00.example.com",
    "an escape": "host\x1b[31m.example.com",
    "a space": "bad name.example.com",
    "a quote": 'bad".example.com',
    "a shell's quote": "bad'.example.com",
    "a semicolon": "a;b.example.com",
    "a slash": "a/b.example.com",
    "an exclamation mark": "bad!.example.com",
    "a leading hyphen": "-bad.example.com",
    "a trailing hyphen": "bad-.example.com",
    "a letter outside ASCII": "büch.example.com",
    "a digit outside ASCII": "host\N{ARABIC-INDIC DIGIT ONE}.example.com",
    "a byte that was not UTF-8": "a\udcff.example.com",
    "a label of 64 characters": "a" * 64 + ".example.com",
    "300 characters": ".".join(["abcd"] * 60),
    "254 characters": "a." * 126 + "ab",
}


@given(host_names)
def test_a_well_formed_name_is_kept_as_it_is(name: str) -> None:
    assert str(FQDN.parse(name)) == name
    assert str(FQDN.parse(name + ".")) == name


@given(near_names)
def test_a_parsed_name_holds_nothing_a_file_or_a_tool_could_misread(text: str) -> None:
    for kind, allowed in ((FQDN, "-."), (ServiceName, "-._")):
        try:
            name = kind.parse(text)
        except Rejected:
            continue
        assert all(c.isascii() and (c.isalnum() or c in allowed) for c in name)
        assert 0 < len(name) <= 253
        assert all(0 < len(label) <= 63 for label in name.labels)


@given(st.text())
def test_any_text_is_parsed_or_rejected_with_one_printable_line(text: str) -> None:
    said = ""
    try:
        FQDN.parse(text)
    except Rejected as e:
        said = str(e)
    assert said.isprintable()
    assert len(said) < 1200


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_host_name_is_refused_for(text: str) -> None:
    with pytest.raises(Rejected, match=r"Invalid DNS name "):
        FQDN.parse(text)
    with pytest.raises(Rejected, match=r"Invalid DNS srv name "):
        ServiceName.parse(text)


@pytest.mark.parametrize("text", ["_under.example.com", "a_b.example.com", "a.b_.example.com"])
def test_an_underscore_is_refused_in_a_host_name(text: str) -> None:
    with pytest.raises(Rejected, match="Invalid DNS name"):
        FQDN.parse(text)


def test_a_service_name_may_have_underscores_but_not_only_them() -> None:
    assert ServiceName.parse("_sip._tcp.example.com") == "_sip._tcp.example.com"
    for text in ("_.example.com", "__a.example.com", "_-a.example.com"):
        with pytest.raises(Rejected):
            ServiceName.parse(text)


@pytest.mark.parametrize("text", [None, 5, ["a.example.com"], b"a.example.com"])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(Rejected, match="Invalid DNS name"):
        FQDN.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["a" * 254, "a" * 10_000, "a." * 5_000],
    ids=["one character too many", "one long label", "many labels"],
)
def test_long_names_are_refused(text: str) -> None:
    with pytest.raises(Rejected):
        FQDN.parse(text)
    with pytest.raises(Rejected):
        ServiceName.parse(text)


def test_the_longest_name_and_label_are_accepted() -> None:
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 253
    assert FQDN.parse(longest + ".") == longest


@given(host_names)
def test_names_compare_and_hash_without_case(name: str) -> None:
    upper, lower = FQDN.parse(name.upper()), FQDN.parse(name.lower())
    assert upper == lower
    assert (upper != lower) is False
    assert hash(upper) == hash(lower)
    assert len({upper, lower}) == 1


def test_the_case_a_name_was_written_in_is_kept() -> None:
    assert str(FQDN.parse("Proxy01.Example.COM.")) == "Proxy01.Example.COM"
    assert FQDN.parse("a.b.c").labels == ("a", "b", "c")


def test_a_settings_field_of_a_name_says_what_is_wrong_with_it() -> None:
    class WithName(Settings):
        name: FQDN

    assert type(WithName.model_validate({"name": "a.example.com."}).name) is FQDN
    with pytest.raises(ValueError, match="Invalid DNS name a b"):
        WithName.model_validate({"name": "a b"})


OCTETS_6 = "00:1A:2b:3c:4D:5e"
OCTETS_20 = ":".join(f"{n:02x}" for n in range(20))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (OCTETS_6, "00:1a:2b:3c:4d:5e"),
        (OCTETS_6.replace(":", "-"), "00:1a:2b:3c:4d:5e"),
        (OCTETS_20, OCTETS_20),
        (OCTETS_20.upper().replace(":", "-"), OCTETS_20),
    ],
)
def test_a_hardware_address_of_6_or_20_octets_becomes_lower_case_with_colons(text: str, parsed: str) -> None:
    assert MACAddress.parse(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00:1a:2b:3c:4d",
        "00:1a:2b:3c:4d:5e:6f",
        "00:1a:2b:3c:4d-5e",
        "00-1a-2b-3c-4d:5e",
        "001a2b3c4d5e",
        "00:1a:2b:3c:4d:5g",
        "00:1a:2b:3c:4d:5e\n",
        " 00:1a:2b:3c:4d:5e",
        "0:1a:2b:3c:4d:5e",
        "00:1a:2b:3c:4d:5\N{ARABIC-INDIC DIGIT THREE}",
        OCTETS_20 + ":14",
        OCTETS_20.rpartition(":")[0],
        OCTETS_20[:30] + "-" + OCTETS_20[31:],
        None,
    ],
)
def test_any_other_hardware_address_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="Invalid MAC address"):
        MACAddress.parse(text)


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_is_parsed(text: str) -> None:
    assert ip_address(text) == ipaddress.ip_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2",
        "192.0.2.256",
        "010.1.1.1",
        "192.0.2.1/24",
        "fe80::1%eth0\nx",
        "fe80::1%",
        "fe80::1%a b",
        "1" * 200,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="Invalid IP address"):
        ip_address(text)


def test_a_host_is_a_name_or_an_address() -> None:
    assert host_or_address("2001:DB8::1") == "2001:db8::1"
    assert host_or_address("proxy01.example.com.") == "proxy01.example.com"
    with pytest.raises(Rejected):
        host_or_address("proxy01 example")


@given(st.one_of(st.text(), st.binary(), st.none(), st.lists(st.text())))
def test_whatever_is_shown_is_one_bounded_printable_line(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= 80 * 10 + 30


def test_a_long_value_says_how_long_it_was() -> None:
    assert shown("a" * 81).endswith("… (81 characters)")
    assert shown("a\nb") == "a\\nb"
