from __future__ import annotations

from ipaddress import ip_address

import pytest

from muster.features.dns.contract import SRV, Data, RecordType
from muster.features.dns.presentation import data, text
from muster.kernel.names import FQDN

OF_EACH: list[tuple[RecordType, Data, str]] = [
    (RecordType.A, ip_address("192.0.2.1"), "192.0.2.1"),
    (RecordType.AAAA, ip_address("2001:db8::1"), "2001:db8::1"),
    (RecordType.CNAME, FQDN("t.example.com"), "t.example.com."),
    (RecordType.PTR, FQDN("t.example.com"), "t.example.com."),
    (RecordType.SRV, SRV(10, 60, 5060, FQDN("sip.example.com")), "10 60 5060 sip.example.com."),
]


@pytest.mark.parametrize(("kind", "value", "written"), OF_EACH, ids=[kind.value for kind, _, _ in OF_EACH])
def test_data_is_written_and_read_again(kind: RecordType, value: Data, written: str) -> None:
    assert text(value) == written
    assert data(kind, written) == value


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (RecordType.A, "2001:db8::1"),
        (RecordType.A, "host"),
        (RecordType.AAAA, "192.0.2.1"),
        (RecordType.SRV, "10 60 sip.example.com."),
        (RecordType.SRV, "ten 60 5060 sip.example.com."),
    ],
)
def test_what_is_no_such_data_is_none(kind: RecordType, written: str) -> None:
    assert data(kind, written) is None
