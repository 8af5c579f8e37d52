"""The data of a record as servers write it (RFC 1035 §5.1), and read again: names end with a dot. Pure."""

from __future__ import annotations

import ipaddress

from muster.features.dns.contract import SRV, Data, RecordType
from muster.kernel.names import FQDN


def text(data: Data) -> str:
    """Return the data as a server takes it."""
    if isinstance(data, SRV):
        return f"{data.priority} {data.weight} {data.port} {data.target}."
    return f"{data}." if isinstance(data, FQDN) else str(data)


def data(kind: RecordType, text: str) -> Data | None:
    """Return what a server says, None when it is no such data.

    Names need not be those of hosts: they are compared and shown, never sent on.
    """
    try:
        if kind is RecordType.A:
            return ipaddress.IPv4Address(text)
        if kind is RecordType.AAAA:
            return ipaddress.IPv6Address(text)
        if kind is RecordType.SRV:
            priority, weight, port, target = text.split()
            return SRV(int(priority), int(weight), int(port), _name(target))
    except ValueError:
        return None
    return _name(text)


def _name(text: str) -> FQDN:
    return FQDN(text.removesuffix("."))
