"""What a reservation's options are in dhcpd's own words.

dhcpd parses them when a host is made. A first one that it does not understand it refuses, with the host; one further on that
ends where it should not it drops and says nothing. So each is written in the form that always parses: addresses as octets
(``0a:01:02:03``; ``next-server = 10.1.2.3;`` would be dropped), texts between quotes, a semicolon after each.

Texts are printable ASCII without quotes and backslashes: dhcpd does not bring all others through its own leases file.

What is not told: options of other vendors than Sun, and whatever else was given; as the Ruby proxy does it. Those of Sun, of
ZTP and option 143 and 150 are dhcpd's only where dhcpd.conf defines them (``option space SUNW;``, ``option FM_ZTP.…``,
``option option-150 code 150 = …``); else it refuses the host.

Source: docs/facts/smart-proxy-protocol.md §8.6; dhcp-eval(5), dhcp-options(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from muster.features.dhcp.contract import Options
from muster.features.dhcp.isc.options import SUNW
from muster.kernel.errors import Rejected
from muster.kernel.names import shown

Resolve = Callable[[str], IPv4Address | None]

# Printable ASCII without quote and backslash; the length of one DHCP option at most.
_TEXT = re.compile(r"[ !#-\[\]-~]{1,255}\Z")
_SUN = ("sun", "solar", "sparc")
_ADDRESSES = frozenset({"root_server_ip", "install_server_ip"})


def statements(options: Options, resolve: Resolve) -> str:
    """Return the statements of a host, one after another; empty when there are none.

    Args:
        options: a reservation's: ``hostname``, ``filename``, ``nextServer``, ``<VENDOR>key``, ``ztp_vendor`` and
            ``ztp_firmware``.
        resolve: the IPv4 address of a next server that was given by its name, None when it has none. What dhcpd would look
            up itself it drops when it finds nothing in that moment.

    Raises:
        Rejected: a value is no text that dhcpd keeps, or a next server has no address.
    """
    return " ".join(f"{one};" for one in _all(options, resolve))


def _all(options: Options, resolve: Resolve) -> Iterator[str]:
    filename, server = options.get("filename"), options.get("nextServer")
    if filename:
        yield f"filename = {_quoted(filename, 'filename')}"
    octets = _next_server(server, resolve) if server else None
    if octets:
        yield f"next-server = {octets}"
    if hostname := options.get("hostname"):
        yield f"option host-name = {_quoted(hostname, 'hostname')}"
    yield from _of_sun(options)
    start = str(filename or "").lower()
    if start.startswith("ztp.cfg"):
        yield from _ztp(options, octets)
    elif start.startswith("poap.cfg"):
        if server:
            yield f"option tftp-server-name = {_quoted(server, 'next server')}"
        yield f"option bootfile-name = {_quoted(filename, 'filename')}"


def _of_sun(options: Options) -> Iterator[str]:
    found = [(name, value) for key, value in options.items() if (name := _suns(key)) in SUNW and value]
    for key, value in found:
        written = _octets(value, key) if key in _ADDRESSES else _quoted(value, key)
        yield f"option SUNW.{SUNW[key]} = {written}"
    if found:
        yield "vendor-option-space SUNW"


def _suns(key: str) -> str:
    """Return the name of an option that is given for Sun's machines; empty when it is not."""
    vendor, _, name = key.lower().partition(">")
    return name if vendor.startswith("<") and any(word in vendor for word in _SUN) else ""


def _ztp(options: Options, next_server: str | None) -> Iterator[str]:
    """Zero-touch provisioning of switches, which ask for their configuration's name in an option of their vendor's."""
    if next_server:
        yield f"option option-150 = {next_server}"
    yield f"option FM_ZTP.config-file-name = {_quoted(options.get('filename'), 'filename')}"
    firmware = options.get("ztp_firmware")
    if (
        str(options.get("ztp_vendor") or "").lower() == "huawei"
        and isinstance(firmware, Mapping)
        and firmware.get("core")
    ):
        files = f"vrpfile={firmware['core']};" + (f"webfile={firmware['web']};" if firmware.get("web") else "")
        yield f"option option-143 = {_quoted(files, 'ztp_firmware')}"


def _next_server(value: Any, resolve: Resolve) -> str:
    try:
        return _octets(value, "next server")
    except Rejected:
        found = resolve(_plain(value, "next server"))
    if found is None:
        raise Rejected(f"Next server {shown(value)} has no IPv4 address that can be found here")
    return _octets(found, "next server")


def _octets(value: Any, what: str) -> str:
    try:
        return IPv4Address(str(value)).packed.hex(":")
    except ipaddress.AddressValueError:
        raise Rejected(f"Invalid {what} {shown(value)}: an IPv4 address is expected") from None


def _quoted(value: Any, what: str) -> str:
    return f'"{_plain(value, what)}"'


def _plain(value: Any, what: str) -> str:
    if not isinstance(value, str) or not _TEXT.match(value):
        raise Rejected(
            f"Invalid {what} {shown(value)}: dhcpd keeps up to 255 printable ASCII characters, no quotes or backslashes"
        )
    return value
