from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from muster.features.discovery.nodes import Nodes, context_of
from muster.features.discovery.settings import DiscoverySettings
from muster.kernel.errors import Misconfigured, Rejected


def nodes(*networks: str, **given: Any) -> Nodes:
    settings = DiscoverySettings.model_validate({"node_networks": list(networks), **given})
    return Nodes(settings, None)


@pytest.mark.parametrize("text", ["192.0.2.7", "10.1.2.3", "2001:db8::7", "fd00::1"])
def test_machines_may_be_anywhere_but_on_members_hosts(text: str) -> None:
    assert str(nodes().address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "169.254.1.1", "fe80::1",
        "::ffff:127.0.0.1", "::ffff:0.0.0.0",
    ],
)  # fmt: skip
def test_no_address_is_asked_that_is_no_machine_s(text: str) -> None:
    with pytest.raises(Rejected, match=r"Discovered machines are not asked at .*: no other host is there"):
        nodes().address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4/32",
        "1.2.3.4:22",
        "[::1]",
        "fd00::1%eth0",
        "１.2.3.4",
        "x\n",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="Invalid IP address"):
        nodes().address(text)


def test_networks_that_are_named_are_the_only_ones_and_may_be_any() -> None:
    named = nodes("192.0.2.0/24", "127.0.0.88/29", "2001:db8::/32")
    for text in ("192.0.2.255", "127.0.0.91", "2001:db8:9::1"):
        assert str(named.address(text)) == text
    assert str(named.address("::ffff:192.0.2.9")) == "192.0.2.9"
    for text in ("192.0.3.1", "127.0.0.1", "2001:db9::1", "::ffff:10.0.0.1"):
        with pytest.raises(Rejected, match=r"node_networks has 192\.0\.2\.0/24, "):
            named.address(text)


def test_certificates_are_not_verified_unless_a_ca_is_named(tmp_path: Path) -> None:
    made = context_of(DiscoverySettings())
    assert made is not None
    assert (made().verify_mode, made().check_hostname) == (ssl.CERT_NONE, False)
    assert made().minimum_version is ssl.TLSVersion.TLSv1_2
    assert context_of(DiscoverySettings(node_scheme="http")) is None
    with pytest.raises(Misconfigured, match=r"none\.pem"):
        context_of(DiscoverySettings(node_ca_file=tmp_path / "none.pem"))
