from __future__ import annotations

from ipaddress import ip_address

import pytest

from muster.features.dns.contract import SRV, Data, Record, RecordType
from muster.features.dns.held import Held, is_held
from muster.kernel.errors import Conflict
from muster.kernel.names import FQDN, ServiceName

NAME = FQDN.parse("h.example.com")
ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
TARGET = FQDN.parse("t.example.com")
SIP = SRV(10, 60, 5060, FQDN.parse("sip.example.com"))


def record(kind: RecordType, data: Data) -> Record:
    return Record(ServiceName("_sip._tcp.example.com") if kind is RecordType.SRV else NAME, kind, data)


@pytest.mark.parametrize(
    ("kind", "data", "held", "there"),
    [
        (RecordType.A, ONE, {}, False),
        (RecordType.A, ONE, {"A": [ONE]}, True),
        # Should there be more than one, ours is there.
        (RecordType.A, ONE, {"A": [TWO, ONE]}, True),
        (RecordType.A, ONE, {"AAAA": [ip_address("2001:db8::1")], "TXT": ["x"]}, False),
        (RecordType.A, ONE, {"A": [], "CNAME": []}, False),
        (RecordType.CNAME, TARGET, {"CNAME": [FQDN("T.Example.Com")]}, True),
        (RecordType.CNAME, TARGET, {"RRSIG": ["x"], "NSEC": ["y"]}, False),
        (RecordType.SRV, SIP, {"SRV": [SRV(10, 60, 5061, SIP.target)]}, False),
        (RecordType.SRV, SIP, {"SRV": [SRV(10, 60, 5061, SIP.target), SIP]}, True),
    ],
)
def test_what_may_be_added_and_what_is_there(kind: RecordType, data: Data, held: Held, there: bool) -> None:
    assert is_held(record(kind, data), held, "here") is there


@pytest.mark.parametrize(
    ("kind", "data", "held", "said"),
    [
        (RecordType.A, ONE, {"A": [TWO]}, r"holds A 192\.0\.2\.2 on here"),
        (RecordType.A, ONE, {"A": ["odd"]}, "holds A odd on here"),
        (RecordType.A, ONE, {"CNAME": [TARGET]}, "is a CNAME on here, which stands alone"),
        (RecordType.SRV, SIP, {"CNAME": [TARGET]}, "is a CNAME on here"),
        (RecordType.CNAME, TARGET, {"CNAME": [FQDN("u.example.com")]}, r"holds CNAME u\.example\.com"),
        (
            RecordType.CNAME,
            TARGET,
            {"SOA": ["x"], "NS": ["y"]},
            "holds NS, SOA records on here, and a CNAME stands alone",
        ),
    ],
)
def test_what_is_in_the_way_is_named(kind: RecordType, data: Data, held: Held, said: str) -> None:
    with pytest.raises(Conflict, match=said):
        is_held(record(kind, data), held, "here")
