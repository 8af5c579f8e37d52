from __future__ import annotations

import pytest

from muster.content.mirror.addresses import Private, Public, is_public, literal, refuse_private
from tests.servers.resolver import Names

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "151.101.2.132", "2a04:4e42::644", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"],
)
def test_what_is_routed_everywhere_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1",
        "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "2001:db8::1", "fec0::1",
        "::ffff:10.0.0.1", "::ffff:7f00:1", "::10.0.0.1", "2002:a00:1::1", "2002:7f00:1::", "64:ff9b::a00:1",
        "64:ff9b::7f00:1", "64:ff9b:1::808:808", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1", "4000::1",
        "", "host", "1.2.3", "8.8.8.8 ",
    ],
)  # fmt: skip
def test_the_rest_is_not_and_neither_is_what_it_is_wrapped_in(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1"), ("0x7f.1", "127.0.0.1"), ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("[::ffff:a00:1]", "::ffff:a00:1"), ("10.0.0.1.", "10.0.0.1"),
        ("localhost", "127.0.0.1"), ("LOCALHOST.", "127.0.0.1"), ("a.localhost", "127.0.0.1"), ("8.8.8.8", "8.8.8.8"),
        ("origin.example", None), ("1.example", None), ("0x7f.example", None), ("cafe", None), ("", None),
    ],
)  # fmt: skip
def test_an_address_is_one_in_whatever_form_it_is_written(host: str, address: str | None) -> None:
    assert literal(host) == address
    if address is None or is_public(address):
        refuse_private(host)
    else:
        with pytest.raises(Private, match="not public"):
            refuse_private(host)


async def test_a_name_with_public_addresses_is_resolved_to_them() -> None:
    found = await Public(Names({"a": [["8.8.8.8", "2a04:4e42::644"]]})).resolve("a", 443)
    assert [(one["host"], one["port"]) for one in found] == [("8.8.8.8", 443), ("2a04:4e42::644", 443)]


@pytest.mark.parametrize("address", ["10.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_a_name_with_one_that_is_not_is_refused(address: str) -> None:
    names = Names({"a": [["8.8.8.8"], ["8.8.8.8", address]]})
    assert await Public(names).resolve("a")
    # Whatever it was before.
    with pytest.raises(Private, match=f"a has the address {address}, which is not public"):
        await Public(names).resolve("a")
