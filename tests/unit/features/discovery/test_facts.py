from __future__ import annotations

import json
from typing import Any

import pytest

from muster.features.discovery import facts
from muster.kernel.errors import Rejected

ODD: list[bytes] = [
    b"", b"null", b"1", b'"facts"', b"[]", b"{", b"{}{}", b'{"facts":{"a":NaN}}', b'{"facts":{"a":-Infinity}}', b"\xff",
    '{"facts":{}}'.encode("utf-16"), b"\xef\xbb\xbf{}", b"[" * 150_000, b'{"facts":' * 150_000, b"{" + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_what_is_no_object_of_json_is_refused_without_showing_it(body: bytes) -> None:
    with pytest.raises(Rejected, match=r"^Tried: the body (is no JSON|is JSON, but no object)$"):
        facts.checked(body, "Tried")


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"0,", b'"",'])
def test_many_values_are_refused_before_they_are_read(piece: bytes) -> None:
    body = b'{"a":[' + piece * 210_000 + b"0]}"
    assert len(body) < facts.LARGEST_BYTES
    with pytest.raises(Rejected, match="more than 200000 values"):
        facts.checked(body, "Tried")


def test_facts_of_a_large_machine_are_read() -> None:
    large = {f"blockdevice_sd{i}_vendor": [f"vendor{i}", i] for i in range(20_000)}
    assert facts.sent(json.dumps({"facts": large, "more": 1}).encode()) == large


@pytest.mark.parametrize("body", [{}, {"facts": None}, {"facts": []}, {"facts": "x"}, {"fact": {}}])
def test_facts_stand_under_their_name(body: Any) -> None:
    with pytest.raises(Rejected, match="has no object 'facts'"):
        facts.sent(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("told", "mac"),
    [
        ({"discovery_bootif": "52-54-00-AA-00-01", "macaddress": "52:54:00:aa:00:02"}, "52:54:00:aa:00:01"),
        ({"discovery_bootif": "x\ny", "macaddress": "52:54:00:aa:00:02"}, "52:54:00:aa:00:02"),
        ({"discovery_bootif": ["52:54:00:aa:00:01"]}, None),
        ({}, None),
    ],
)
def test_a_machine_is_known_by_its_hardware_address_alone(told: dict[str, Any], mac: str | None) -> None:
    assert facts.mac_of(told) == mac
