from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from muster.features.dns.contract import Record, RecordType
from muster.features.dns.held import is_held
from muster.features.dns.providers.powerdns import _held, is_told_openly
from muster.kernel.errors import Conflict
from muster.kernel.names import FQDN

RECORD = Record(FQDN.parse("h.example.com"), RecordType.A, ip_address("192.0.2.1"))


def zone(*rrsets: Any) -> dict[str, Any]:
    return {"name": "example.com.", "rrsets": list(rrsets)}


def rrset(name: str, kind: str, *contents: str, disabled: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "records": [{"content": c, "disabled": disabled} for c in contents]}


def test_names_compare_without_case_and_others_are_left_out() -> None:
    found = _held(
        zone(rrset("H.Example.com.", "A", "192.0.2.1"), rrset("g.example.com.", "A", "192.0.2.2")), RECORD.name
    )
    assert found == {"A": [ip_address("192.0.2.1")]}
    assert is_held(RECORD, found, "here")


def test_what_is_switched_off_is_in_the_way() -> None:
    found = _held(zone(rrset("h.example.com.", "A", "192.0.2.1", disabled=True)), RECORD.name)
    with pytest.raises(Conflict, match=r"holds A 192\.0\.2\.1 on here"):
        is_held(RECORD, found, "here")


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        "text",
        {},
        {"name": "h.example.com.", "type": "A", "records": None},
        {"name": "h.example.com.", "type": "A", "records": ["192.0.2.1", None, 3]},
    ],
)
def test_what_is_no_record_hides_none(odd: Any) -> None:
    assert _held(zone(odd, rrset("h.example.com.", "A", "192.0.2.1")), RECORD.name) == {"A": [RECORD.data]}


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("http://192.0.2.1:8081", True),
        ("http://pdns.test", True),
        ("http://localhost:8081", False),
        ("http://[::1]:8081", False),
        ("http://127.0.0.53:8081", False),
        ("http://127.0.0.53.test:8081", True),
        ("https://pdns.test", False),
    ],
)
def test_a_key_that_others_could_read_is_seen(url: str, is_open: bool) -> None:
    assert is_told_openly(f"{url}/api/v1/servers/localhost") is is_open
