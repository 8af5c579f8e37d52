from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Lease, Records, Reservation, Subnet
from muster.features.dhcp.isc import leases as read
from muster.features.dhcp.isc.grammar import Configuration, configuration
from muster.features.dhcp.isc.leases import Leases
from muster.kernel.names import MACAddress
from tests.unit.features.dhcp.isc.written import EARLIER, NOW, TOMORROW, host, lease

RECORDED = Path(__file__).parents[4] / "wire/recorded/smart-proxy"
SUBNET = Subnet(IPv4Network("192.168.120.0/24"), {"routers": ["192.168.120.1"]})
HALF = Subnet(IPv4Network("192.168.121.0/25"))
CONFIGURATION = Configuration((SUBNET, HALF, Subnet(IPv4Network("10.20.0.0/16"))))
IP, MAC = IPv4Address("192.168.120.20"), MACAddress.parse("52:54:00:00:00:20")


def fed(*pieces: str, configuration: Configuration = CONFIGURATION) -> Leases:
    known = Leases(configuration)
    for piece in pieces:
        known.feed(piece)
    return known


def told(known: Leases, now: datetime = NOW) -> list[str]:
    """Return the addresses of all leases."""
    return [str(one.ip) for subnet in known.subnets for one in known.records(subnet, now).leases]


def names(known: Leases) -> list[str]:
    return [one.name for subnet in known.subnets for one in known.records(subnet, NOW).reservations]


def everything(known: Leases, now: datetime = NOW) -> list[bytes]:
    return [shapes.encoded(list(known.records(subnet, now))) for subnet in known.subnets]


@pytest.fixture(params=["pattern", "grammar"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read a lease."""
    if request.param == "grammar":
        monkeypatch.setattr(read, "_LEASE", re.compile("(?!)"))
    return str(request.param)


def answered(seq: int) -> str:
    lines = (json.loads(line) for line in (RECORDED / "dhcp.jsonl").read_text().splitlines())
    return next(str(line["body"]) for line in lines if line["seq"] == seq)


def as_recorded() -> Leases:
    """Return what is in the recording's files; its dhcpd wrote the leases 94 seconds later, with another time each."""
    environment = RECORDED / "environment"
    text = (environment / "dhcpd.leases").read_text()
    text = text.replace(":32:50", ":34:24")
    text = re.sub(r"  ends (.*?);\n(?!  tstp)", r"  ends \1;\n  tstp \1;\n", text)
    return fed(text, configuration=configuration(environment / "dhcpd.conf", lambda path: path.read_text()))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("seq", "number"), [(240, 0), (241, 1), (243, 4)])
def test_a_subnet_is_told_as_the_ruby_proxy_told_it(seq: int, number: int) -> None:
    known = as_recorded()
    records = known.records(known.subnets[number], NOW)
    whole = (
        b'{"reservations":['
        + shapes.encoded(records.reservations)
        + b'],"leases":['
        + shapes.encoded(records.leases)
        + b"]}"
    )
    assert whole.decode() == answered(seq)
    # As one record after the other, too.
    assert [shapes.of_record(r) for r in records.leases] == json.loads(answered(seq))["leases"]


def test_an_address_is_told_as_the_ruby_proxy_told_it() -> None:
    known = as_recorded()
    at = known.at(known.subnets[0], IP, NOW)
    assert f"[{shapes.encoded(at).decode()}]" == answered(297)
    of = known.of(known.subnets[0], MAC, NOW)
    assert of is not None
    assert shapes.encoded([of]).decode() == answered(311)
    assert not known.at(known.subnets[0], IPv4Address("192.168.120.21"), NOW)


def test_options_of_hosts_are_told_as_the_ruby_proxy_told_them() -> None:
    names = ("root-path-name", "install-server-ip-address", "install-server-hostname", "install-path",
             "sysid-config-file-server", "JumpStart-server", "root-server-ip-address", "root-server-hostname")  # fmt: skip
    values = ('"/vol/x"', "c0:a8:78:09", '"s"', '"/p"', '"a:/b"', '"c:/d"', "c0:a8:78:09", '"rs"')
    statements = "".join(f"        supersede SUNW.{n} = {v};\n" for n, v in zip(names, values, strict=True))
    statements += '        supersede server.vendor-option-space = "SUNW";\n        supersede host-name = "n10";\n'
    known = fed(host("n10", "52:54:00:aa:00:10", "192.168.120.179", statements=statements))
    (one,) = known.records(SUBNET, NOW).reservations
    recorded = json.loads(answered(342))
    assert shapes.encoded([one]).decode() == json.dumps(recorded, separators=(",", ":"))


@pytest.mark.usefixtures("way")
def test_a_lease_is_equal_to_one_that_says_the_same() -> None:
    known = fed(lease(more='  uid "\\001x";\n  client-hostname "a";\n'))
    (one,) = known.records(SUBNET, NOW).leases
    options = {"tstp": "2026-11-23 12:00:00 UTC", "cltt": "2026-11-22 06:34:24 UTC", "next_state": "free",
               "hardware_type": "ethernet", "uid": '"\\001x"', "client_hostname": '"a"'}  # fmt: skip
    same = Lease(IP, MAC, SUBNET, datetime(2026, 11, 22, 6, 34, 24, tzinfo=UTC), TOMORROW, "active", options)
    assert one == same
    assert same == one
    assert known.records(SUBNET, NOW) == Records([], [same]) != Records([], [])
    assert list(one.options) == list(options)
    assert replace(one, state="abandoned") == replace(same, state="abandoned") != one
    assert (str(one), one.name, repr(one)[:10]) == (str(same), same.name, "ReadLease(")
    assert not hasattr(one, "nothing")
    other: object = 5
    assert one != other


def test_a_reservation_is_equal_to_one_that_says_the_same() -> None:
    (one,) = fed(host()).records(SUBNET, NOW).reservations
    options = {"hostname": "dyn1.example.com", "hardware_type": "ethernet"}
    same = Reservation(one.name, IPv4Address("192.168.120.160"), one.mac, SUBNET, options)
    assert one == same == one
    assert one != replace(same, deletable=False)
    other: object = 5
    assert one != other


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("state", ["free", "expired", "backup", "released", "reset"])
def test_what_is_over_is_none_and_ends_what_was_there(state: str) -> None:
    assert told(fed(lease(), lease(state=state))) == []
    assert told(fed(lease(), lease(mac=None, state=state))) == []
    assert told(fed(lease(state=state), lease())) == [str(IP)]


@pytest.mark.usefixtures("way")
def test_a_lease_whose_time_has_passed_is_none_from_then_on() -> None:
    known = fed(lease())
    assert told(known, TOMORROW) == [str(IP)]
    later = TOMORROW + timedelta(seconds=1)
    assert told(known, later) == []
    assert known.at(SUBNET, IP, later) == []
    assert known.of(SUBNET, MAC, later) is None
    assert known.taken(SUBNET, [IP], later) == set()
    forever = fed(lease(ends=None))
    assert told(forever, TOMORROW) == [str(IP)]
    assert forever.records(SUBNET, NOW).leases[0].ends == datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)


