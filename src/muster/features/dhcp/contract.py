"""What a DHCP provider promises."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Protocol

from muster.kernel.errors import Unavailable
from muster.kernel.names import MACAddress, shown
from muster.policy.marks import change, query

_VENDOR = re.compile(r"<[^>]*>")

Options = Mapping[str, Any]
"""Options by Foreman's names (``routers``, ``nextServer``), in the order in which they are told; values are JSON."""


@dataclass(frozen=True)
class Subnet:
    """A subnet of the server.

    Attributes:
        options: those that Foreman reads, in its order: ``routers``, ``domain_name``, ``domain_name_servers``,
            ``ntp_servers``, ``interface_mtu``, ``range`` (docs/facts/smart-proxy-protocol.md §8.2).
    """

    network: IPv4Network
    options: Options = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.network.network_address}/{self.network.netmask}"


@dataclass(frozen=True)
class Reservation:
    """An address that is kept for a hardware address.

    Attributes:
        name: unique on one server; ISC's name of the host declaration.
        deletable: whether the server lets it be removed; False: somebody wrote it into a file.
        options: ``hostname``, ``hardware_type``, ``filename``, ``nextServer``, and whatever else was given.
    """

    name: str
    ip: IPv4Address
    mac: MACAddress
    subnet: Subnet
    options: Options = field(default_factory=dict)
    deletable: bool = True

    def __str__(self) -> str:
        return f"{shown(self.name)} ({self.ip} / {self.mac})"


@dataclass(frozen=True)
class Lease:
    """An address that the server gave to a hardware address for a time.

    Attributes:
        ends: aware; 2038-01-19 03:14:07 UTC when it never ends.
        state: ``active``, and the server's other words for leases that are not free.
        options: what the server knows besides, as ``cltt``, ``next_state``, ``client_hostname``.
    """

    ip: IPv4Address
    mac: MACAddress
    subnet: Subnet
    starts: datetime
    ends: datetime
    state: str = "active"
    options: Options = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"lease-{self.mac.replace(':', '')}"

    def __str__(self) -> str:
        return f"{self.ip} / {self.mac}"


Record = Reservation | Lease


@dataclass(frozen=True)
class Records:
    """What a server has in one subnet, in its own order."""

    reservations: Sequence[Reservation] = ()
    leases: Sequence[Lease] = ()

    def __iter__(self) -> Iterator[Record]:
        """Yield the reservations, then the leases."""
        yield from self.reservations
        yield from self.leases


class Unreached(Unavailable):
    """The server could not even be asked: nothing was changed, and nothing will be."""


class DHCPProvider(Protocol):
    """Subnets, reservations and leases of one DHCP server; IPv4.

    What others make on the server is seen, not only what was made here. Leases that are free or have ended are none.

    Concurrency: any number of calls, of any number of members, at once. Members change the records of one address and of
    one hardware address one at a time (:mod:`muster.features.dhcp.claims`); others may change them meanwhile.

    Attributes:
        has_vendor_options: whether it keeps options that are given for one vendor's machines (``<Sun-Fire>root_path_name``).
    """

    has_vendor_options: bool

    @query
    async def reached(self) -> None:
        """Return when the provider's server has answered any question; cheap, and asked every few seconds.

        Raises:
            Unavailable: it did not answer.
            Misconfigured: it cannot be asked with the settings there are.
        """

    @query
    async def subnets(self) -> Sequence[Subnet]:
        """Return the subnets, in the server's order; they do not overlap.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def records(self, subnet: Subnet) -> Records:
        """Return all that there is in a subnet.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        """Return what has an address, reservations first; empty when nothing has.

        A change that this or another member made and that was acknowledged is seen.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        """Return the reservation of a hardware address, else its lease, else None; changes are seen as by ``at``.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        """Return which of these addresses have a record, for certain: what was not changed in this moment is seen.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @change(repeatable=True)
    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:
        """Return an address of the range that the server itself finds for a new host, and will not find again soon.

        Returns:
            None: it has none.

        Raises:
            Unsupported: the server has no such question; then addresses are found here, by ``taken`` and by probing.
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def as_kept(self, reservation: Reservation) -> Reservation:
        """Return a reservation as the server will show it once it has it, which may be without names that it cannot keep.

        Raises:
            Rejected: the server cannot keep it.
        """

    @change(repeatable=True)
    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        """Make the reservation exist; success when it exists already as it is.

        Args:
            reservation: the whole of it; options that the server cannot keep are dropped only where its page says so.
            related: hardware addresses whose reservations may have the same address (the other ports of one bond).

        Raises:
            Conflict: the server has another reservation of the address or the hardware address; nothing was changed.
            Rejected: the server refuses it, or has another one by that name; nothing was changed.
            Unreached: the server could not be asked; nothing was changed.
            Unavailable: it did not answer; whether the reservation exists is unknown.
            Misconfigured: the server does not accept our key; nothing was changed.
        """

    @change(repeatable=True)
    async def remove(self, reservation: Reservation) -> None:
        """Make the reservation not exist.

        Raises:
            NotFound: there was none.
            Rejected: the server does not let it be removed; nothing was changed.
            Unavailable, Misconfigured: as for ``add``.
        """


SHOWN: Sequence[str] = ("hostname", "hardware_type", "filename", "nextServer")
"""Options of a reservation in the order in which they are told; what else there is follows."""


def ordered(options: Options) -> dict[str, Any]:
    """Return a reservation's options in the order in which they are told, absent ones left out."""
    first = {name: options[name] for name in SHOWN if options.get(name) is not None}
    return first | {name: value for name, value in options.items() if name not in SHOWN and value is not None}


def same(held: Reservation, wanted: Reservation) -> bool:
    """Whether a server has a reservation as it is wanted. Whatever it has added of its own is no difference."""
    theirs, ours = _plain(held), _plain(wanted)
    names = (held.name.lower(), str(theirs.pop("hostname", held.name)).lower())
    if names != (wanted.name.lower(), str(ours.pop("hostname", wanted.name)).lower()):
        return False
    how = [
        (r.ip, r.mac, o.pop("filename", None), o.pop("nextServer", None)) for r, o in ((held, theirs), (wanted, ours))
    ]
    # What the server has dropped it would drop again; what it has with another value is another reservation.
    return how[0] == how[1] and all(theirs.get(name, value) == value for name, value in ours.items())


def _plain(one: Reservation) -> dict[str, Any]:
    """Return its options without the vendor that some are for."""
    given = without_vendors(one.options)
    return {k: str(v) if isinstance(v, dict | list) else v for k, v in given.items() if v is not None}


def without_vendors(options: Options) -> dict[str, Any]:
    """Return options under their bare names: ``root_path_name`` for ``<Sun-Fire-V210>root_path_name``."""
    return {_VENDOR.sub("", name): value for name, value in options.items()}
