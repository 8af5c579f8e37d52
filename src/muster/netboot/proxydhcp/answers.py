"""What a machine that boots from the network is told: pure, from its question to the answer.

Whoever is told nothing is left to other servers, or tries again: there is no refusal in this protocol.

Source: RFC 4578, PXE 2.1 §2.2 (ProxyDHCP), UEFI 2.10 §24.7.2 (HTTP boot), docs/facts/proxy-dhcp.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Literal

from muster.cluster.proxy_dhcp import ProxyDHCP
from muster.kernel.names import MACAddress
from muster.netboot.contract import BootPath
from muster.netboot.proxydhcp import packet as dhcp
from muster.netboot.proxydhcp.packet import Packet

DHCP_PORT, CLIENT_PORT, BOOT_PORT = 67, 68, 4011
"""Where is asked who has boot information, where machines listen, and where one server is asked for it."""

EVERYBODY = IPv4Address("255.255.255.255")
"""Whoever hears on a network."""
_NOWHERE = IPv4Address(0)
_TFTP, _HTTP = b"PXEClient", b"HTTPClient"
_IPXE = b"iPXE"
# IANA's processor architecture types. What RFC 4578 calls EFI BC (7) and x86-64 (9) is x86-64 both: its errata tell.
_WORDS: Mapping[int, str] = {
    0: "bios",
    6: "efi32",
    7: "efi64",
    9: "efi64",
    10: "arm32",
    11: "arm64",
    15: "efi32",
    16: "efi64",
    18: "arm32",
    19: "arm64",
    20: "bios",
}
# As firmware writes it: PXEClient:Arch:00007:UNDI:003016.
_ARCH_IN_CLASS = re.compile(rb"(?:PXE|HTTP)Client:Arch:([0-9]{5})(?::|\Z)")
_MOST_HOPS = 16
# Neither prompt nor menu nor search for boot servers: the file that this answer names (PXE 2.1, tag 6, bit 3).
_THIS_FILE = 8

Silence = Literal["message", "vendor", "architecture", "loader", "address", "server", "http"]
"""Why a machine is told nothing: it asks something else; it does not boot from the network; of no known architecture; none
of whose loaders is set; it does not say its hardware address, which the URL needs; no member may serve it; nobody serves
HTTP."""


@dataclass(frozen=True, slots=True)
class Client:
    """A machine that asks.

    Attributes:
        kind: how it loads its loader.
        word: of its architecture, as the settings have it.
        identity: what stays the same of it from boot to boot, if anything does.
    """

    kind: Literal["tftp", "http"]
    word: str
    is_ipxe: bool
    mac: MACAddress | None
    identity: bytes

    @property
    def own_loader(self) -> str | None:
        """The directory below which Foreman has this host's loaders; None: such machines have none there."""
        if self.mac is None or self.word == "bios":
            return None
        return f"host-config/{self.mac.replace(':', '-')}/grub2"


