"""Subnets and records as they travel, and back. Source: docs/facts/smart-proxy-protocol.md §8.2 and §8.3."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.names import MACAddress, shown

_TIME = "%Y-%m-%d %H:%M:%S UTC"
_RESERVATION = frozenset({"name", "ip", "mac", "subnet", "type", "deleteable"})
_LEASE = frozenset({"name", "ip", "mac", "subnet", "starts", "ends", "state", "type"})
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def of_subnet(subnet: Subnet) -> dict[str, Any]:
    """Return a subnet as Foreman reads it."""
    network = subnet.network
    return {"network": str(network.network_address), "netmask": str(network.netmask), "options": dict(subnet.options)}


def of_record(record: Record) -> dict[str, Any]:
    """Return a reservation or a lease as Foreman reads it, its keys in the Ruby proxy's order."""
    told = {"name": record.name, "ip": str(record.ip), "mac": str(record.mac), "subnet": str(record.subnet)}
    if isinstance(record, Reservation):
        return {**told, "type": "reservation", "deleteable": record.deletable, **record.options}
    times = {"starts": _told(record.starts), "ends": _told(record.ends), "state": record.state}
    return {**told, **times, "type": "lease", **record.options}


def encoded(records: Sequence[Record]) -> bytes:
    """Return records as they stand in a list of JSON, with commas between.

    A record that is kept for long may know itself how it is told, as ``encoded``.
    """
    return b",".join([getattr(r, "encoded", None) or encoded_anew(r) for r in records])


def encoded_anew(record: Record) -> bytes:
    """Return one record as it stands in a list of JSON."""
    return _encode(of_record(record)).encode("utf-8", "replace")


def _told(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_TIME)


def to_subnets(content: Any, whose: str) -> list[Subnet]:
    """Return the subnets in another proxy's answer.

    Raises:
        Unavailable: it is none; the sentence begins with ``whose``.
    """
    with _Read(whose):
        return [
            Subnet(ipaddress.IPv4Network(f"{one['network']}/{one['netmask']}"), dict(one.get("options") or {}))
            for one in _list(content)
        ]


def to_records(content: Any, subnet: Subnet, whose: str) -> Records:
    """Return a subnet's records in another proxy's answer.

    Raises:
        Unavailable: it is none.
    """
    with _Read(whose):
        reservations = [_reservation(one, subnet) for one in _list(content["reservations"])]
        return Records(reservations, [_lease(one, subnet) for one in _list(content["leases"])])


def to_record(content: Any, subnet: Subnet, whose: str) -> Record:
    """Return one record in another proxy's answer.

    Raises:
        Unavailable: it is none.
    """
    with _Read(whose):
        return _lease(content, subnet) if content.get("type") == "lease" else _reservation(content, subnet)


def to_list(content: Any, subnet: Subnet, whose: str) -> list[Record]:
    """Return the records of one address in another proxy's answer.

    Raises:
        Unavailable: it is none.
    """
    with _Read(whose):
        found = _list(content)
    return [to_record(one, subnet, whose) for one in found]


def _reservation(one: Mapping[str, Any], subnet: Subnet) -> Reservation:
    options = {k: v for k, v in one.items() if k not in _RESERVATION}
    ip, mac = ipaddress.IPv4Address(one["ip"]), MACAddress.parse(one["mac"])
    return Reservation(str(one["name"]), ip, mac, subnet, options, bool(one.get("deleteable", True)))


def _lease(one: Mapping[str, Any], subnet: Subnet) -> Lease:
    options = {k: v for k, v in one.items() if k not in _LEASE}
    ip, mac = ipaddress.IPv4Address(one["ip"]), MACAddress.parse(one["mac"])
    return Lease(ip, mac, subnet, time(one["starts"]), time(one["ends"]), str(one["state"]), options)


def time(text: str) -> datetime:
    """Return a moment as a lease has it.

    Raises:
        ValueError: it is none.
    """
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"a list was expected, not {shown(content)}")
    return content


class _Read:
    """A block that reads what another proxy answered."""

    def __init__(self, whose: str) -> None:
        self._whose = whose

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError | MusterError):
            what = f"{type(error).__name__}: {error}"
            raise Unavailable(f"{self._whose} is not what a Smart Proxy says of DHCP: {shown(what, 200)}") from error
