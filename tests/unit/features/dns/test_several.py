"""What is written down of changes of records, and which of them bear upon each other."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from muster.features.dns.contract import SRV, DNSProvider, Record, RecordType
from muster.features.dns.several import Records
from muster.kernel.names import FQDN, ServiceName
from muster.policy.groups.journal import Written
from muster.policy.marks import operations

CODEC = Records()
ADD, REMOVE = (next(o for o in operations(DNSProvider) if o.name == name) for name in ("add", "remove"))
WEB = FQDN.parse("Web.example.com")
PTR6 = FQDN.parse("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
SERVICE = ServiceName.parse("_ldap._tcp.example.com")
RECORDS = [
    Record(WEB, RecordType.A, ip_address("192.0.2.1")),
    Record(WEB, RecordType.AAAA, ip_address("2001:db8::1")),
    Record(WEB, RecordType.CNAME, FQDN.parse("other.example.com")),
    Record(PTR6, RecordType.PTR, WEB),
    Record(SERVICE, RecordType.SRV, SRV(10, 20, 389, FQDN.parse("ldap.example.com"))),
]


def add(record: Record) -> Written:
    return CODEC.written(ADD, (record,), {})


def remove(record: Record) -> Written:
    return CODEC.written(REMOVE, (record.name, record.type), {})


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.type.value)
def test_what_is_written_is_read_again(record: Record) -> None:
    assert CODEC.read(add(record)) == ((record,), {})
    assert CODEC.read(remove(record)) == ((record.name, record.type), {})
    assert add(record).key == remove(record).key == str(record.name).lower()


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.type.value)
def test_a_removal_settles_what_was_before_it_and_an_addition_follows_one(record: Record) -> None:
    assert CODEC.settles(remove(record), add(record))
    assert CODEC.settles(remove(record), remove(record))
    assert CODEC.settles(add(record), add(record))
    assert not CODEC.settles(add(record), remove(record))
    assert CODEC.follows(add(record), remove(record))
    assert not CODEC.follows(add(record), add(record))


def test_a_name_has_one_value_of_a_type_but_for_srv() -> None:
    another = Record(WEB, RecordType.A, ip_address("192.0.2.2"))
    assert CODEC.settles(add(another), add(RECORDS[0]))
    of_srv = Record(SERVICE, RecordType.SRV, SRV(0, 0, 389, FQDN.parse("second.example.com")))
    assert not CODEC.settles(add(of_srv), add(RECORDS[4]))
    assert not CODEC.follows(add(of_srv), add(RECORDS[4]))


def test_types_are_apart_and_names_in_order() -> None:
    a, aaaa = RECORDS[:2]
    assert not CODEC.settles(remove(a), add(aaaa))
    assert not CODEC.follows(add(a), remove(aaaa))
    assert CODEC.touches(add(a)) == CODEC.touches(remove(aaaa))
    assert not CODEC.touches(add(a)) & CODEC.touches(add(RECORDS[3]))


@pytest.mark.parametrize("arguments", [None, [], "x", {}, {"type": None}])
def test_what_another_version_wrote_bears_on_nothing(arguments: object) -> None:
    strange = Written("web.example.com", "rename", arguments)
    assert not CODEC.settles(add(RECORDS[0]), strange)
    assert not CODEC.settles(strange, add(RECORDS[0]))
    assert not CODEC.follows(add(RECORDS[0]), strange)
    with pytest.raises(ValueError, match=r"."):
        CODEC.read(strange)
