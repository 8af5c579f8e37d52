"""Records in a dictionary: the contract without a server. It can be told to fail."""

from __future__ import annotations

from collections.abc import Sequence

from muster.features.dns.contract import Data, NoZone, Record, RecordType
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected
from muster.kernel.names import FQDN, ServiceName


class MemoryDNS:
    """Keeps records until the process ends. One event loop.

    Attributes:
        failure: raised by every operation while set.
    """

    def __init__(self, zones: Sequence[FQDN] = ()) -> None:
        self._zones = tuple(z.lower() for z in zones)
        self._records: dict[FQDN, dict[RecordType, set[Data]]] = {}
        self.failure: MusterError | None = None

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        self._may_fail()
        return frozenset(self._records.get(FQDN(name), {}).get(type, ()))

    async def reached(self) -> None:
        self._may_fail()

    async def add(self, record: Record) -> None:
        self._may_fail()
        self._check_zone(record.name)
        if record.type is RecordType.CNAME and record.name.lower() in self._zones:
            raise Conflict(f"{record.name} is a zone's apex and holds SOA and NS records")
        held = self._records.setdefault(FQDN(record.name), {})
        values = held.setdefault(record.type, set())
        if record.data in values:
            return
        stands_alone = any(v for t, v in held.items() if t is not record.type and RecordType.CNAME in (t, record.type))
        if stands_alone or (values and record.type is not RecordType.SRV):
            raise Conflict(f"{record.name} holds other records")
        values.add(record.data)

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        self._may_fail()
        try:
            self._check_zone(name)
        except Rejected as e:
            raise NoZone(str(e)) from e
        if not self._records.get(FQDN(name), {}).pop(type, None):
            raise NotFound(f"{name} has no {type.value} record")

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _check_zone(self, name: FQDN | ServiceName) -> None:
        folded = name.lower()
        if self._zones and not any(folded == z or folded.endswith("." + z) for z in self._zones):
            raise Rejected(f"memory serves no zone for {name}")
