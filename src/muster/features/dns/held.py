"""Whether a record may be added beside what a name holds: the contract's rule, for servers that take no conditions. Pure.

A server that takes prerequisites (RFC 2136) is told them; whoever writes for another one decides here, and keeps others out
meanwhile (``turns.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from muster.features.dns.contract import Data, Record, RecordType
from muster.kernel.errors import Conflict

Held = Mapping[str, Collection[Data | str]]
"""What stands under one name, by type; data of a type that Foreman does not manage as the server's own text."""

# What a signed zone has beside a CNAME (RFC 4035 §2.5).
_BESIDE_A_CNAME = frozenset({"CNAME", "RRSIG", "NSEC"})


def is_held(record: Record, held: Held, place: str) -> bool:
    """Return whether the record is there already; False: it may be added.

    Raises:
        Conflict: the name holds what it cannot stand beside.
    """
    same_type = held.get(record.type.value, ())
    if record.data in same_type:
        return True
    if same_type and record.type is not RecordType.SRV:
        values = ", ".join(sorted(map(str, same_type)))
        raise Conflict(f"{record.name} holds {record.type.value} {values} on {place}")
    if record.type is RecordType.CNAME:
        if others := sorted(kind for kind, values in held.items() if values and kind not in _BESIDE_A_CNAME):
            raise Conflict(f"{record.name} holds {', '.join(others)} records on {place}, and a CNAME stands alone")
    elif held.get(RecordType.CNAME.value):
        raise Conflict(f"{record.name} is a CNAME on {place}, which stands alone")
    return False