@pytest.mark.usefixtures("way")
def test_the_last_block_on_an_address_counts() -> None:
    other = "52:54:00:00:00:99"
    known = fed(lease(), lease("192.168.120.30", "52:54:00:00:00:30"), lease(mac=other))
    assert told(known) == ["192.168.120.30", str(IP)]
    assert known.of(SUBNET, MAC, NOW) is None
    found = known.of(SUBNET, MACAddress.parse(other), NOW)
    assert found is not None
    assert found.ip == IP


@pytest.mark.usefixtures("way")
def test_of_two_leases_of_one_machine_the_last_is_told_and_both_are_taken() -> None:
    second = IPv4Address("192.168.120.30")
    known = fed(lease(), lease(str(second), str(MAC)))
    assert told(known) == [str(second)]
    assert known.at(SUBNET, IP, NOW) == []
    # The machine may be there under the other client identifier; dhcpd gives the address to nobody else.
    assert known.taken(SUBNET, [IP, second, IPv4Address("192.168.120.31")], NOW) == {IP, second}
    known.feed(lease(str(second), str(MAC), state="free"))
    assert told(known) == [str(IP)]
    known.feed(lease(state="free"))
    assert told(known) == []


@pytest.mark.usefixtures("way")
def test_when_the_last_of_two_leases_ends_first_the_other_is_told() -> None:
    second = IPv4Address("192.168.120.30")
    known = fed(lease(), lease(str(second), str(MAC), ends=EARLIER))
    assert told(known) == [str(IP)]
    found = known.of(SUBNET, MAC, NOW)
    assert found is not None
    assert found.ip == IP
    known.feed(lease(state="free"))
    assert (told(known), known.of(SUBNET, MAC, NOW)) == ([], None)


@pytest.mark.usefixtures("way")
def test_leases_of_no_subnet_or_of_no_hardware_are_none() -> None:
    assert told(fed(lease("192.168.122.1"), lease("192.168.121.200"), lease(mac=None), lease("10.20.255.255"))) == [
        "10.20.255.255"
    ]
    assert told(fed(lease("192.168.120.020"), lease("192.168.120.256"))) == []


