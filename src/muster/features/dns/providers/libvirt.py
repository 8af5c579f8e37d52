"""A network of libvirt, whose dnsmasq answers virtual machines: host entries, read and changed by virsh (``edge/virsh.py``).

An entry is an address with its names, and is told both ways; so a record A or AAAA and the PTR of its address are one thing
here, and whichever is removed takes the other along. libvirt keeps one entry for each address, removes entries by their
address whatever the names, and takes no condition with a change; so each change looks first, and others are kept out
meanwhile (``turns.py``). There are no aliases, no services that Foreman could name, and no zones.

What is in force and what is kept for the network's next start are two definitions. Each is given what it lacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address

from muster.edge.virsh import Virsh
from muster.features.dns import entries
from muster.features.dns.contract import Data, Record, RecordType
from muster.features.dns.entries import Address, Entries, Entry
from muster.features.dns.held import is_held
from muster.features.dns.settings import LibvirtSettings
from muster.features.dns.turns import Turns
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import FQDN, ServiceName
from muster.store.engine import Store

_log = logger("features")
_SAID: Mapping[str, type[MusterError]] = {
    "DNS HOST record with a matching field": Conflict,
    "couldn't locate a matching DNS HOST record": NotFound,
}
_KEPT = (RecordType.A, RecordType.AAAA, RecordType.PTR)
# In force now, and kept.
_LIVE, _CONFIG = "--live", "--config"


class LibvirtDNS:
    """One network."""

    def __init__(self, settings: LibvirtSettings, turns: Turns) -> None:
        self._virsh = Virsh(settings, _SAID)
        self._turns = turns

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        found = await self._defined(_LIVE)
        return frozenset(data for one in found.all if (data := one.gives(name, type)) is not None)

    async def reached(self) -> None:
        await self._virsh.reached()

    async def is_told(self) -> MusterError | None:
        """Return why the network's dnsmasq does not answer DNS, None when it does."""
        try:
            self._check_told(await self._defined(_LIVE))
        except Misconfigured as e:
            return e
        return None

    async def add(self, record: Record) -> None:
        self._check_kept(record.type, "Creation")
        ip, name = _entry(record)
        async with self._turns.of(record.name) as turn:
            lacking = await self._lacking(record, ip, name)
            if not lacking:
                return
            try:
                with turn.sent():
                    await self._update("add-last", entries.element(ip, name), lacking)
            except Conflict:
                # Others than members may have made the same meanwhile, or another.
                if await self._lacking(record, ip, name):
                    raise

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        self._check_kept(type, "Deletion")
        async with self._turns.of(name) as turn:
            where: dict[Address, list[str]] = {}
            for flag, found in (await self._both()).items():
                for one in found.of(name, type):
                    self._check_own(one, name, type)
                    where.setdefault(one.ip, []).append(flag)
            if not where:
                raise NotFound(f"{name} has no {type.value} record in {self._virsh.place}")
            for ip, flags in where.items():
                try:
                    with turn.sent():
                        await self._update("delete", entries.element(ip), flags)
                except NotFound:
                    continue

    async def _lacking(self, record: Record, ip: Address, name: FQDN) -> list[str]:
        """Return which definitions lack the record.

        Raises:
            Conflict: it cannot stand beside what one of them has.
            Rejected: libvirt cannot keep it beside that.
        """
        lacking: list[str] = []
        for flag, found in (await self._both()).items():
            self._check_told(found)
            if self._holds(found, record):
                continue
            if (other := found.at(ip)) is not None:
                raise Rejected(
                    f"{self._virsh.place} keeps one entry for each address, and {ip} is {other.names[0]}; adding "
                    f"{record} not done"
                )
            if record.type is RecordType.PTR:
                # The name gets the address as well.
                self._holds(found, Record(name, RecordType.A if ip.version == 4 else RecordType.AAAA, ip))
            lacking.append(flag)
        return lacking

    def _holds(self, found: Entries, record: Record) -> bool:
        held = [d for one in found.all if (d := one.gives(record.name, record.type)) is not None]
        return is_held(record, {record.type.value: held}, self._virsh.place)

    def _check_own(self, one: Entry, name: str, kind: RecordType) -> None:
        if len(one.names) > 1:
            # Removed whole and made anew without the name, it would be gone should the second fail.
            raise Rejected(
                f"{name} has its {kind.value} record from the entry of {one.ip} in {self._virsh.place}, which has "
                f"{len(one.names)} names and was made by somebody there; it stays"
            )

    def _check_kept(self, kind: RecordType, doing: str) -> None:
        if kind not in _KEPT:
            raise Rejected(f"{doing} of {kind.value} not implemented: {self._virsh.place} keeps A, AAAA and PTR alone")

    def _check_told(self, found: Entries) -> None:
        if not found.are_told:
            raise Misconfigured(f"DNS of {self._virsh.place} is switched off (<dns enable='no'/>)")

    async def _update(self, how: str, entry: str, flags: list[str]) -> None:
        await self._virsh.ask("net-update", how, "dns-host", entry, *flags)

    async def _both(self) -> Mapping[str, Entries]:
        live, config = await asyncio.gather(self._defined(_LIVE), self._defined(_CONFIG))
        return {_LIVE: live, _CONFIG: config}

    async def _defined(self, flag: str) -> Entries:
        return entries.defined(await self._virsh.ask("net-dumpxml", *(["--inactive"] if flag == _CONFIG else [])))


def _entry(record: Record) -> tuple[Address, FQDN]:
    """Return the entry that says the record."""
    if isinstance(record.data, IPv4Address | IPv6Address):
        return record.data, FQDN(record.name)
    return entries.address(record.name), FQDN(str(record.data))


@asynccontextmanager
async def opened(settings: LibvirtSettings, store: Store | None, name: str = "") -> AsyncIterator[LibvirtDNS]:
    """Yield the provider; ``store`` None: no other process changes entries; ``name`` tells one of a group from another.

    Raises:
        Misconfigured: there is no virsh, no such network, or no right to it.
    """
    provider = LibvirtDNS(settings, Turns(store, f"libvirt-{name}" if name else "libvirt"))
    try:
        await provider.reached()
    except Unavailable as e:
        # It may come later; readiness shows it.
        _log.warning(f"libvirt's network is not there yet: {e}")
    yield provider
