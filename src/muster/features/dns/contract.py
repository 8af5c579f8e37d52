"""What a DNS provider promises."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from muster.kernel.errors import NotFound
from muster.kernel.names import FQDN, ServiceName
from muster.policy.marks import change, query


class RecordType(Enum):
    """The types Foreman manages."""

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    PTR = "PTR"
    SRV = "SRV"


@dataclass(frozen=True)
class SRV:
    """An SRV record's data (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: FQDN

    def __str__(self) -> str:
        return f"{self.priority} {self.weight} {self.port} {self.target}"


Data = ipaddress.IPv4Address | ipaddress.IPv6Address | FQDN | SRV


@dataclass(frozen=True)
class Record:
    """One record, validated: A and AAAA hold an address, CNAME and PTR a name, SRV its four parts.

    Names compare without case and addresses by value, so equal records are the same record to a DNS server.
    """

    name: FQDN | ServiceName
    type: RecordType
    data: Data

    def __str__(self) -> str:
        return f"{self.name} {self.type.value} {self.data}"


class NoZone(NotFound):
    """There is no record by that name, and no zone for one: what would be removed is gone for certain.

    Not success like the removal of nothing, for somebody may look for the zone; not a refusal either, since Foreman must be
    able to delete the host: it takes 404 on a delete for done.
    """


class DNSProvider(Protocol):
    """Records of the zones one server is primary for.

    Names are absolute. Every operation goes to the provider's own server, never to a resolver's cache.

    Concurrency: any number of calls, of any number of members, at once. Of two racing ``add`` with different values for
    one name exactly one succeeds.
    """

    @query
    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        """Return the values under a name, empty when there are none.

        Raises:
            Unsupported: the provider cannot look (``smart_proxy``: the protocol has no such call).
        """

    @query
    async def reached(self) -> None:
        """Return when the provider's server has answered any question; cheap, and asked every few seconds.

        Raises:
            Unavailable: it did not answer.
            Misconfigured: it cannot be asked with the settings there are.
        """

    @change(repeatable=True)
    async def add(self, record: Record) -> None:
        """Make the record exist; success when it exists already.

        For SRV other values under the name stay beside it. For the other types a name has one value, and a CNAME stands
        alone (RFC 1034 §3.6.2): beside data of any type, the SOA of a zone's apex included, it is a conflict.

        Raises:
            Conflict: the name holds another value; nothing was changed.
            Rejected: the server refuses the change, or serves no zone for the name; nothing was changed.
            Misconfigured: the server does not accept our key or clock; nothing was changed.
            Unavailable: the server did not answer; whether the record exists is unknown.
        """

    @change(repeatable=True)
    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        """Make the name have no record of the type, whatever its values.

        Raises:
            NotFound: there was none, where the provider can tell (``smart_proxy`` cannot: it succeeds).
            NoZone: there was none, and the zone it would be in is gone; only where the server says so with authority. A
                server that refuses to answer may have another view, or not know its zones yet: that is Rejected.
            Rejected, Misconfigured, Unavailable: as for ``add``.
        """
