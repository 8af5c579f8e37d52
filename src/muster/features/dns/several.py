"""Several DNS servers called as one: how a change is written down for a server that is away."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from muster.edge.provided import Groupable
from muster.features.dns.contract import SRV, Data, Record, RecordType
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, ServiceName
from muster.policy.groups.journal import Written
from muster.policy.marks import Operation


class Records:
    """Changes of records; those of one name take effect one after another."""

    def written(self, operation: Operation, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Written:
        """See :class:`~muster.policy.groups.everywhere.Codec`."""
        del named
        if operation.name == "add":
            record: Record = arguments[0]
            found = {"name": str(record.name), "type": record.type.value, "data": str(record.data)}
            return Written(str(record.name).lower(), operation.name, found)
        name, kind = arguments
        return Written(str(name).lower(), operation.name, {"name": str(name), "type": kind.value})

    def read(self, written: Written) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """See :class:`~muster.policy.groups.everywhere.Codec`."""
        try:
            kind = RecordType(written.arguments["type"])
            text = written.arguments["name"]
            name = ServiceName.parse(text) if kind is RecordType.SRV else FQDN.parse(text)
            if written.operation == "remove":
                return (name, kind), {}
            return (Record(name, kind, _data(kind, written.arguments["data"])),), {}
        except (KeyError, TypeError, Rejected) as e:
            raise ValueError(str(e)) from e

    def touches(self, written: Written) -> frozenset[str]:
        """See :class:`~muster.policy.groups.journal.Order`: records of other names are of no account."""
        return frozenset({written.key})

    def settles(self, later: Written, earlier: Written) -> bool:
        """See :class:`~muster.policy.groups.journal.Order`: removed are all values; and only of SRV a name has several."""
        if _kind(later) is None or _kind(later) != _kind(earlier):
            return False
        if later.operation == "remove":
            return True
        is_same = _kind(later) != "SRV" or later.arguments.get("data") == earlier.arguments.get("data")
        return earlier.operation == "add" and is_same

    def follows(self, later: Written, earlier: Written) -> bool:
        """See :class:`~muster.policy.groups.journal.Order`: a removal would take away what was added since."""
        return _kind(later) == _kind(earlier) and earlier.operation == "remove"


def _kind(written: Written) -> str | None:
    return written.arguments.get("type") if isinstance(written.arguments, dict) else None


def _data(kind: RecordType, text: str) -> Data:
    if kind in (RecordType.A, RecordType.AAAA):
        return ipaddress.ip_address(text)
    if kind is RecordType.SRV:
        priority, weight, port, target = text.split(" ")
        return SRV(int(priority), int(weight), int(port), FQDN.parse(target))
    return FQDN.parse(text)


GROUPABLE = Groupable(Records())
