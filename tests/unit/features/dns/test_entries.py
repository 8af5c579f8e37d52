from __future__ import annotations

from ipaddress import ip_address

import pytest

from muster.features.dns.contract import RecordType
from muster.features.dns.entries import Entry, address, defined, element
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.names import FQDN

DEFINITION = """
<network>
  <name>n</name>
  <dns>
    <txt name='web.example.com' value='no entry'/>
    <host ip='192.0.2.5'><hostname>Web.example.com</hostname><hostname>www.example.com</hostname></host>
    <host ip='2001:DB8:0::5'><hostname>web.example.com.</hostname></host>
    <host ip='192.0.2.6'/>
    <host ip='nowhere'><hostname>lost.example.com</hostname></host>
    <host><hostname>lost.example.com</hostname></host>
  </dns>
  <ip address='192.0.2.1' prefix='24'><dhcp><host mac='52:54:00:aa:00:01' name='web' ip='192.0.2.7'/></dhcp></ip>
</network>
"""


def test_a_definition_is_read() -> None:
    found = defined(DEFINITION)
    four, six = ip_address("192.0.2.5"), ip_address("2001:db8::5")
    assert found.are_told
    assert [(one.ip, [str(n) for n in one.names]) for one in found.all] == [
        (four, ["Web.example.com", "www.example.com"]),
        (six, ["web.example.com"]),
    ]
    assert [one.ip for one in found.of("WEB.example.com", RecordType.A)] == [four]
    assert [one.ip for one in found.of("web.example.com", RecordType.AAAA)] == [six]
    assert [one.ip for one in found.of("5.2.0.192.in-addr.arpa", RecordType.PTR)] == [four]
    assert found.at(ip_address("192.0.2.7")) is None


def test_a_reverse_name_points_to_the_first_name_alone() -> None:
    one = Entry(ip_address("192.0.2.5"), (FQDN("web.example.com"), FQDN("www.example.com")))
    assert one.gives("5.2.0.192.in-addr.arpa", RecordType.PTR) == "web.example.com"
    assert one.gives("www.example.com", RecordType.A) == one.ip
    assert one.gives("www.example.com", RecordType.AAAA) is None
    assert one.gives("www.example.com", RecordType.CNAME) is None


@pytest.mark.parametrize(
    ("dns", "are_told"), [("", True), ("<dns/>", True), ("<dns enable='yes'/>", True), ("<dns enable='no'/>", False)]
)
def test_whether_anybody_is_told_stands_there(dns: str, are_told: bool) -> None:
    assert defined(f"<network>{dns}</network>").are_told is are_told


@pytest.mark.parametrize("text", ["", "what", "<network>", '<!DOCTYPE n [<!ENTITY a "b">]><network>&a;</network>'])
def test_what_is_no_definition_is_a_named_failure(text: str) -> None:
    with pytest.raises(Unavailable, match="no definition"):
        defined(text)


def test_an_element_holds_what_was_checked() -> None:
    ip = ip_address("192.0.2.5")
    assert element(ip, FQDN("Web.example.com")) == '<host ip="192.0.2.5"><hostname>web.example.com</hostname></host>'
    assert element(ip_address("2001:DB8:0::5")) == '<host ip="2001:db8::5" />'
    for name in ("a'b", "a</hostname>", "a\nb", "a,b", "<a>", ""):
        with pytest.raises(Rejected):
            element(ip, FQDN(name))


@pytest.mark.parametrize("text", ["192.0.2.5", "0.0.0.0", "2001:db8::5", "::"])
def test_the_address_of_a_reverse_name(text: str) -> None:
    ip = ip_address(text)
    assert address(FQDN(ip.reverse_pointer.upper())) == ip


@pytest.mark.parametrize(
    "name",
    [
        "2.0.192.in-addr.arpa",
        "9.5.2.0.192.in-addr.arpa",
        "05.2.0.192.in-addr.arpa",
        "256.2.0.192.in-addr.arpa",
        "8.b.d.0.1.0.0.2.ip6.arpa",
        "0x.2.0.192.in-addr.arpa",
        f"{'0.' * 33}ip6.arpa",
        f"00.{'0.' * 30}ip6.arpa",
        f"g.{'0.' * 31}ip6.arpa",
        "in-addr.arpa",
        "ip6.arpa",
        "a.example.com",
        "arpa",
    ],
)
def test_what_is_the_reverse_name_of_no_address_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="reverse name of no address"):
        address(FQDN(name))