def test_leases_that_are_neither_active_nor_free_say_so() -> None:
    (one,) = fed(lease(state="abandoned")).records(SUBNET, NOW).leases
    assert one.state == "abandoned"
    assert shapes.of_record(one)["state"] == "abandoned"


def test_times_by_the_clock_of_the_machine_are_understood() -> None:
    text = lease().replace("starts 0 2026/11/22 06:34:24", "starts epoch 1795329264; # Sun Nov 22 06:34:24 2026 {")
    text = text.replace(f"ends {TOMORROW:%w %Y/%m/%d %H:%M:%S}", f"ends epoch {int(TOMORROW.timestamp())}; # x")
    (one,) = fed(text).records(SUBNET, NOW).leases
    assert (one.starts, one.ends) == (datetime.fromtimestamp(1795329264, UTC), TOMORROW)


def test_a_day_that_no_month_has_is_its_last() -> None:
    (one,) = fed(lease().replace("starts 0 2026/11/22", "starts 0 2026/02/31")).records(SUBNET, NOW).leases
    assert one.starts == datetime(2026, 2, 28, 6, 34, 24, tzinfo=UTC)


def test_blocks_within_a_lease_are_passed_over() -> None:
    more = (
        '  on expiry {\n    set ClientHost = "}";\n    binding state free;\n  }\n  option agent.circuit-id "\\"};";\n'
    )
    known = fed(lease(more=more), lease("192.168.120.21", "52:54:00:00:00:21"))
    assert told(known) == [str(IP), "192.168.120.21"]


def test_hosts_come_go_and_change() -> None:
    known = fed(host(), host("h_2", "52:54:00:00:02:02", "192.168.120.161"))
    assert names(known) == ["dyn1.example.com", "h_2"]
    known.feed(host("h_2", "52:54:00:00:02:02", "192.168.120.162"))
    assert not known.at(SUBNET, IPv4Address("192.168.120.161"), NOW)
    known.feed(host(deleted=True))
    assert names(known) == ["h_2"]
    known.feed(host(deleted=True))
    known.feed(host())
    assert names(known) == ["h_2", "dyn1.example.com"]


def test_a_host_takes_the_hardware_address_of_an_earlier_one() -> None:
    known = fed(host("a"), host("b", ip="192.168.120.161"))
    assert names(known) == ["b"]
    known.feed(host("a", deleted=True))
    assert names(known) == ["b"]
    known.feed(host("b", deleted=True))
    assert names(known) == []


def test_several_hosts_may_have_one_address() -> None:
    known = fed(host("a"), host("b", "52:54:00:00:02:02"), lease("192.168.120.160"))
    found = known.at(SUBNET, IPv4Address("192.168.120.160"), NOW)
    assert [r.name for r in found] == ["a", "b", f"lease-{MAC.replace(':', '')}"]
    known.feed(host("a", deleted=True))
    assert [r.name for r in known.at(SUBNET, IPv4Address("192.168.120.160"), NOW)] == [
        "b",
        f"lease-{MAC.replace(':', '')}",
    ]


def test_a_reservation_goes_before_a_lease() -> None:
    known = fed(lease(), host("a", str(MAC)))
    found = known.of(SUBNET, MAC, NOW)
    assert isinstance(found, Reservation)


def test_hosts_in_groups_and_hosts_of_the_configuration_are_known() -> None:
    def main(path: Path) -> str:
        return (
            "subnet 192.168.120.0 netmask 255.255.255.0 { } "
            "host static { hardware ethernet 00:11:22:33:44:01; fixed-address 192.168.120.150; }"
        )

    known = fed(f"group {{\n  dynamic;\n{host()}}}\n", configuration=configuration(Path("/x"), main))
    assert [(r.name, r.deletable) for r in known.records(known.subnets[0], NOW).reservations] == [
        ("static", False), ("dyn1.example.com", True),
    ]  # fmt: skip
    known.feed("host static { deleted; }\n")
    assert names(known) == ["dyn1.example.com"]


def test_of_an_unknown_subnet_there_is_nothing() -> None:
    known, elsewhere = fed(lease()), Subnet(IPv4Network("10.0.0.0/24"))
    assert known.records(elsewhere, NOW) == Records()
    assert known.at(elsewhere, IP, NOW) == ()
    assert known.of(elsewhere, MAC, NOW) is None
    assert known.taken(elsewhere, [IP], NOW) == set()


