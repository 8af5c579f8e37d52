"""Subnets and records as they travel, and back. Source: docs/facts/smart-proxy-protocol.md §8.2 and §8.3."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from muster.features.dhcp import asked
from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.log import Seldom, and_more, logger
from muster.kernel.names import shown

_TIME = "%Y-%m-%d %H:%M:%S UTC"
_RESERVATION = frozenset({"name", "ip", "mac", "subnet", "type", "deleteable"})
_LEASE = frozenset({"name", "ip", "mac", "subnet", "starts", "ends", "state", "type"})
_NONE = (KeyError, TypeError, ValueError, AttributeError, MusterError)
_NEVER = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_log = logger("features")
_unreadable = Seldom()
T = TypeVar("T")
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
        return [found for one in _list(content) if (found := _readable(_subnet, one, whose)) is not None]


def to_records(content: Any, subnet: Subnet, whose: str) -> Records:
    """Return a subnet's records in another proxy's answer.

    Raises:
        Unavailable: it is none.
    """
    with _Read(whose):
        return Records(
            _all(content["reservations"], lambda one: _reservation(one, subnet), whose),
            _all(content["leases"], lambda one: _lease(one, subnet), whose),
        )


def to_record(content: Any, subnet: Subnet, whose: str) -> Record:
    """Return one record in another proxy's answer.

    Raises:
        Unavailable: it is none.
    """
    with _Read(whose):
        return _record(content, subnet)


def to_list(content: Any, subnet: Subnet, whose: str) -> list[Record]:
    """Return the records of one address in another proxy's answer.

    Raises:
        Unavailable: it is none.
    """
    with _Read(whose):
        return _all(content, lambda one: _record(one, subnet), whose)


def _all(content: Any, read: Callable[[Any], T], whose: str) -> list[T]:
    return [found for one in _list(content) if (found := _readable(read, one, whose)) is not None]


def _readable(read: Callable[[Any], T], one: Any, whose: str) -> T | None:
    """Return what one of many is; None, and said in the log, where it is none: the others are told all the same."""
    try:
        return read(one)
    except _NONE as e:
        held = _unreadable.held_back(whose)
        if held is not None:
            said = shown(f"{type(e).__name__}: {e}", 200)
            _log.warning(f"{whose} holds something that is left out: {said}{and_more(held)}")
        return None


def _subnet(one: Mapping[str, Any]) -> Subnet:
    return Subnet(ipaddress.IPv4Network(f"{one['network']}/{one['netmask']}"), dict(one.get("options") or {}))


def _record(one: Mapping[str, Any], subnet: Subnet) -> Record:
    return _lease(one, subnet) if one.get("type") == "lease" else _reservation(one, subnet)


def _address(text: Any) -> ipaddress.IPv4Address:
    if not isinstance(text, str):
        # A number would be one, too, to the library.
        raise TypeError(f"{shown(text)} is no address")
    return ipaddress.IPv4Address(text)


def _reservation(one: Mapping[str, Any], subnet: Subnet) -> Reservation:
    options = {k: v for k, v in one.items() if k not in _RESERVATION}
    ip, mac = _address(one["ip"]), asked.mac(one["mac"])
    return Reservation(str(one["name"]), ip, mac, subnet, options, bool(one.get("deleteable", True)))


def _lease(one: Mapping[str, Any], subnet: Subnet) -> Lease:
    options = {k: v for k, v in one.items() if k not in _LEASE}
    ip, mac = _address(one["ip"]), asked.mac(one["mac"])
    # The Ruby proxy tells of some leases without.
    starts = time(one["starts"]) if one.get("starts") is not None else _BEGINNING
    ends = time(one["ends"]) if one.get("ends") is not None else _NEVER
    return Lease(ip, mac, subnet, starts, ends, str(one["state"]), options)


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
        if isinstance(error, _NONE):
            what = f"{type(error).__name__}: {error}"
            raise Unavailable(f"{self._whose} is not what a Smart Proxy says of DHCP: {shown(what, 200)}") from error
