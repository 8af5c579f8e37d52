from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.dnsmasq.written import Port, Written, of, ports
from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress

MAC = MACAddress.parse("52:54:00:aa:00:01")
OTHER = MACAddress.parse("52:54:00:aa:00:02")
ONE = Reservation(
    "web.example.com", IPv4Address("192.0.2.5"), MAC, Subnet(IPv4Network("192.0.2.0/24")),
    {"hostname": "www.example.com", "filename": "grub2/grubx64.efi", "nextServer": "192.0.2.7", "<Sun>root_path_name": "/x"},
)  # fmt: skip


def with_(**options: Any) -> Reservation:
    return replace(ONE, options={**ONE.options, **options})


def test_a_reservation_is_a_line_of_hosts_and_options_of_its_tag() -> None:
    written = of(ONE, is_tagged=True)
    assert written.name == "192.0.2.5"
    assert written.hosts(is_tagged=True).splitlines()[1:] == [
        "# 52:54:00:aa:00:01 web.example.com www.example.com",
        "52:54:00:aa:00:01,set:muster,set:muster-c0000205,192.0.2.5,www.example.com",
    ]
    assert (written.options() or "").splitlines()[1:] == [
        "tag:muster-c0000205,option:bootfile-name,grub2/grubx64.efi",
        "tag:muster-c0000205,option:server-ip-address,192.0.2.7",
    ]


def test_without_tags_nothing_is_said_of_booting() -> None:
    written = of(ONE, is_tagged=False)
    assert written.options() is None
    assert written.hosts(is_tagged=False).endswith("\n52:54:00:aa:00:01,192.0.2.5,www.example.com\n")


def test_what_is_written_is_read_back() -> None:
    written = replace(of(ONE, is_tagged=True), ports=(Port(MAC, "a.test", "b.test"), Port(OTHER, "c.test", "d.test")))
    found = ports(written.hosts(is_tagged=True))
    assert found is not None
    assert (found[0].macs, found[0].ip, found[1]) == ((MAC, OTHER), ONE.ip, written.ports)


@pytest.mark.parametrize(
    "content",
    ["", "52:54:00:aa:00:01,192.0.2.5,web\n", "# another's\n52:54:00:aa:00:01,192.0.2.5,web\n",
     "# Muster writes and removes this file.\n", "# Muster writes and removes this file.\na,192.0.2.1\nb,192.0.2.2\n"],
)  # fmt: skip
def test_what_others_wrote_is_none_of_ours(content: str) -> None:
    assert ports(content) is None


@pytest.mark.parametrize(
    "filename",
    ["a,b", "a#b", 'a"b', "a\\b", "a\nb", "a\0b", " a", "a ", "", "x" * 128, "ä", "a\r", "a\u2028b", "a\x7f"],
)
def test_a_file_that_dnsmasq_would_read_as_something_else_is_refused(filename: str) -> None:
    with pytest.raises(Rejected, match="dnsmasq cannot tell a machine to boot"):
        of(with_(filename=filename), is_tagged=True)


@pytest.mark.parametrize("name", ["12", "12h", "3600", "infinite", "IGNORE", "192.0.2.9", "deprecated"])
def test_a_name_that_dnsmasq_would_read_as_something_else_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="for the name of a host"):
        of(with_(hostname=name), is_tagged=True)


@pytest.mark.parametrize("name", ["a,b", "a b", "a\nb", "-a", "a_b", "a#b"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    for odd in (replace(ONE, name=name), with_(hostname=name)):
        with pytest.raises(Rejected):
            of(odd, is_tagged=True)


def test_a_next_server_that_is_no_address_is_no_text_in_a_file() -> None:
    with pytest.raises(Rejected, match="by its name"):
        of(with_(nextServer="192.0.2.7\ndhcp-script=/x"), is_tagged=True)


def test_infiniband_is_refused() -> None:
    with pytest.raises(Rejected, match="6 octets"):
        of(replace(ONE, mac=MACAddress.parse(":".join(f"{n:02x}" for n in range(20)))), is_tagged=True)


def test_a_bare_reservation_has_no_options() -> None:
    bare = replace(ONE, options={})
    assert of(bare, is_tagged=True) == Written(ONE.ip, (Port(MAC, ONE.name, ONE.name),))
    assert of(bare, is_tagged=True).options() is None