def test_what_else_dhcpd_writes_is_passed_over() -> None:
    head = (
        "# The format of this file is documented in the dhcpd.leases(5) manual page.\n\n"
        "authoring-byte-order little-endian;\n\n"
        'server-duid "\\000\\001;{\\"\\000\\006";\n\n'
        'failover peer "x" state {\n  my state normal at 0 2026/11/22 06:34:24;\n}\n'
        'class "c" {\n  dynamic;\n}\nsubclass "c" 1:52:54 {\n  lease limit 4;\n}\n'
        'ia-na "x" {\n  iaaddr ::1 { ends never; }\n}\n'
    )
    assert told(fed(head + lease())) == [str(IP)]


def test_a_block_that_is_torn_ends_nothing_for_ever() -> None:
    torn = 'lease 192.168.120.99 {\n  uid "' + "x" * (1 << 16)
    known = fed(torn, "\n" + lease())
    assert told(known) == [str(IP)]
    assert known.skipped


@pytest.mark.parametrize(
    ("text", "is_whole"), [("", True), ("\n# x", True), ("lease 1.2.3.4 {", False), ("a;\n", True), ("a", False)]
)
def test_whether_something_waits_for_its_end_is_known(text: str, is_whole: bool) -> None:
    assert fed(text).is_whole is is_whole


_IPS = st.sampled_from(
    ["192.168.120.20", "192.168.120.21", "192.168.120.22", "192.168.121.20", "192.168.121.220", "10.20.3.4"]
)
_MACS = st.sampled_from(["52:54:00:00:00:20", "52:54:00:00:00:21", "52:54:00:00:00:22"])
_ODD = st.text(alphabet="a\"\\{};# \n'é\x00", max_size=12).map(lambda t: '"' + re.sub(r'(["\\])', r"\\\1", t) + '"')
_LINES = st.lists(
    st.one_of(
        _ODD.map(lambda t: f"  uid {t};\n"),
        _ODD.map(lambda t: f"  client-hostname {t};\n"),
        _ODD.map(lambda t: f"  set vendor = {t};\n"),
        st.sampled_from(
            [
                "  reserved;\n",
                "  hardware ethernet 52:54:00:00:00:2f;\n",
                "  binding state free;\n",
                "  ends never;\n",
                "  tsfp 0 2026/11/22 06:34:24;\n",
                "  on expiry {\n    x;\n  }\n",
                "  option agent.circuit-id 0:4;\n",
                "# c {\n",
                "  next binding state backup;\n",
                "  cltt never;\n",
                "  hardware infiniband 1:2;\n",
                " uid 1:2;\n",
                '  x "a" = b, "c;";\n',
            ]
        ),
    ),
    max_size=4,
)
_BLOCKS = st.lists(
    st.one_of(
        st.builds(
            lambda ip, mac, ends, state, lines: lease(ip, mac, ends=ends, state=state, more="".join(lines)),
            _IPS,
            st.none() | _MACS,
            st.sampled_from([None, EARLIER, TOMORROW]),
            st.sampled_from(["active", "free", "abandoned"]),
            _LINES,
        ),
        st.builds(host, st.sampled_from(["a", "b_c"]), _MACS, _IPS, deleted=st.booleans()),
        st.sampled_from(["\n", "# c }\n", 'server-duid "}";\n', "failover peer x { a; }\n"]),
    ),
    max_size=8,
)


def _by_the_grammar(text: str) -> Leases:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(read, "_LEASE", re.compile("(?!)"))
        return fed(text)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "line",
    ["ends never;", "starts never;", "ends 0 2026/11/22 06:34:24;", "tsfp never;", "cltt never;", "uid 1:2;", 'uid "b";',
     "binding state free;", "next binding state backup;", "hardware ethernet 52:54:00:00:00:2f;", 'client-hostname "b";',
     "x; binding state free;", "x # binding state free;", 'x "a" ; binding state free;', 'x "\\";', 'x "a"; "b" ends never;',
     "x { ends never; }", "x }", "reserved;", "; ends never;", "bindings;", "uid;", "client-hostname;", "ends;", "x = 1, 2;",
     "x # y\n;", 'x "a\n";'],
)  # fmt: skip
def test_a_line_more_is_read_by_the_pattern_as_by_the_grammar(line: str, at: int) -> None:
    lines = ["  hardware ethernet 52:54:00:00:00:20;\n", '  uid "a";\n', '  client-hostname "a";\n']
    lines.insert(at, f"  {line}\n")
    text = lease(mac=None, more="".join(lines)) + lease("192.168.120.21", None)
    assert everything(fed(text)) == everything(_by_the_grammar(text))


