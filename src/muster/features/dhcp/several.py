"""Several DHCP servers called as one: how a change is written down for one that is away, and what all of them have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from typing import Any, TypeVar

from muster.edge.provided import Groupable
from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet, Unreached
from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress
from muster.policy.groups.journal import Written
from muster.policy.marks import Operation

T = TypeVar("T")


class Reservations:
    """Changes of reservations; those of one address take effect one after another.

    So do those of one machine, anyway (:mod:`muster.features.dhcp.claims`).
    """

    def written(self, operation: Operation, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Written:
        """See :class:`~muster.policy.groups.everywhere.Codec`."""
        one: Reservation = arguments[0]
        subnet = {"network": str(one.subnet.network), "options": dict(one.subnet.options)}
        found = {
            "name": one.name, "ip": str(one.ip), "mac": str(one.mac), "subnet": subnet, "options": dict(one.options),
            "related": sorted(str(m) for m in named.get("related", ())),
        }  # fmt: skip
        return Written(str(one.ip), operation.name, found)

    def read(self, written: Written) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """See :class:`~muster.policy.groups.everywhere.Codec`."""
        try:
            given = written.arguments
            subnet = Subnet(IPv4Network(given["subnet"]["network"]), given["subnet"]["options"])
            ip, mac = IPv4Address(given["ip"]), MACAddress.parse(given["mac"])
            one = Reservation(given["name"], ip, mac, subnet, given["options"])
            related = [MACAddress.parse(m) for m in given["related"]]
        except (KeyError, TypeError, Rejected) as e:
            raise ValueError(str(e)) from e
        return (one,), {"related": related} if written.operation == "add" else {}

    def touches(self, written: Written) -> frozenset[str]:
        """See :class:`~muster.policy.groups.journal.Order`: a machine has one address, and a server a name once."""
        name = written.arguments.get("name") if isinstance(written.arguments, dict) else None
        return frozenset({f"ip {written.key}", f"mac {_mac(written)}", f"name {str(name).lower()}"})

    def settles(self, later: Written, earlier: Written) -> bool:
        """See :class:`~muster.policy.groups.journal.Order`: of an address and a machine there is one reservation."""
        is_same = _mac(later) is not None and _mac(later) == _mac(earlier)
        return is_same and (later.operation == "remove" or earlier.operation == "add")

    def follows(self, later: Written, earlier: Written) -> bool:
        """See :class:`~muster.policy.groups.journal.Order`; servers remove no reservation of another machine."""
        return _mac(later) == _mac(earlier) and earlier.operation == "remove"


def _mac(written: Written) -> str | None:
    return written.arguments.get("mac") if isinstance(written.arguments, dict) else None


def _subnets(said: Mapping[str, Sequence[Subnet]], behind: Collection[str]) -> Sequence[Subnet]:
    del behind
    found: dict[IPv4Network, Subnet] = {}
    for subnet in chain.from_iterable(said.values()):
        if not any(subnet.network.overlaps(n) for n in found):
            found[subnet.network] = subnet
    return list(found.values())


# A server that is behind shows reservations that were removed since; what it has leased is in use all the same.
def _records(said: Mapping[str, Records], behind: Collection[str]) -> Records:
    reservations = _each(r for name, one in said.items() if name not in behind for r in one.reservations)
    return Records(reservations, _each(lease for one in said.values() for lease in one.leases))


def _at(said: Mapping[str, Sequence[Record]], behind: Collection[str]) -> Sequence[Record]:
    found = _each(r for name, one in said.items() for r in one if isinstance(r, Lease) or name not in behind)
    return sorted(found, key=lambda r: isinstance(r, Lease))


def _of(said: Mapping[str, Record | None], behind: Collection[str]) -> Record | None:
    found = [r for name, r in said.items() if isinstance(r, Lease) or (r is not None and name not in behind)]
    return next((r for r in found if isinstance(r, Reservation)), next(iter(found), None))


def _taken(said: Mapping[str, Any], behind: Collection[str]) -> set[IPv4Address]:
    del behind
    return set(chain.from_iterable(said.values()))


def _each(records: Any) -> Sequence[Any]:
    """Return records once each, whichever servers have them; the first one's word counts."""
    found: dict[tuple[type, IPv4Address, MACAddress], Any] = {}
    for record in records:
        found.setdefault((type(record), record.ip, record.mac), record)
    return list(found.values())


GROUPABLE = Groupable(
    Reservations(),
    {"subnets": _subnets, "records": _records, "at": _at, "of": _of, "taken": _taken},
    # One server's next address may be taken on another.
    refused=frozenset({"offered"}),
    attributes=lambda opened: {"has_vendor_options": all(getattr(p, "has_vendor_options", True) for p in opened)},
    certain=(Unreached,),
)
