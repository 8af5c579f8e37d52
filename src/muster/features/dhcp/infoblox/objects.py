"""Infoblox' networks, fixed addresses, hosts and leases as ours, and reservations as its objects. Pure.

Source: Infoblox' WAPI documentation, objects ``network``, ``range``, ``fixedaddress``, ``record:host``,
``record:host_ipv4addr``, ``lease``, ``ipv4address``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from muster.edge.wapi import Fields
from muster.features.dhcp import asked
from muster.features.dhcp.contract import Lease, Reservation, Subnet, ordered
from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress

Kind = Literal["fixedaddress", "host"]

NETWORK = ("network", "options")
RANGE = ("network", "start_addr", "end_addr")
FIXED = ("ipv4addr", "mac", "name", "network", "bootfile", "use_bootfile", "nextserver", "use_nextserver")
HOST = (
    "ipv4addr",
    "mac",
    "host",
    "network",
    "configure_for_dhcp",
    "bootfile",
    "use_bootfile",
    "nextserver",
    "use_nextserver",
)
LEASE = ("address", "hardware", "binding_state", "client_hostname", "starts", "ends", "never_ends", "network")
USED = ("ip_address", "status")
OF_HOST = ("name", "ipv4addrs")
WAPI_NAME: Mapping[Kind, str] = {"fixedaddress": "fixedaddress", "host": "record:host_ipv4addr"}

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
_LISTS = {"routers": "routers", "domain-name-servers": "domain_name_servers", "ntp-servers": "ntp_servers"}
_OF_A_SUBNET = ("routers", "domain_name", "domain_name_servers", "ntp_servers", "interface_mtu")


def subnets(networks: Iterable[Fields], ranges: Iterable[Fields]) -> list[Subnet]:
    """Return the networks with what they send, in the grid's order; of several ranges the last is told."""
    spans = {str(r.get("network")): [str(r.get("start_addr")), str(r.get("end_addr"))] for r in ranges}
    found: list[Subnet] = []
    for one in networks:
        try:
            network = IPv4Network(str(one.get("network")))
        except ValueError:
            # A container, or something of IPv6.
            continue
        options = _sent(one.get("options"))
        if str(network) in spans:
            options["range"] = spans[str(network)]
        found.append(Subnet(network, options))
    return found


def _sent(options: Any) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    for one in options if isinstance(options, list) else ():
        if not isinstance(one, dict) or one.get("use_option") is False or not one.get("value"):
            continue
        name, value = one.get("name"), str(one["value"])
        if name in _LISTS:
            sent[_LISTS[name]] = [v.strip() for v in value.split(",")]
        elif name == "domain-name":
            sent["domain_name"] = value
        elif name == "interface-mtu" and value.isascii() and value.isdigit() and len(value) <= 9:
            sent["interface_mtu"] = int(value)
    return {name: sent[name] for name in _OF_A_SUBNET if name in sent}


def reservation(one: Fields, kind: Kind, subnet: Subnet, *, deletable: bool) -> Reservation | None:
    """Return what a fixed address, or an address of a host, is to Foreman; None: it is for no hardware address."""
    ip, mac = _address(one.get("ipv4addr")), _mac(one.get("mac"))
    if ip is None or mac is None or (kind == "host" and one.get("configure_for_dhcp") is False):
        return None
    name = str(one.get("name" if kind == "fixedaddress" else "host") or mac.replace(":", "-"))
    options = {
        "hostname": name,
        "hardware_type": "ethernet",
        "filename": _text(one, "bootfile"),
        "nextServer": _text(one, "nextserver"),
    }
    return Reservation(name, ip, mac, subnet, ordered(options), deletable)


def lease(one: Fields, subnet: Subnet, now: datetime) -> Lease | None:
    """Return a lease; None: it is none now, or for no hardware address."""
    ip, mac = _address(one.get("address")), _mac(one.get("hardware"))
    state = str(one.get("binding_state", "")).lower()
    if ip is None or mac is None or state not in ("active", "static", "backup", "offered"):
        return None
    ends = _NEVER if one.get("never_ends") else _moment(one.get("ends"), _NEVER)
    if ends <= now:
        return None
    name = one.get("client_hostname")
    options = {"client_hostname": str(name)} if name else {}
    return Lease(ip, mac, subnet, _moment(one.get("starts"), _BEGINNING), min(ends, _NEVER), "active", options)


def wanted(one: Reservation, kind: Kind, *, network_view: str, dns_view: str | None) -> tuple[str, Fields]:
    """Return which object a reservation becomes, and what is said of it."""
    boot: dict[str, Any] = {}
    if (filename := one.options.get("filename")) is not None:
        boot |= {"bootfile": filename, "use_bootfile": True}
    if (next_server := one.options.get("nextServer")) is not None:
        boot |= {"nextserver": next_server, "use_nextserver": True}
    address = {"ipv4addr": str(one.ip), "mac": str(one.mac), **boot}
    if kind == "fixedaddress":
        return "fixedaddress", {
            **address,
            "name": one.name,
            "network_view": network_view,
            "match_client": "MAC_ADDRESS",
        }
    host: dict[str, Any] = {"name": one.name, "network_view": network_view, "configure_for_dns": dns_view is not None}
    if dns_view is not None:
        host["view"] = dns_view
    return "record:host", {**host, "ipv4addrs": [{**address, "configure_for_dhcp": True}]}


def used(addresses: Iterable[Fields]) -> set[IPv4Address]:
    """Return which addresses the grid has a use for."""
    found = (_address(one.get("ip_address")) for one in addresses if one.get("status") == "USED")
    return {ip for ip in found if ip is not None}


def only(host: Sequence[Fields], ip: IPv4Address) -> Fields | None:
    """Return the host record that has this address and no other; None: it has others, or there is none."""
    for one in host:
        addresses = one.get("ipv4addrs")
        if isinstance(addresses, list) and [a.get("ipv4addr") for a in addresses if isinstance(a, dict)] == [str(ip)]:
            return one
    return None


def _text(one: Fields, name: str) -> str | None:
    value = one.get(name)
    # Else it is the network's.
    return str(value) if value and one.get(f"use_{name}") is not False else None


def _address(value: Any) -> IPv4Address | None:
    try:
        return ipaddress.IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _mac(value: Any) -> MACAddress | None:
    try:
        return asked.mac(value.lower()) if isinstance(value, str) else None
    except Rejected:
        return None


def _moment(value: Any, otherwise: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(int(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return otherwise