def test_who_tells_what_was_there_before_brings_nothing_back() -> None:
    known = fed(lease(), lease("192.168.120.30", "52:54:00:00:00:30"))
    before = known.records(SUBNET, NOW).leases
    steps = known.encode()
    known.feed(lease(state="free") + lease("192.168.120.30", "52:54:00:00:00:31"))
    assert len(shapes.encoded(list(before)).split(b'"lease"')) == 3
    list(steps)
    assert told(known) == ["192.168.120.30"]
    assert known.records(SUBNET, NOW).leases[0].mac == "52:54:00:00:00:31"


@given(_BLOCKS)
def test_the_pattern_reads_what_the_grammar_reads(blocks: list[str]) -> None:
    text = "".join(blocks)
    assert everything(fed(text)) == everything(_by_the_grammar(text))


@given(_BLOCKS, st.data())
def test_pieces_of_any_size_say_what_the_whole_says(blocks: list[str], data: st.DataObject) -> None:
    text = "".join(blocks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    known, whole = fed(*pieces), fed(text)
    assert everything(known) == everything(whole)
    assert everything(known, TOMORROW + timedelta(days=1)) == everything(whole, TOMORROW + timedelta(days=1))


@given(_BLOCKS)
def test_what_is_encoded_is_what_is_told_field_by_field(blocks: list[str]) -> None:
    known = fed("".join(blocks))
    plain = fed("".join(blocks))
    assert len(list(plain.encode())) <= len(CONFIGURATION.subnets)
    for subnet in known.subnets:
        for one, other in zip(known.records(subnet, NOW), plain.records(subnet, NOW), strict=True):
            assert shapes.encoded_anew(one) == shapes.encoded([other])
            assert one == other


def conf(text: str, tmp_path: Path) -> Leases:
    head = "subnet 192.168.120.0 netmask 255.255.255.0 { }\n"
    return Leases(configuration(tmp_path / "dhcpd.conf", lambda _: head + text))


@pytest.mark.parametrize(
    "text",
    [
        "host a { hardware ethernet 52:54:00:00:00:30; fixed-address 192.168.120.30, 192.168.120.31; }",
        "host a { hardware ethernet 52:54:00:00:00:30; fixed-address 192.168.120.31; }\n"
        "host b { hardware ethernet 52:54:00:00:00:30; fixed-address 192.168.120.30; }",
        "subnet 192.168.121.0 netmask 255.255.255.0 { pool { host a { hardware ethernet 52:54:00:00:00:30;"
        " fixed-address 192.168.120.30, 192.168.120.31; } } }",
        'host a { option dhcp-client-identifier "x"; fixed-address 192.168.120.30, 192.168.120.31; }',
        "Host a { Hardware ethernet 52:54:00:00:00:30; Fixed-Address 192.168.120.30, 192.168.120.31; }",
    ],
)
def test_every_address_that_is_fixed_is_taken_whomever_it_is_for(text: str, tmp_path: Path) -> None:
    known = conf(text, tmp_path)
    both = [IPv4Address("192.168.120.30"), IPv4Address("192.168.120.31")]
    assert known.taken(SUBNET, [*both, IPv4Address("192.168.120.32")], NOW) == set(both)
    assert all(known.is_fixed(ip) for ip in both)


def test_keywords_have_no_case(tmp_path: Path) -> None:
    known = Leases(
        configuration(tmp_path / "c", lambda _: "SUBNET 192.168.120.0 NETMASK 255.255.255.0 { Range 192.168.120.9; }")
    )
    assert [s.network for s in known.subnets] == [SUBNET.network]


def test_a_host_that_is_gone_has_no_address_any_more() -> None:
    known = fed(host("h1"))
    (one,) = [r for s in known.subnets for r in known.records(s, NOW).reservations]
    assert known.is_fixed(one.ip)
    known.feed("host h1 {\n  dynamic;\n  deleted;\n}\n")
    assert not known.is_fixed(one.ip)
    assert known.taken(SUBNET, [one.ip], NOW) == set()


def test_an_address_that_dhcpd_gave_up_is_taken_until_it_is_free_again() -> None:
    ip = IPv4Address("192.168.120.77")
    block = "lease 192.168.120.77 {{\n  starts 0 2026/11/22 06:32:50;\n  ends never;\n  binding state {0};\n}}\n"
    known = fed(block.format("abandoned"))
    assert known.taken(SUBNET, [ip], NOW) == {ip}
    known.feed(block.format("free"))
    assert known.taken(SUBNET, [ip], NOW) == set()
