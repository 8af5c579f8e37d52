"""Infoblox: records of one DNS view of a grid, over its web API. Unproven: see ``UNPROVEN``.

The web API takes no condition with a change, and a grid keeps several values under one name; so each change looks first, and
others are kept out meanwhile (``turns.py``). An address may also stand in a host record, as provider ``infoblox`` of DHCP
makes them: that counts as there, and is not removed here.

Source: Infoblox' own WAPI documentation (https://GRID/wapidoc), objects ``record:a``, ``record:aaaa``, ``record:cname``,
``record:ptr``, ``record:srv``, ``record:host`` and ``zone_auth``, version 2.0; docs/facts/smart-proxy-protocol.md §7.3.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from muster.edge import wapi
from muster.edge.wapi import WAPI, Fields
from muster.features.dns.contract import SRV, Data, Record, RecordType
from muster.features.dns.held import Held, is_held
from muster.features.dns.settings import InfobloxSettings
from muster.features.dns.turns import Turns
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.kernel.names import FQDN, ServiceName
from muster.store.engine import Store

_FIELDS: Mapping[RecordType, tuple[str, ...]] = {
    RecordType.A: ("ipv4addr",),
    RecordType.AAAA: ("ipv6addr",),
    RecordType.CNAME: ("canonical",),
    RecordType.PTR: ("ptrdname",),
    RecordType.SRV: ("priority", "weight", "port", "target"),
}
# Of these no data is read: they are in the way of a CNAME.
_OTHERS = ("MX", "TXT")
_HOST = ("name", "configure_for_dns", "ipv4addrs", "ipv6addrs")
# What a grid says of a name that no zone of the view is for.
_NO_ZONE = "A parent was not found"


class InfobloxDNS:
    """One DNS view of one grid."""

    def __init__(self, grid: WAPI, settings: InfobloxSettings, ttl_s: int, turns: Turns) -> None:
        self._grid = grid
        self._view = settings.dns_view
        self._ttl_s = ttl_s
        self._turns = turns

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        found = {d for one in await self._objects(name, type) if (d := _data(type, one)) is not None}
        return frozenset(
            found | {d for d in (await self._of_hosts(name)).get(type.value, ()) if not isinstance(d, str)}
        )

    async def reached(self) -> None:
        if not await self._grid.all("view", ("name",), name=self._view):
            raise Rejected(f"{self._grid.url} has no DNS view {self._view}")

    async def add(self, record: Record) -> None:
        async with self._turns.of(record.name) as turn:
            if is_held(record, await self._held(record), self._grid.url):
                return
            content = {
                "name": record.name.lower(), "view": self._view, "ttl": self._ttl_s, "use_ttl": True,
                **_content(record),
            }  # fmt: skip
            try:
                with turn.sent():
                    await self._grid.create(f"record:{record.type.value.lower()}", content)
            except Rejected as e:
                if _NO_ZONE in str(e):
                    raise Rejected(f"{self._grid.url} serves no zone for {record.name}: {e}") from e
                raise
            except Conflict:
                # Others than members may have made the same meanwhile.
                if record.data not in await self.lookup(record.name, record.type):
                    raise

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        async with self._turns.of(name) as turn:
            objects = await self._objects(name, type)
            for one in objects:
                try:
                    with turn.sent():
                        await self._grid.delete(one)
                except NotFound:
                    continue
            if (await self._of_hosts(name)).get(type.value):
                raise Rejected(
                    f"{name} has its {type.value} record from a host record of {self._grid.url}, which is DHCP's, or "
                    "somebody's there; it stays"
                )
            if not objects:
                raise NotFound(f"{name} has no {type.value} record on {self._grid.url}")

    async def _objects(self, name: str, kind: RecordType) -> list[Fields]:
        fields = ("name", *_FIELDS[kind])
        return await self._grid.all(f"record:{kind.value.lower()}", fields, name=name.lower(), view=self._view)

    async def _held(self, record: Record) -> Held:
        """Return what the grid has under the name, as far as it can be in the way of the record."""
        held: dict[str, list[Data | str]] = {}
        stands_alone = record.type is RecordType.CNAME
        for kind in RecordType if stands_alone else dict.fromkeys((record.type, RecordType.CNAME)):
            found = await self._objects(record.name, kind)
            held[kind.value] = [str(one) if (data := _data(kind, one)) is None else data for one in found]
        for word, values in (await self._of_hosts(record.name)).items():
            held.setdefault(word, []).extend(values)
        if stands_alone:
            name = record.name.lower()
            for word in _OTHERS:
                found = await self._grid.all(f"record:{word.lower()}", ("name",), name=name, view=self._view)
                held[word] = [word for _ in found]
            if await self._grid.all("zone_auth", ("fqdn",), fqdn=name, view=self._view):
                held |= {"SOA": ["SOA"], "NS": ["NS"]}
        return held

    async def _of_hosts(self, name: str) -> Mapping[str, list[Data | str]]:
        """Return the addresses that host records give a name."""
        found: dict[str, list[Data | str]] = {}
        for host in await self._grid.all("record:host", _HOST, name=name.lower(), view=self._view):
            if host.get("configure_for_dns") is False:
                continue
            for kind, listed in ((RecordType.A, "ipv4addrs"), (RecordType.AAAA, "ipv6addrs")):
                addresses = host.get(listed)
                for one in addresses if isinstance(addresses, list) else ():
                    data = _data(kind, one) if isinstance(one, dict) else None
                    found.setdefault(kind.value, []).append(str(one) if data is None else data)
        return found


def _content(record: Record) -> dict[str, Any]:
    data = record.data
    if isinstance(data, SRV):
        return {"priority": data.priority, "weight": data.weight, "port": data.port, "target": str(data.target)}
    return {_FIELDS[record.type][0]: str(data)}


def _data(kind: RecordType, one: Fields) -> Data | None:
    values: list[Any] = [one.get(field) for field in _FIELDS[kind]]
    try:
        if kind is RecordType.A:
            return ipaddress.IPv4Address(values[0])
        if kind is RecordType.AAAA:
            return ipaddress.IPv6Address(values[0])
        if kind is RecordType.SRV:
            return SRV(int(values[0]), int(values[1]), int(values[2]), _name(values[3]))
        return _name(values[0])
    except (TypeError, ValueError, OverflowError):
        return None


def _name(text: Any) -> FQDN:
    if not isinstance(text, str):
        raise TypeError(text)
    return FQDN(text.removesuffix("."))


@asynccontextmanager
async def opened(
    settings: InfobloxSettings, ttl_s: int, store: Store | None, name: str = ""
) -> AsyncIterator[InfobloxDNS]:
    """Yield the provider; ``store`` None: no other process changes records; ``name`` tells one of a group from another.

    Raises:
        Misconfigured: the password or the CA's file cannot be read.
    """
    async with wapi.opened(settings) as grid:
        yield InfobloxDNS(grid, settings, ttl_s, Turns(store, f"infoblox-{name}" if name else "infoblox"))
