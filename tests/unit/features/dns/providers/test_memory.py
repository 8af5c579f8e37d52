from __future__ import annotations

import ipaddress

import pytest

from muster.features.dns.contract import SRV, Data, NoZone, Record, RecordType
from muster.features.dns.providers.memory import MemoryDNS
from muster.kernel.errors import Conflict, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN, ServiceName

NAME = FQDN.parse("a.example.com")


def address(last: int, name: str = NAME) -> Record:
    return Record(FQDN.parse(name), RecordType.A, ipaddress.IPv4Address(f"192.0.2.{last}"))


def alias(name: str = NAME) -> Record:
    return Record(FQDN.parse(name), RecordType.CNAME, FQDN.parse("b.example.com"))


def service(priority: int) -> Record:
    data = SRV(priority, 0, 80, FQDN.parse("b.example.com"))
    return Record(ServiceName.parse("_http._tcp.example.com"), RecordType.SRV, data)


async def values(dns: MemoryDNS, record: Record) -> set[Data]:
    return set(await dns.lookup(record.name, record.type))


async def test_a_record_is_added_found_in_any_case_and_removed() -> None:
    dns = MemoryDNS()
    await dns.add(address(1))
    assert await values(dns, address(1, "A.Example.COM")) == {address(1).data}
    await dns.remove(FQDN.parse("A.EXAMPLE.com"), RecordType.A)
    assert await values(dns, address(1)) == set()


async def test_a_name_has_one_value_and_saying_it_twice_is_no_conflict() -> None:
    dns = MemoryDNS()
    await dns.add(address(1))
    await dns.add(address(1))
    with pytest.raises(Conflict):
        await dns.add(address(2))
    assert await values(dns, address(1)) == {address(1).data}


async def test_services_stand_beside_each_other() -> None:
    dns = MemoryDNS()
    await dns.add(service(1))
    await dns.add(service(2))
    assert await values(dns, service(1)) == {service(1).data, service(2).data}
    await dns.remove(service(1).name, RecordType.SRV)
    assert await values(dns, service(1)) == set()


async def test_an_alias_stands_alone() -> None:
    for first, second in ((address(1), alias()), (alias(), address(1))):
        dns = MemoryDNS()
        await dns.add(first)
        with pytest.raises(Conflict):
            await dns.add(second)
        await dns.remove(NAME, first.type)
        await dns.add(second)
        assert await values(dns, second) == {second.data}


async def test_a_refused_record_leaves_nothing() -> None:
    dns = MemoryDNS()
    await dns.add(address(1))
    with pytest.raises(Conflict):
        await dns.add(alias())
    with pytest.raises(NotFound):
        await dns.remove(NAME, RecordType.CNAME)
    assert await values(dns, address(1)) == {address(1).data}


async def test_nothing_there_is_not_found_and_looking_is_not() -> None:
    dns = MemoryDNS()
    assert await values(dns, address(1)) == set()
    with pytest.raises(NotFound, match=r"a\.example\.com has no A record"):
        await dns.remove(NAME, RecordType.A)


async def test_other_types_of_a_name_stay() -> None:
    dns = MemoryDNS()
    six = Record(NAME, RecordType.AAAA, ipaddress.IPv6Address("2001:db8::1"))
    await dns.add(address(1))
    await dns.add(six)
    await dns.remove(NAME, RecordType.A)
    assert await values(dns, six) == {six.data}


async def test_only_names_of_its_zones_are_served() -> None:
    dns = MemoryDNS([FQDN.parse("Example.com")])
    await dns.add(address(1, "a.EXAMPLE.com"))
    await dns.add(address(1, "example.com"))
    for name in ("a.example.net", "badexample.com"):
        with pytest.raises(Rejected, match=f"memory serves no zone for {name}"):
            await dns.add(address(1, name))
        with pytest.raises(NoZone, match=f"memory serves no zone for {name}"):
            await dns.remove(FQDN.parse(name), RecordType.A)


async def test_it_fails_as_told_and_changes_nothing_meanwhile() -> None:
    dns = MemoryDNS()
    dns.failure = Unavailable("told to")
    with pytest.raises(Unavailable):
        await dns.lookup(NAME, RecordType.A)
    with pytest.raises(Unavailable):
        await dns.add(address(1))
    with pytest.raises(Unavailable):
        await dns.remove(NAME, RecordType.A)
    dns.failure = None
    assert await values(dns, address(1)) == set()
