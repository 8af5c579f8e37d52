"""Rules common to all DNS providers: what Foreman's parameters mean, and Foreman's words for a conflict.

Source: docs/facts/smart-proxy-protocol.md §7.1 and §7.2, recorded in ``tests/wire/recorded/smart-proxy/dns.jsonl``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from muster.edge.feature import Surroundings
from muster.edge.provided import provided
from muster.features.dns import providers
from muster.features.dns.contract import SRV, Data, DNSProvider, NoZone, Record, RecordType
from muster.features.dns.settings import DNSSettings
from muster.features.dns.several import GROUPABLE
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.kernel.names import FQDN, ServiceName, shown

# Of what Ruby splits at, line ends are left out: they are refused everywhere.
_BLANKS = re.compile(r"[ \t]+")
_REVERSE = (".in-addr.arpa", ".ip6.arpa")
# Ruby's Integer(): decimal, 0x hexadecimal, 0b binary, 0 or 0o octal.
_INTEGER = re.compile(r"(?:0[xX][0-9A-Fa-f]{1,8}|0[bB][01]{1,32}|0[oO]?[0-7]{0,11}|[1-9][0-9]{0,9})\Z")


@dataclass(frozen=True)
class DNS:
    """The feature's service: validates, asks the provider, speaks Foreman's words."""

    provider: DNSProvider

    async def reached(self) -> None:
        """Return when the provider's server answers; the provider's error says why not."""
        await self.provider.reached()

    async def create(self, fqdn: str, value: str, type_name: str) -> None:
        """Make a record exist.

        Raises:
            Rejected: a parameter is malformed, or the server refuses.
            Conflict: with Foreman's text.
        """
        record = requested(fqdn, value, type_name)
        try:
            await self.provider.add(record)
        except Conflict as e:
            # The Ruby proxy's texts, misplaced quote included: operators search logs for them.
            text = f"'{record.name}'" if record.type is RecordType.PTR else f"'{record.name} '"
            verb = " is already in use" if record.type is RecordType.PTR else "is already in use"
            raise Conflict(text + verb) from e

    async def delete(self, name: str, type_name: str | None) -> None:
        """Make a name have no record of a type; nothing there is success (docs/facts/smart-proxy-protocol.md §23).

        Raises:
            NoZone: for certain there is not even a zone for it; Foreman takes its 404 for done
                (docs/facts/smart-proxy-protocol.md §19.2).
        """
        kind = _type_to_delete(name, type_name)
        owner = (
            ServiceName.parse(name) if kind is RecordType.SRV else _reverse(name) if kind is RecordType.PTR else None
        )
        try:
            await self.provider.remove(owner or FQDN.parse(name), kind)
        except NoZone:
            raise
        except NotFound:
            return


def requested(fqdn: str, value: str, type_name: str) -> Record:
    """Return the record Foreman's parameters describe.

    Raises:
        Rejected: with the Ruby proxy's texts. Order of checks: name, type, value.
    """
    is_srv = type_name.upper() == "SRV"
    name: FQDN | ServiceName = ServiceName.parse(fqdn) if is_srv else FQDN.parse(fqdn)
    try:
        kind = RecordType(type_name.upper())
    except ValueError:
        raise Rejected(f"unrecognized 'type' parameter: {shown(type_name.upper())}") from None
    if kind is RecordType.PTR:
        return Record(_reverse(value), kind, FQDN(name))
    return Record(name, kind, _data(kind, value))


def _data(kind: RecordType, value: str) -> Data:
    if kind is RecordType.A:
        return _address(value, 4)
    if kind is RecordType.AAAA:
        return _address(value, 6)
    if kind is RecordType.SRV:
        return _srv(value)
    return FQDN.parse(value)


def _address(value: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse as Ruby's IPAddr does: a prefix is accepted and masks, and IPv6 may stand in brackets."""
    if len(value) > 100 or "%" in value:
        raise Rejected(f"invalid address: {shown(value)}")
    bare, slash, prefix = value.partition("/")
    in_brackets = version == 6 and bare.startswith("[") and bare.endswith("]") and ":" in bare
    try:
        found = ipaddress.ip_interface(bare[1:-1] + slash + prefix if in_brackets else value).network.network_address
    except ValueError:
        reason = "invalid address: " if _looks_like_address(value, version) else "address family mismatch"
        raise Rejected(reason + (shown(value) if reason.endswith(" ") else "")) from None
    if found.version != version:
        raise Rejected("address family mismatch" if version == 4 else f"invalid address: {shown(value)}")
    return found


def _looks_like_address(value: str, version: int) -> bool:
    return version == 6 or bool(re.match(r"[0-9.]+\Z", value))


def _reverse(value: str) -> FQDN:
    try:
        name = FQDN.parse(value)
    except Rejected:
        raise Rejected(f"Invalid reverse DNS {shown(value)}") from None
    if not name.lower().endswith(_REVERSE):
        raise Rejected(f"Invalid reverse DNS {shown(value)}")
    return name


def _srv(value: str) -> SRV:
    parts = [p for p in _BLANKS.split(value) if p] if len(value) <= 300 else []
    try:
        priority, weight, port = (_integer(p) for p in parts[:3])
        target = FQDN.parse(parts[3])
    except (Rejected, ValueError, IndexError):
        raise Rejected(f"Invalid DNS SRV value {shown(value)}") from None
    if len(parts) != 4 or priority > 65535 or weight > 65535 or not 1 <= port <= 65535:
        raise Rejected(f"Invalid DNS SRV value {shown(value)}")
    return SRV(priority, weight, port, target)


def _integer(text: str) -> int:
    if not _INTEGER.match(text):
        raise ValueError(text)
    if len(text) > 1 and text[0] == "0" and text[1] in "01234567":
        return int(text, 8)
    return int(text, 0)


def _type_to_delete(name: str, type_name: str | None) -> RecordType:
    if type_name is None:
        return RecordType.PTR if name.lower().removesuffix(".").endswith(_REVERSE) else RecordType.A
    try:
        return RecordType(type_name)
    except ValueError:
        raise Rejected(f"unrecognized 'type' parameter: {shown(type_name)}") from None


@asynccontextmanager
async def opened(settings: DNSSettings, around: Surroundings) -> AsyncIterator[DNS]:
    """Open the provider the settings name, wrapped in its policies."""
    async with provided(
        DNSProvider,  # type: ignore[type-abstract]
        settings,
        around,
        providers.opened,
        feature="dns",
        groupable=GROUPABLE,
    ) as provider:
        yield DNS(provider)