@dataclass(frozen=True, slots=True)
class Instructions:
    """What is told, by the cluster file.

    Attributes:
        ipxe_url: ``{mac}`` stands in it; None: iPXE is told what others are.
        http_root: the URL above the tree of boot files, without a slash behind it; None: nobody serves it.
    """

    settings: ProxyDHCP
    ipxe_url: str | None
    http_root: str | None

    def own_file(self, client: Client) -> BootPath | None:
        """Return where this host's own loader would be."""
        if not self.settings.own_loaders or client.own_loader is None:
            return None
        name = "boot-sb.efi" if self.settings.secure_boot else "boot.efi"
        return BootPath.parse(f"{client.own_loader}/{name}")


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine is told.

    Attributes:
        file: a path there, or a URL.
        server: where the file comes from by TFTP; None: the file is a URL.
    """

    vendor: bytes
    file: str
    server: IPv4Address | None


@dataclass(frozen=True, slots=True)
class BootServer:
    """A member that serves boot files."""

    member: str
    address: IPv4Address


def asked(packet: Packet, port: int) -> Client | Silence:
    """Return who asks, or why that is no question of ours: ``message``, ``vendor`` or ``architecture``."""
    expected = (dhcp.DISCOVER,) if port == DHCP_PORT else (dhcp.ASKED, dhcp.INFORM)
    if packet.operation != dhcp.REQUEST or packet.type not in expected or packet.hops > _MOST_HOPS:
        return "message"
    if packet.giaddr.is_multicast or packet.giaddr.is_loopback or packet.giaddr.is_reserved:
        return "message"
    vendor = packet.options.get(dhcp.VENDOR_CLASS, b"")
    if not vendor.startswith((_TFTP, _HTTP)):
        return "vendor"
    numbers = dhcp.architectures(packet.options.get(dhcp.ARCHITECTURE, b""))
    if not numbers and (found := _ARCH_IN_CLASS.match(vendor)):
        numbers = (int(found[1]),)
    word = next((_WORDS[n] for n in numbers if n in _WORDS), None)
    if word is None:
        return "architecture"
    classes = dhcp.user_classes(packet.options.get(dhcp.USER_CLASS, b""))
    identity = packet.hardware_address or packet.options.get(dhcp.MACHINE_IDENTIFIER, b"")
    kind: Literal["tftp", "http"] = "http" if vendor.startswith(_HTTP) else "tftp"
    return Client(kind, word, _IPXE in classes, packet.mac, identity)


def decided(client: Client, told: Instructions, servers: Sequence[BootServer], *, has_own: bool) -> Boot | Silence:
    """Return what a machine is told, or why it is told nothing.

    ``servers`` may serve it: one of them does, the same for the same machine while it may. ``has_own``: the tree has what
    ``told.own_file`` names.
    """
    if client.is_ipxe and told.ipxe_url is not None:
        # A script, whatever loaded iPXE: never a loader, which might be iPXE again.
        if client.mac is None and "{mac}" in told.ipxe_url:
            return "address"
        return Boot(_TFTP, told.ipxe_url.replace("{mac}", client.mac or ""), None)
    own = told.own_file(client) if has_own else None
    loader = str(own) if own is not None else told.settings.loaders.of(client.word)
    if loader is None:
        return "loader"
    if client.kind == "http":
        return Boot(_HTTP, f"{told.http_root}/{loader}", None) if told.http_root is not None else "http"
    if not servers:
        return "server"
    return Boot(_TFTP, loader, chosen(client.identity, servers).address)


def chosen(identity: bytes, servers: Sequence[BootServer]) -> BootServer:
    """Return who serves a machine, each its share of them; when one goes, only its own machines change."""
    # Highest random weight.
    return max(servers, key=lambda s: (hashlib.sha256(s.member.encode() + b"\0" + identity).digest(), s.member))


def reply(question: Packet, boot: Boot, server: IPv4Address) -> Packet:
    """Return the answer to a question; ``server`` is our own address, as the machine's network reaches it."""
    file = boot.file.encode("ascii")
    options = {
        dhcp.MESSAGE_TYPE: bytes((dhcp.OFFER if question.type == dhcp.DISCOVER else dhcp.ACK,)),
        dhcp.SERVER_IDENTIFIER: server.packed,
        dhcp.VENDOR_CLASS: boot.vendor,
        dhcp.BOOT_FILE_NAME: file,
    }
    if boot.server is not None:
        options[dhcp.TFTP_SERVER_NAME] = str(boot.server).encode()
    if boot.vendor == _TFTP:
        options[dhcp.VENDOR_OPTIONS] = dhcp.encapsulated({dhcp.PXE_DISCOVERY_CONTROL: bytes((_THIS_FILE,))})
    for code in (dhcp.MACHINE_IDENTIFIER, dhcp.RELAY_INFORMATION):
        if code in question.options:
            options[code] = question.options[code]
    # What does not fit the field stands in its option alone, where UEFI and iPXE look.
    return replace(
        question,
        operation=dhcp.REPLY,
        hops=0,
        seconds=0,
        ciaddr=question.ciaddr if question.type != dhcp.DISCOVER else _NOWHERE,
        yiaddr=_NOWHERE,
        # iPXE takes no answer without a next server, though a URL needs none: ours, then.
        siaddr=boot.server or server,
        server_name=b"",
        file=file if len(file) < 128 else b"",
        options=options,
    )


def way_back(question: Packet, port: int, source: tuple[str, int]) -> tuple[IPv4Address, int]:
    """Return where the answer goes: the relay, everybody on the machine's network, or whoever asked.

    A machine that looks for an address has none that it could be reached at, and is not asked to have one: its ``ciaddr``
    would be an address of somebody else's choice.

    Source: RFC 2131 §4.1, PXE 2.1 §2.2.2.
    """
    if question.giaddr != _NOWHERE:
        return question.giaddr, DHCP_PORT
    address = IPv4Address(source[0])
    if port == DHCP_PORT or address == _NOWHERE:
        return EVERYBODY, CLIENT_PORT
    return address, source[1]
