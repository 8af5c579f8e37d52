from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.features.dns.contract import SRV, Data, DNSProvider, NoZone, RecordType
from muster.features.dns.providers.memory import MemoryDNS
from muster.features.dns.service import DNS, opened, requested
from muster.features.dns.settings import DNSSettings
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN, ServiceName
from muster.policy.metered import OperationMetrics

SERVICE = "_x._tcp.example.com"
REVERSE = "50.120.168.192.in-addr.arpa"
REVERSE6 = "3.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"


@pytest.fixture
def memory() -> MemoryDNS:
    return MemoryDNS()


@pytest.fixture
def dns(memory: MemoryDNS) -> DNS:
    provider: DNSProvider = memory
    return DNS(provider)


async def held(memory: MemoryDNS, name: str, kind: RecordType) -> set[Data]:
    return set(await memory.lookup(ServiceName.parse(name), kind))


def v4(text: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(text)


def v6(text: str) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(text)


GOOD: list[tuple[str, str, str, str, RecordType, Data]] = [
    ("a.example.com", "192.168.120.50", "A", "a.example.com", RecordType.A, v4("192.168.120.50")),
    ("a.example.com.", "192.168.120.50", "a", "a.example.com", RecordType.A, v4("192.168.120.50")),
    ("1.example.com", "192.168.120.60", "A", "1.example.com", RecordType.A, v4("192.168.120.60")),
    ("xn--bcher-kva.example.com", "192.0.2.1", "A", "xn--bcher-kva.example.com", RecordType.A, v4("192.0.2.1")),
    ("a.example.com", "192.168.120.77/24", "A", "a.example.com", RecordType.A, v4("192.168.120.0")),
    ("a.example.com", "192.168.120.77/32", "A", "a.example.com", RecordType.A, v4("192.168.120.77")),
    ("a.example.com", "192.168.120.77/255.255.0.0", "A", "a.example.com", RecordType.A, v4("192.168.0.0")),
    ("a.example.com", "2001:0DB8:0000::0053", "AAAA", "a.example.com", RecordType.AAAA, v6("2001:db8::53")),
    ("a.example.com", "2001:db8::53/64", "aaaa", "a.example.com", RecordType.AAAA, v6("2001:db8::")),
    ("a.example.com", "[2001:db8::53]", "AAAA", "a.example.com", RecordType.AAAA, v6("2001:db8::53")),
    ("a.example.com", "[2001:db8::53]/64", "AAAA", "a.example.com", RecordType.AAAA, v6("2001:db8::")),
    ("a.example.com", "b.example.com.", "CNAME", "a.example.com", RecordType.CNAME, FQDN("b.example.com")),
    ("a.example.com", REVERSE, "PTR", REVERSE, RecordType.PTR, FQDN("a.example.com")),
    ("a.example.com.", REVERSE + ".", "ptr", REVERSE, RecordType.PTR, FQDN("a.example.com")),
    ("a.example.com", REVERSE6.upper(), "PTR", REVERSE6, RecordType.PTR, FQDN("a.example.com")),
    (SERVICE, "10 60 5060 sip.example.com", "SRV", SERVICE, RecordType.SRV, SRV(10, 60, 5060, FQDN("sip.example.com"))),
    (SERVICE, "0x10 060 5060 b.example.com", "srv", SERVICE, RecordType.SRV, SRV(16, 48, 5060, FQDN("b.example.com"))),
    (SERVICE, "0 0 1 b.example.com.", "SRV", SERVICE, RecordType.SRV, SRV(0, 0, 1, FQDN("b.example.com"))),
    (
        SERVICE,
        "0b11 0o17 0xFFFF b.example.com",
        "SRV",
        SERVICE,
        RecordType.SRV,
        SRV(3, 15, 65535, FQDN("b.example.com")),
    ),
    # Ruby splits at runs of white space (run); line ends are refused here as everywhere.
    (SERVICE, "1  2 3 b.example.com", "SRV", SERVICE, RecordType.SRV, SRV(1, 2, 3, FQDN("b.example.com"))),
    (SERVICE, " 1 2 3\tb.example.com \t", "SRV", SERVICE, RecordType.SRV, SRV(1, 2, 3, FQDN("b.example.com"))),
    (SERVICE, "65535 00 010 b.example.com", "SRV", SERVICE, RecordType.SRV, SRV(65535, 0, 8, FQDN("b.example.com"))),
]


@pytest.mark.parametrize(("fqdn", "value", "type_name", "owner", "kind", "data"), GOOD, ids=lambda v: str(v)[:40])
async def test_foremans_parameters_become_the_record_they_mean(
    dns: DNS, memory: MemoryDNS, fqdn: str, value: str, type_name: str, owner: str, kind: RecordType, data: Data
) -> None:
    record = requested(fqdn, value, type_name)
    assert (record.name, record.type, record.data) == (owner, kind, data)
    await dns.create(fqdn, value, type_name)
    assert await held(memory, owner, kind) == {data}


BAD: list[tuple[str, str, str, str]] = [
    ("_under.example.com", "192.168.120.9", "A", "Invalid DNS name _under.example.com"),
    ("a_b.example.com", "192.168.120.9", "A", "Invalid DNS name a_b.example.com"),
    ("-bad.example.com", "192.168.120.60", "A", "Invalid DNS name -bad.example.com"),
    ("bad..example.com", "192.168.120.60", "A", "Invalid DNS name bad..example.com"),
    ("bad name.example.com", "192.168.120.60", "A", "Invalid DNS name bad name.example.com"),
    ("bad!.example.com", "192.168.120.60", "A", "Invalid DNS name bad!.example.com"),
    ("büch.example.com", "192.168.120.60", "A", "Invalid DNS name büch.example.com"),
    ("", "192.168.120.60", "A", "Invalid DNS name "),
    (".", "192.168.120.60", "A", "Invalid DNS name ."),
    # The Ruby proxy takes the next ones for good names and hands them to nsupdate.
    ("a" * 64 + ".example.com", "192.168.120.60", "A", "Invalid DNS name " + "a" * 64 + ".example.com"),
    (
        "host.example.com\nupdate delete static.example.com A",
        "192.168.120.60",
        "A",
        "Invalid DNS name host.example.com\\nupdate delete static.example.com A",
    ),
    ("good.example.com\n!!", "192.168.120.60", "A", "Invalid DNS name good.example.com\\n!!"),
    # The name is looked at before the type, and the type before the value.
    ("bad!", "nonsense", "TXT", "Invalid DNS name bad!"),
    ("a.example.com", "nonsense", "TXT", "unrecognized 'type' parameter: TXT"),
    ("a.example.com", "nonsense", "txt", "unrecognized 'type' parameter: TXT"),
    ("a.example.com", "x", "", "unrecognized 'type' parameter: "),
    ("a.example.com", "x", "A\nB", "unrecognized 'type' parameter: A\\nB"),
    (SERVICE, "192.0.2.1", "A", f"Invalid DNS name {SERVICE}"),
    ("bad!", "10 60 5060 sip.example.com", "SRV", "Invalid DNS srv name bad!"),
    ("a.example.com", "2001:db8::1", "A", "address family mismatch"),
    ("a.example.com", "notanip", "A", "address family mismatch"),
    ("a.example.com", "", "A", "address family mismatch"),
    ("a.example.com", "192.168.120.999", "A", "invalid address: 192.168.120.999"),
    ("a.example.com", "010.020.030.040", "A", "invalid address: 010.020.030.040"),
    ("a.example.com", "192.0.2.1/33", "A", "address family mismatch"),
    ("a.example.com", "192.0.2.1\n", "A", "address family mismatch"),
    ("a.example.com", "192.0.2.1%eth0", "A", "invalid address: 192.0.2.1%eth0"),
    ("a.example.com", "192.168.120.1", "AAAA", "invalid address: 192.168.120.1"),
    ("a.example.com", "nonsense", "AAAA", "invalid address: nonsense"),
    ("a.example.com", "[192.0.2.1]", "AAAA", "invalid address: [192.0.2.1]"),
    ("a.example.com", "[2001:db8::1", "AAAA", "invalid address: [2001:db8::1"),
    ("a.example.com", "fe80::1%eth0", "AAAA", "invalid address: fe80::1%eth0"),
    ("a.example.com", "2001:db8::1\n", "AAAA", "invalid address: 2001:db8::1\\n"),
    ("a.example.com", "bad_target!", "CNAME", "Invalid DNS name bad_target!"),
    ("a.example.com", "b.example.com\n", "CNAME", "Invalid DNS name b.example.com\\n"),
    ("a.example.com", "192.168.120.50", "PTR", "Invalid reverse DNS 192.168.120.50"),
    ("a.example.com", "a.example.com", "PTR", "Invalid reverse DNS a.example.com"),
    ("a.example.com", "in-addr.arpa", "PTR", "Invalid reverse DNS in-addr.arpa"),
    ("a.example.com", "1.in-addr.arpa.evil.test", "PTR", "Invalid reverse DNS 1.in-addr.arpa.evil.test"),
    ("a.example.com", "1.in-addr.arpa\nx", "PTR", "Invalid reverse DNS 1.in-addr.arpa\\nx"),
    ("a_b.example.com", REVERSE, "PTR", "Invalid DNS name a_b.example.com"),
]
BAD_SRV = [
    "",
    "10 60 5060",
    "10 60 5060 a b",
    "10 60 5060 ",
    "10 60\n5060 a.example.com",
    "a 60 5060 sip.example.com",
    "10 60 0 sip.example.com",
    "10 60 65536 sip.example.com",
    "65536 0 1 sip.example.com",
    "0 65536 1 sip.example.com",
    "-1 0 1 sip.example.com",
    "+1 0 1 sip.example.com",
    "08 0 1 sip.example.com",
    "0x 0 1 sip.example.com",
    "0b2 0 1 sip.example.com",
    "0o 0 1 sip.example.com",
    "1.0 0 1 sip.example.com",
    "99999999999999999999 0 1 sip.example.com",
    "10 60 5060 sip!.example.com",
    "10 60 5060 _sip.example.com",
    "10 60 5060 sip.example.com\n",
]


@pytest.mark.parametrize(
    ("fqdn", "value", "type_name", "text"),
    [
        *BAD,
        *((SERVICE, v, "SRV", "Invalid DNS SRV value " + v.replace("\t", "\\t").replace("\n", "\\n")) for v in BAD_SRV),
    ],
    ids=lambda v: ascii(v)[:40],
)
async def test_malformed_parameters_are_rejected_in_the_ruby_proxys_words(
    dns: DNS, memory: MemoryDNS, fqdn: str, value: str, type_name: str, text: str
) -> None:
    memory.failure = AssertionError("the provider must not be asked")  # type: ignore[assignment]
    with pytest.raises(Rejected) as raised:
        await dns.create(fqdn, value, type_name)
    assert str(raised.value) == text


@given(
    st.text(st.sampled_from("aA1-_. \n\0é"), max_size=12),
    st.text(st.sampled_from("0123456789abxo:. /%-\n"), max_size=20),
    st.sampled_from(["A", "aaaa", "CNAME", "PTR", "srv", "TXT", "", "ß"]),
)
def test_any_parameters_are_a_record_or_rejected_in_one_line(fqdn: str, value: str, type_name: str) -> None:
    said = ""
    try:
        str(requested(fqdn, value, type_name))
    except Rejected as e:
        said = str(e)
    assert said.isprintable()


async def test_the_same_record_twice_is_success_however_it_is_written(dns: DNS) -> None:
    await dns.create("a.example.com", "192.168.120.50", "A")
    await dns.create("A.EXAMPLE.COM.", "192.168.120.50", "a")
    await dns.create("b.example.com", "static.example.com", "CNAME")
    await dns.create("b.example.com", "STATIC.example.com", "CNAME")


@pytest.mark.parametrize(
    ("fqdn", "first", "second", "type_name", "text"),
    [
        ("Golden1.example.com", "192.0.2.50", "192.0.2.51", "A", "'Golden1.example.com 'is already in use"),
        ("g6.example.com", "2001:db8::53", "2001:db8::54", "AAAA", "'g6.example.com 'is already in use"),
        ("gc.example.com.", "a.example.com", "b.example.com", "CNAME", "'gc.example.com 'is already in use"),
    ],
)
async def test_a_conflict_is_said_with_the_misplaced_quote(
    dns: DNS, memory: MemoryDNS, fqdn: str, first: str, second: str, type_name: str, text: str
) -> None:
    await dns.create(fqdn, first, type_name)
    before = await held(memory, fqdn, RecordType(type_name))
    with pytest.raises(Conflict) as raised:
        await dns.create(fqdn, second, type_name)
    assert str(raised.value) == text
    assert await held(memory, fqdn, RecordType(type_name)) == before


async def test_a_conflict_of_a_reverse_record_names_the_reverse_name(dns: DNS) -> None:
    await dns.create("golden1.example.com", REVERSE, "PTR")
    await dns.create("GOLDEN1.example.com", REVERSE, "PTR")
    with pytest.raises(Conflict) as raised:
        await dns.create("golden2.example.com", REVERSE + ".", "PTR")
    assert str(raised.value) == f"'{REVERSE}' is already in use"


async def test_services_under_one_name_never_conflict(dns: DNS, memory: MemoryDNS) -> None:
    await dns.create(SERVICE, "10 60 5060 a.example.com", "SRV")
    await dns.create(SERVICE, "20 60 5060 b.example.com", "SRV")
    assert len(await held(memory, SERVICE, RecordType.SRV)) == 2


@pytest.mark.parametrize(
    ("path_name", "path_type", "gone"),
    [
        ("a.example.com", None, RecordType.A),
        ("A.example.com.", "A", RecordType.A),
        ("a.example.com", "AAAA", RecordType.AAAA),
        (REVERSE, None, RecordType.PTR),
        (REVERSE.upper() + ".", None, RecordType.PTR),
        (REVERSE, "PTR", RecordType.PTR),
        (REVERSE6, None, RecordType.PTR),
        (SERVICE, "SRV", RecordType.SRV),
        ("alias.example.com", "CNAME", RecordType.CNAME),
    ],
)
async def test_a_delete_removes_all_records_of_one_type(
    dns: DNS, memory: MemoryDNS, path_name: str, path_type: str | None, gone: RecordType
) -> None:
    made = [
        ("a.example.com", "192.0.2.1", "A"),
        ("a.example.com", "2001:db8::1", "AAAA"),
        ("a.example.com", REVERSE, "PTR"),
        ("a.example.com", REVERSE6, "PTR"),
        (SERVICE, "1 0 1 a.example.com", "SRV"),
        (SERVICE, "2 0 1 a.example.com", "SRV"),
        ("alias.example.com", "a.example.com", "CNAME"),
    ]
    for one in made:
        await dns.create(*one)
    await dns.delete(path_name, path_type)
    for one in made:
        record = requested(*one)
        is_gone = record.type is gone and record.name == path_name.removesuffix(".")
        assert (record.data in await held(memory, record.name, record.type)) is not is_gone


@pytest.mark.parametrize(
    ("name", "type_name"), [("a.example.com", None), ("a.example.com", "A"), (REVERSE, None), (SERVICE, "SRV")]
)
async def test_a_delete_of_nothing_is_success_once_and_again(dns: DNS, name: str, type_name: str | None) -> None:
    await dns.delete(name, type_name)
    await dns.delete(name, type_name)


@pytest.mark.parametrize(
    ("name", "type_name", "text"),
    [
        ("a.example.com", "a", "unrecognized 'type' parameter: a"),
        (REVERSE, "ptr", "unrecognized 'type' parameter: ptr"),
        ("a.example.com", "TXT", "unrecognized 'type' parameter: TXT"),
        ("a.example.com", "A\n", "unrecognized 'type' parameter: A\\n"),
        ("bad!", None, "Invalid DNS name bad!"),
        ("a_b.example.com", "A", "Invalid DNS name a_b.example.com"),
        ("a.example.com\n", None, "Invalid DNS name a.example.com\\n"),
        ("a.example.com", "PTR", "Invalid reverse DNS a.example.com"),
        ("bad!.in-addr.arpa", None, "Invalid reverse DNS bad!.in-addr.arpa"),
        ("bad!", "SRV", "Invalid DNS srv name bad!"),
    ],
)
async def test_a_malformed_delete_is_rejected(dns: DNS, name: str, type_name: str | None, text: str) -> None:
    with pytest.raises(Rejected) as raised:
        await dns.delete(name, type_name)
    assert str(raised.value) == text


async def test_a_delete_where_even_the_zone_is_gone_says_404_which_foreman_takes_for_done() -> None:
    dns = DNS(MemoryDNS((FQDN("example.com"),)))
    with pytest.raises(NoZone) as raised:
        await dns.delete("a.nozone.test", "A")
    assert raised.value.status == 404
    await dns.delete("a.example.com", "A")


@pytest.mark.parametrize("error", [Unavailable("down"), Rejected("no zone")], ids=["down", "refused"])
async def test_other_failures_of_the_provider_pass_untouched(dns: DNS, memory: MemoryDNS, error: MusterError) -> None:
    memory.failure = error
    with pytest.raises(type(error)) as raised:
        await dns.create("a.example.com", "192.0.2.1", "A")
    assert raised.value is error
    with pytest.raises(type(error)) as raised:
        await dns.delete("a.example.com", None)
    assert raised.value is error


async def test_the_service_opens_the_provider_of_the_settings_inside_its_policies() -> None:
    registry = CollectorRegistry()
    nowhere = Path("/nonexistent")
    around = Surroundings("proxy01", OperationMetrics(registry), nowhere, nowhere, nowhere)
    settings = DNSSettings.model_validate({"provider": "memory", "memory": {"zones": ["example.com"]}})
    async with opened(settings, around) as dns:
        await dns.create("a.example.com", "192.0.2.1", "A")
        with pytest.raises(Rejected, match="memory serves no zone"):
            await dns.create("a.example.net", "192.0.2.1", "A")
        await dns.delete("b.example.com", None)

    def count(operation: str, outcome: str) -> float | None:
        labels = {"contract": "DNSProvider", "operation": operation, "provider": "memory", "outcome": outcome}
        return registry.get_sample_value("muster_operation_seconds_count", labels)

    assert (count("add", "ok"), count("add", "Rejected"), count("remove", NotFound.__name__)) == (1, 1, 1)
