"""Options and host declarations of ISC's files by Foreman's names.

Source: docs/facts/smart-proxy-protocol.md §8.6; recorded in ``tests/wire/recorded/smart-proxy/dhcp.jsonl``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from muster.features.dhcp import asked
from muster.features.dhcp.contract import Options, ordered
from muster.features.dhcp.isc.statements import Statement, unquoted
from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress

SUNW: Mapping[str, str] = {
    "root_server_ip": "root-server-ip-address",
    "root_server_hostname": "root-server-hostname",
    "root_path_name": "root-path-name",
    "install_server_ip": "install-server-ip-address",
    "install_server_name": "install-server-hostname",
    "install_path": "install-path",
    "sysid_server_path": "sysid-config-file-server",
    "jumpstart_server_path": "JumpStart-server",
}
"""Options of Sun's machines: ISC's names in its space ``SUNW``, by Foreman's."""
_TEXTS = {
    "filename": "filename",
    "server.filename": "filename",
    "host-name": "hostname",
    **{f"SUNW.{theirs}": ours for ours, theirs in SUNW.items()},
}
_LISTS = {"routers": "routers", "domain-name-servers": "domain_name_servers"}
_NEXT_SERVERS = frozenset({"next-server", "server.next-server"})
_OF_A_SUBNET = ("routers", "domain_name", "domain_name_servers", "ntp_servers", "interface_mtu")
_OF_A_HOST = frozenset({"hardware", "fixed-address", "dynamic", "deleted"})
# Those that a record has itself: an option of that name would stand in its place.
_RECORDS_OWN = frozenset({"name", "ip", "mac", "subnet", "type", "deleteable", "starts", "ends", "state"})
_HEX_ADDRESS = re.compile(r"[0-9a-f]{1,2}(?::[0-9a-f]{1,2}){3}\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Host:
    """A host declaration.

    Attributes:
        mac: None: it has none that we know, as a client identifier has.
        ips: its fixed addresses; names of hosts are left out.
        is_dynamic: whether it was made over OMAPI, so that it can be removed so.
        is_deleted: it says that the host of this name is no more.
    """

    name: str
    mac: MACAddress | None = None
    ips: Sequence[IPv4Address] = ()
    options: Options = field(default_factory=dict)
    is_dynamic: bool = False
    is_deleted: bool = False


def host(declared: Statement) -> Host | None:
    """Return what a statement declares; None: no host."""
    if len(declared.words) != 2 or declared.words[0] != "host" or declared.block is None:
        return None
    found: dict[str, Any] = {}
    mac: MACAddress | None = None
    ips: list[IPv4Address] = []
    words = [one.words for one in declared.block if one.words and one.block is None]
    for first, *others in words:
        if first == "hardware" and len(others) == 2:
            mac = hardware_address(others[1])
            found["hardware_type"] = others[0]
        elif first == "fixed-address":
            ips = [ip for word in others if (ip := _address(word)) is not None]
    found |= options(declared.block)
    alone = {w[0] for w in words if len(w) == 1}
    name = unquoted(declared.words[1])
    found.setdefault("hostname", name)
    return Host(name, mac, tuple(ips), ordered(found), "dynamic" in alone, "deleted" in alone)


def hardware_address(word: str) -> MACAddress | None:
    """Return a hardware address; octets may have one digit. None: it is none that Foreman knows."""
    try:
        return asked.mac(word)
    except Rejected:
        return None


def options(block: Sequence[Statement]) -> dict[str, Any]:
    """Return the options that are set in a block itself, by Foreman's names, in the file's order; the last wins."""
    found: dict[str, Any] = {}
    for one in block:
        if one.block is None and (told := _option(one.words)) is not None and told[0] not in _RECORDS_OWN:
            found[told[0]] = told[1]
    return found


def is_of_host(words: Sequence[str]) -> bool:
    """Whether :func:`host` reads a statement of a host."""
    return words[0] in _OF_A_HOST or _option(words) is not None


def is_of_subnet(words: Sequence[str]) -> bool:
    """Whether :func:`of_subnet` reads a statement of a subnet."""
    return (told := _option(words)) is not None and told[0] in _OF_A_SUBNET


def of_subnet(block: Sequence[Statement]) -> dict[str, Any]:
    """Return those that Foreman reads of a subnet, in its order, without the range."""
    found = options(block)
    return {name: found[name] for name in _OF_A_SUBNET if name in found}


def _option(words: Sequence[str]) -> tuple[str, Any] | None:
    if len(words) > 2 and words[0] in ("option", "supersede"):
        name, *values = words[1:]
        # Definitions: ``option architecture code 93 = unsigned integer 16``, ``option space SUNW``.
        if values[0] == "code" or (words[0] == "option" and name == "space"):
            return None
    elif len(words) > 1 and words[0] in ("filename", "next-server", "vendor-option-space"):
        name, *values = words
    else:
        return None
    if values[0] == "=":
        values = values[1:]
    return _named(name, _listed(values)) if values else None


def _named(name: str, values: list[list[str]]) -> tuple[str, Any] | None:
    if name in _LISTS:
        return _LISTS[name], [word for value in values for word in value]
    text = " ".join(values[0])
    if name in _TEXTS:
        return _TEXTS[name], text
    if name in _NEXT_SERVERS:
        return "nextServer", _dotted(text)
    if name == "vendor-option-space" and text == "SUNW":
        return "vendor", "sun"
    if name == "interface-mtu" and text.isascii() and text.isdigit() and len(text) <= 9:
        return "interface_mtu", int(text)
    return name.replace("-", "_").replace(".", "_"), values


def _listed(words: Sequence[str]) -> list[list[str]]:
    """Return what stands between commas, each as a list of words."""
    listed: list[list[str]] = [[]]
    for word in words:
        if word == ",":
            listed.append([])
        else:
            listed[-1].append(unquoted(word))
    return listed


def _dotted(text: str) -> str:
    if not _HEX_ADDRESS.match(text):
        return text
    return ".".join(str(int(octet, 16)) for octet in text.split(":"))


def _address(word: str) -> IPv4Address | None:
    try:
        return IPv4Address(word)
    except ValueError:
        return None
