from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.proxy_dhcp import Loaders, ProxyDHCP
from muster.kernel.names import MACAddress
from muster.netboot.proxydhcp import packet as dhcp
from muster.netboot.proxydhcp.answers import (
    BOOT_PORT,
    DHCP_PORT,
    Boot,
    BootServer,
    Client,
    Instructions,
    Silence,
    asked,
    chosen,
    decided,
    reply,
    way_back,
)
from muster.netboot.proxydhcp.packet import Packet, parsed, suboptions, written

HARDWARE = bytes.fromhex("525400aabb01")
MAC = MACAddress.parse("52:54:00:aa:bb:01")
HERE = IPv4Address("192.0.2.11")
SERVERS = [BootServer(f"m{n}", IPv4Address(f"192.0.2.{n}")) for n in (11, 12, 13)]
URL = "http://proxy.example.com:8000/unattended/iPXE?mac={mac}"
TOLD = Instructions(ProxyDHCP(), URL, "http://proxy.example.com:8000/httpboot")


def question(arch: int | None = 0, *, kind: int = dhcp.DISCOVER, vendor: str = "PXEClient", **more: Any) -> Packet:
    options = {53: bytes([kind]), 60: f"{vendor}:Arch:00000:UNDI:003016".encode(), **more.pop("options", {})}
    if arch is not None:
        options[93] = arch.to_bytes(2, "big")
    return Packet(dhcp.REQUEST, 7, HARDWARE, options, **more)


def client(**more: Any) -> Client:
    return replace(Client("tftp", "efi64", is_ipxe=False, mac=MAC, identity=HARDWARE), **more)


def told(**settings: Any) -> Instructions:
    return Instructions(ProxyDHCP(**settings), URL, TOLD.http_root)


@pytest.mark.parametrize(
    ("arch", "word"),
    [(0, "bios"), (6, "efi32"), (7, "efi64"), (9, "efi64"), (10, "arm32"), (11, "arm64"), (15, "efi32"), (16, "efi64"),
     (18, "arm32"), (19, "arm64"), (20, "bios")],
)  # fmt: skip
def test_an_architecture_has_its_word(arch: int, word: str) -> None:
    assert asked(question(arch), DHCP_PORT) == Client("tftp", word, False, MAC, HARDWARE)


def test_where_no_option_says_the_architecture_the_class_does() -> None:
    said = question(None, options={60: b"PXEClient:Arch:00007:UNDI:003016"})
    assert asked(said, DHCP_PORT) == client()


@pytest.mark.parametrize(
    "vendor", [b"PXEClient", b"PXEClient:Arch:7", b"PXEClient:Arch:000077", b"PXEClient:Arch:99999"]
)
def test_a_machine_of_no_known_architecture_is_told_nothing(vendor: bytes) -> None:
    assert asked(question(None, options={60: vendor}), DHCP_PORT) == "architecture"
    assert asked(question(4711), DHCP_PORT) == "architecture"


def test_of_several_architectures_the_first_that_is_known_counts() -> None:
    assert asked(question(None, options={93: b"\xff\xff\0\x0b\0\0"}), DHCP_PORT) == client(word="arm64")


@pytest.mark.parametrize("vendor", ["MSFT 5.0", "", "pxeclient", " PXEClient"])
def test_who_does_not_boot_from_the_network_is_told_nothing(vendor: str) -> None:
    assert asked(question(0, vendor=vendor), DHCP_PORT) == "vendor"


@pytest.mark.parametrize(
    ("packet", "port"),
    [
        (question(kind=dhcp.ASKED), DHCP_PORT),
        (question(kind=dhcp.INFORM), DHCP_PORT),
        (question(kind=dhcp.DISCOVER), BOOT_PORT),
        (replace(question(), operation=dhcp.REPLY), DHCP_PORT),
        (question(options={53: b"\x01\x01"}), DHCP_PORT),
        (question(hops=17), DHCP_PORT),
        (question(giaddr=IPv4Address("255.255.255.255")), DHCP_PORT),
        (question(giaddr=IPv4Address("224.0.0.1")), DHCP_PORT),
        (question(giaddr=IPv4Address("127.0.0.1")), DHCP_PORT),
    ],
)
def test_what_is_no_question_of_this_port_is_not_answered(packet: Packet, port: int) -> None:
    assert asked(packet, port) == "message"


@pytest.mark.parametrize("kind", [dhcp.ASKED, dhcp.INFORM])
def test_one_server_is_asked_on_its_own_port(kind: int) -> None:
    assert asked(question(7, kind=kind), BOOT_PORT) == client()


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("bios", "pxelinux.0"),
        ("efi32", "grub2/grubia32.efi"),
        ("efi64", "grub2/grubx64.efi"),
        ("arm64", "grub2/grubaa64.efi"),
    ],
)
def test_each_architecture_loads_its_loader_from_a_member(word: str, file: str) -> None:
    found = decided(client(word=word), TOLD, SERVERS[:1], has_own=False)
    assert found == Boot(b"PXEClient", file, SERVERS[0].address)


def test_a_host_s_own_loader_goes_before() -> None:
    found = decided(client(), TOLD, SERVERS[:1], has_own=True)
    assert found == Boot(b"PXEClient", "host-config/52-54-00-aa-bb-01/grub2/boot.efi", SERVERS[0].address)
    found = decided(client(kind="http"), told(secure_boot=True), (), has_own=True)
    url = "http://proxy.example.com:8000/httpboot/host-config/52-54-00-aa-bb-01/grub2/boot-sb.efi"
    assert found == Boot(b"HTTPClient", url, None)


