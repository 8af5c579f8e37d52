from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

import pytest

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.libvirt.network import defined, hardware, host, leases
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.names import MACAddress

MAC = MACAddress.parse("52:54:00:aa:00:01")
SUBNET = Subnet(IPv4Network("192.0.2.0/24"))
DEFINITION = """
<network>
  <name>n</name><domain name='example.com'/><mtu size='9000'/>
  <ip address='192.0.2.1' prefix='24'>
    <dhcp>
      <range start='192.0.2.10' end='192.0.2.99'/>
      <host mac='52:54:00:aa:00:01' name='web' ip='192.0.2.5'/>
      <host mac='52:54:00:aa:00:02' ip='192.0.2.6'/>
      <host name='by-name' ip='192.0.2.7'/>
      <host mac='52:54:00:aa:00:03' ip='198.51.100.9'/>
    </dhcp>
  </ip>
  <ip address='198.51.100.1' netmask='255.255.255.0'/>
  <ip family='ipv6' address='2001:db8::1' prefix='64'><dhcp><range start='2001:db8::2' end='2001:db8::3'/></dhcp></ip>
</network>
"""


def test_a_definition_is_read() -> None:
    found = defined(DEFINITION)
    assert [(str(s.network), dict(s.options)) for s in found.subnets] == [
        ("192.0.2.0/24", {
            "routers": ["192.0.2.1"], "domain_name": "example.com", "interface_mtu": 9000,
            "range": ["192.0.2.10", "192.0.2.99"],
        }),
    ]  # fmt: skip
    assert [(r.name, str(r.ip)) for r in found.reservations] == [
        ("web", "192.0.2.5"),
        ("52-54-00-aa-00-02", "192.0.2.6"),
    ]
    assert {str(ip) for ip in found.fixed} == {"192.0.2.7", "198.51.100.9"}
    assert {str(ip) for ip in found.own} == {"192.0.2.1", "198.51.100.1"}


@pytest.mark.parametrize(
    "text", ["", "what", "<network>", '<!DOCTYPE n [<!ENTITY a "b">]><network>&a;</network>', "<network>\0</network>"]
)
def test_what_is_no_definition_is_a_named_failure(text: str) -> None:
    with pytest.raises(Unavailable, match="no definition"):
        defined(text)


def test_leases_are_read_from_virshs_table() -> None:
    table = (
        " 2026-11-30 09:30:04   52:54:00:dd:00:01   ipv4       192.0.2.10/24   guest   01:52:54\n"
        " 1970-01-01 00:00:00   52:54:00:dd:00:02   ipv4       192.0.2.11/24   -       -\n"
        " 2026-11-30 08:00:00   52:54:00:dd:00:03   ipv4       192.0.2.12/24   -       -\n"
        " 2026-11-30 09:30:04   52:54:00:dd:00:04   ipv6       2001:db8::9/64  -       -\n"
        " 2026-13-30 09:30:04   52:54:00:dd:00:05   ipv4       192.0.2.13/24   -       -\n"
        " 2026-11-30 09:30:04   52:54:00:dd:00:06   ipv4       203.0.113.1/24  -       -\n"
        "what\n"
    )
    found = leases(table, [SUBNET], datetime(2026, 11, 30, 9, 0, tzinfo=UTC))
    assert [(str(one.ip), dict(one.options), f"{one.ends:%Y-%m-%d %H:%M}") for one in found] == [
        ("192.0.2.10", {"client_hostname": "guest"}, "2026-11-30 09:30"),
        ("192.0.2.11", {}, "2038-01-19 03:14"),
    ]


def test_an_element_holds_what_was_checked() -> None:
    one = Reservation("web.example.com", IPv4Address("192.0.2.5"), MAC, SUBNET)
    assert host(one) == '<host mac="52:54:00:aa:00:01" name="web.example.com" ip="192.0.2.5" />'
    for name in ("a'b", 'a"/><x y="', "a\nb", "a,b", "<a>"):
        with pytest.raises(Rejected):
            host(Reservation(name, one.ip, MAC, SUBNET))
    with pytest.raises(Rejected, match="6 octets"):
        hardware(MACAddress.parse(":".join(f"{n:02x}" for n in range(20))))
