from __future__ import annotations

import ipaddress

from muster.features.dns.contract import SRV, Record, RecordType
from muster.kernel.names import FQDN, ServiceName


def test_equal_records_are_one_however_they_are_written() -> None:
    one = Record(FQDN.parse("A.example.com."), RecordType.AAAA, ipaddress.IPv6Address("2001:DB8::1"))
    two = Record(FQDN.parse("a.EXAMPLE.com"), RecordType.AAAA, ipaddress.IPv6Address("2001:db8:0::0001"))
    assert one == two
    assert len({one, two}) == 1
    assert one != Record(one.name, RecordType.A, ipaddress.IPv4Address("192.0.2.1"))


def test_a_record_reads_like_a_line_of_a_zone() -> None:
    target = SRV(10, 60, 5060, FQDN.parse("sip.example.com"))
    assert str(Record(ServiceName.parse("_sip._tcp.example.com"), RecordType.SRV, target)) == (
        "_sip._tcp.example.com SRV 10 60 5060 sip.example.com"
    )