@pytest.mark.parametrize(
    ("one", "settings"),
    [(client(word="bios"), {}), (client(mac=None), {}), (client(), {"own_loaders": False})],
)
def test_who_has_no_own_loader_is_told_that_of_its_architecture(one: Client, settings: dict[str, Any]) -> None:
    instructions = told(**settings)
    assert instructions.own_file(one) is None
    found = decided(one, instructions, SERVERS[:1], has_own=True)
    assert isinstance(found, Boot)
    assert found.file == instructions.settings.loaders.of(one.word)


def test_firmware_that_loads_by_http_is_told_a_url_behind_the_balancer() -> None:
    found = decided(client(kind="http", word="arm64"), TOLD, (), has_own=False)
    assert found == Boot(b"HTTPClient", "http://proxy.example.com:8000/httpboot/grub2/grubaa64.efi", None)


@pytest.mark.parametrize("word", Loaders.model_fields)
@pytest.mark.parametrize("kind", ["tftp", "http"])
@pytest.mark.parametrize("has_own", [True, False])
def test_ipxe_is_never_told_a_loader(word: str, kind: Any, *, has_own: bool) -> None:
    loaders = dict.fromkeys(Loaders.model_fields, "ipxe.efi")
    found = decided(client(kind=kind, word=word, is_ipxe=True), told(loaders=loaders), SERVERS, has_own=has_own)
    assert found == Boot(b"PXEClient", "http://proxy.example.com:8000/unattended/iPXE?mac=52:54:00:aa:bb:01", None)


def test_ipxe_is_told_what_others_are_where_no_url_is_set() -> None:
    instructions = Instructions(ProxyDHCP(ipxe_url=None), None, None)
    found = decided(client(is_ipxe=True), instructions, SERVERS[:1], has_own=False)
    assert found == Boot(b"PXEClient", "grub2/grubx64.efi", SERVERS[0].address)


@pytest.mark.parametrize(
    ("one", "instructions", "servers", "why"),
    [
        (client(word="arm32"), TOLD, SERVERS, "loader"),
        (client(), TOLD, [], "server"),
        (client(kind="http"), replace(TOLD, http_root=None), SERVERS, "http"),
        (client(is_ipxe=True, mac=None), TOLD, SERVERS, "address"),
    ],
)
def test_who_cannot_be_told_is_told_nothing(
    one: Client, instructions: Instructions, servers: list[BootServer], why: Silence
) -> None:
    assert decided(one, instructions, servers, has_own=False) == why


@given(st.binary(max_size=16), st.permutations(SERVERS))
def test_a_machine_keeps_its_server_while_that_may_serve(identity: bytes, servers: list[BootServer]) -> None:
    first = chosen(identity, servers)
    others = [s for s in servers if s != first]
    assert chosen(identity, [first, others[0]]) == first
    assert chosen(identity, others) in others


def test_each_server_has_its_share_of_machines() -> None:
    shares = Counter(chosen(n.to_bytes(6, "big"), SERVERS).member for n in range(900))
    assert min(shares.values()) > 240


def test_an_offer_says_all_that_firmware_reads() -> None:
    said = question(7, flags=0x8000, options={97: b"\0" * 17, 82: b"\x01\x01a"}, giaddr=IPv4Address("192.0.2.1"))
    found = parsed(written(reply(said, Boot(b"PXEClient", "a/b.efi", SERVERS[1].address), HERE)))
    assert (found.operation, found.transaction, found.hardware_address) == (dhcp.REPLY, 7, HARDWARE)
    assert (found.flags, found.giaddr, found.siaddr) == (0x8000, said.giaddr, SERVERS[1].address)
    assert (found.yiaddr, found.ciaddr) == (IPv4Address(0), IPv4Address(0))
    assert found.file == found.options[67] == b"a/b.efi"
    assert found.options[53] == bytes([dhcp.OFFER])
    assert found.options[54] == HERE.packed
    assert found.options[60] == b"PXEClient"
    assert found.options[66] == b"192.0.2.12"
    assert (found.options[97], found.options[82]) == (b"\0" * 17, b"\x01\x01a")
    assert suboptions(found.options[43]) == {6: b"\x08"}


def test_who_asks_one_server_has_an_acknowledgement_and_its_address_back() -> None:
    said = question(7, kind=dhcp.ASKED, ciaddr=IPv4Address("192.0.2.100"))
    found = reply(said, Boot(b"PXEClient", "x", HERE), HERE)
    assert (found.type, found.ciaddr) == (dhcp.ACK, said.ciaddr)


def test_a_url_needs_no_server_and_may_be_too_long_for_the_field() -> None:
    url = "http://proxy.example.com/" + "x" * 200
    found = parsed(written(reply(question(16), Boot(b"HTTPClient", url, None), HERE)))
    assert (found.file, found.options[67]) == (b"", url.encode())
    assert found.siaddr == HERE
    assert not {43, 66} & found.options.keys()


@pytest.mark.parametrize(
    ("packet", "port", "source", "to"),
    [
        (question(), DHCP_PORT, ("0.0.0.0", 68), ("255.255.255.255", 68)),
        (question(ciaddr=IPv4Address("198.51.100.1")), DHCP_PORT, ("198.51.100.1", 68), ("255.255.255.255", 68)),
        (question(giaddr=IPv4Address("192.0.2.1")), DHCP_PORT, ("192.0.2.254", 67), ("192.0.2.1", 67)),
        (question(kind=3), BOOT_PORT, ("192.0.2.100", 4011), ("192.0.2.100", 4011)),
        (question(kind=3), BOOT_PORT, ("0.0.0.0", 68), ("255.255.255.255", 68)),
    ],
)
def test_an_answer_goes_to_the_relay_to_everybody_or_to_who_asked(
    packet: Packet, port: int, source: tuple[str, int], to: tuple[str, int]
) -> None:
    assert way_back(packet, port, source) == (IPv4Address(to[0]), to[1])
