"""What Kea's configuration says of subnets and reservations, and the same configuration with other reservations.

Everything else in it is carried along unread, as it was told.

Source: Kea Administrator Reference Manual, "Configuration of the DHCPv4 server"; docs/facts/kea.md; for what Foreman reads
docs/facts/smart-proxy-protocol.md §8.2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.kea import reservations
from muster.features.dhcp.kea.reservations import Host
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.names import MACAddress, shown

Content = Mapping[str, Any]
"""What stands under ``Dhcp4``."""
_NONE = (KeyError, TypeError, ValueError, AttributeError)
# RFC 2132: what Foreman reads, in its order, by the options' numbers.
_OPTIONS = {3: "routers", 15: "domain_name", 6: "domain_name_servers", 42: "ntp_servers", 26: "interface_mtu"}
_NUMBERS = {"routers": 3, "domain-name": 15, "domain-name-servers": 6, "ntp-servers": 42, "interface-mtu": 26}
_MTU = 26
EVERYWHERE = 0
"""Kea's number for what counts in all subnets."""


@dataclass(frozen=True)
class Held:
    """A subnet of Kea's.

    Attributes:
        id: Kea's number for it.
        told: the hosts that stand in the configuration, as they stand there.
        unheeded: what keeps Kea from heeding reservations there, empty when nothing does.
        unheeded_pools: first and last addresses of pools in which it looks for no reservations.
    """

    id: int
    subnet: Subnet
    told: Sequence[Mapping[str, Any]] = ()
    unheeded: str = ""
    unheeded_pools: Sequence[tuple[IPv4Address, IPv4Address]] = ()

    @cached_property
    def hosts(self) -> Sequence[Host]:
        """The hosts that stand in the configuration; read when they are wanted, because there may be thousands.

        Raises:
            Unavailable: they are none.
        """
        return _hosts(self.told, self.id)


@dataclass(frozen=True)
class Configuration:
    """A configuration that was in force when Kea told it.

    Attributes:
        everywhere: hosts of no subnet, as they stand there.
        database: kinds of databases that hold further hosts, as ``postgresql``.
        one_each: whether Kea keeps one reservation an address.
    """

    # Kea tells the passwords of its databases and users in it.
    content: Content = field(repr=False)
    subnets: Sequence[Held]
    everywhere: Sequence[Mapping[str, Any]] = ()
    database: Sequence[str] = ()
    one_each: bool = True

    @property
    def is_of_a_database(self) -> bool:
        """Whether a database has parts of it, which a configuration that is set does not change."""
        control = self.content.get("config-control")
        return bool(isinstance(control, dict) and control.get("config-databases"))

    def of(self, subnet: Subnet) -> Held:
        """Return a subnet with what stands in it.

        Raises:
            NotFound: Kea has it no more.
        """
        found = next((s for s in self.subnets if s.subnet.network == subnet.network), None)
        if found is None:
            raise NotFound(f"Kea has no subnet {subnet}")
        return found

    @cached_property
    def of_all(self) -> Sequence[Host]:
        """The hosts of no subnet; raises as :attr:`Held.hosts`."""
        return _hosts(self.everywhere, EVERYWHERE)

    @property
    def hosts(self) -> Iterator[Host]:
        """Yield all hosts; raises as :attr:`Held.hosts`."""
        yield from self.of_all
        for one in self.subnets:
            yield from one.hosts

    @cached_property
    def by(self) -> Mapping[object, Sequence[Host]]:
        """Hosts by address, by hardware address, and by name in lower case."""
        found: dict[object, list[Host]] = defaultdict(list)
        for one in self.hosts:
            for key in _keys(one):
                found[key].append(one)
        return found

    def among(self, keys: Iterable[object]) -> list[Host]:
        """Return the hosts with one of these addresses, hardware addresses or names, each once."""
        return list({id(one): one for key in keys for one in self.by.get(key, ())}.values())


def _keys(one: Host) -> tuple[object, ...]:
    return tuple(key for key in (one.ip, one.mac, one.name.lower()) if key is not None)


def read(content: Any) -> Configuration:
    """Return what a configuration says.

    Raises:
        Unavailable: it is none of Kea's.
    """
    try:
        return _read(content)
    except _NONE as e:
        raise _strange(e) from e


def _hosts(told: Sequence[Mapping[str, Any]], number: int) -> Sequence[Host]:
    try:
        return [reservations.host(one, number) for one in told]
    except _NONE as e:
        raise _strange(e) from e


def _strange(error: Exception) -> Unavailable:
    what = shown(f"{type(error).__name__}: {error}", 200)
    return Unavailable(f"What Kea tells is no configuration of DHCPv4 as it is known here: {what}")


def without_hosts(content: Content) -> Content:
    """Return a configuration without reservations, to be compared."""

    def bare(around: Content) -> Content:
        subnets = [{**one, "reservations": ()} for one in around.get("subnet4") or ()]
        return {**around, "subnet4": subnets, "reservations": ()}

    return {**bare(content), "shared-networks": [bare(network) for network in content.get("shared-networks") or ()]}


def _read(content: Content) -> Configuration:
    subnets = [
        _subnet(one, content, shared)
        for shared, inside in ((content, content), *((s, s) for s in content.get("shared-networks") or ()))
        for one in inside.get("subnet4") or ()
    ]
    databases = [*(content.get("hosts-databases") or ()), *filter(None, [content.get("hosts-database")])]
    return Configuration(
        content,
        sorted(subnets, key=lambda s: s.id),
        content.get("reservations") or (),
        [str(one["type"]) for one in databases],
        content.get("ip-reservations-unique") is not False,
    )


def _subnet(one: Mapping[str, Any], everywhere: Content, shared: Content) -> Held:
    levels = (everywhere, shared, one)
    options = _options([level.get("option-data") or () for level in levels])
    pools = [_pool(str(pool["pool"])) for pool in one.get("pools") or ()]
    if pools:
        options["range"] = [str(address) for address in pools[0]]
    # Kea takes the address of any host for a subnet's, and keeps it.
    network = IPv4Network(one["subnet"], strict=False)
    unheeded_pools = pools if _nearest(levels, "reservations-out-of-pool") else ()
    told = one.get("reservations") or ()
    return Held(int(one["id"]), Subnet(network, options), told, _unheeded(levels), unheeded_pools)


def _nearest(levels: Sequence[Content], name: str) -> Any:
    return next((v for level in reversed(levels) if (v := level.get(name)) is not None), None)


def _unheeded(levels: Sequence[Content]) -> str:
    if "hw-address" not in levels[0].get("host-reservation-identifiers", ("hw-address",)):
        return "host-reservation-identifiers is without hw-address"
    return "reservations-in-subnet is false" if _nearest(levels, "reservations-in-subnet") is False else ""


def _options(levels: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return those that Foreman reads; what stands nearer to the subnet counts."""
    found: dict[int, str] = {}
    for one in (one for level in levels for one in level):
        number = one.get("code") or _NUMBERS.get(str(one.get("name")))
        # In another form it stands there as octets.
        if number in _OPTIONS and one.get("space", "dhcp4") == "dhcp4" and one.get("csv-format", True):
            found[number] = str(one.get("data") or "")
    # Kea takes other forms of numbers as well.
    if not found.get(_MTU, "").isdecimal():
        found.pop(_MTU, None)
    return {name: _told(number, found[number]) for number, name in _OPTIONS.items() if found.get(number)}


def _told(number: int, text: str) -> Any:
    values = [value.strip() for value in text.split(",")]
    match _OPTIONS[number]:
        case "interface_mtu":
            return int(text)
        case "domain_name" | "ntp_servers":
            # As the Ruby proxy tells them of ISC's dhcpd: a list of what stands between commas, each a list of words.
            return [[value] for value in values]
        case _:
            return values


def _pool(text: str) -> tuple[IPv4Address, IPv4Address]:
    first, dash, last = text.partition("-")
    if dash:
        return IPv4Address(first.strip()), IPv4Address(last.strip())
    network = IPv4Network(text.strip(), strict=False)
    return network.network_address, network.broadcast_address


class Draft:
    """Changes of reservations, decided on one configuration; its own are seen by those that follow."""

    def __init__(self, on: Configuration) -> None:
        self._on = on
        self._added: dict[int, list[Host]] = defaultdict(list)
        self._written: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self._removed: dict[int, set[tuple[MACAddress, IPv4Address]]] = defaultdict(set)

    @property
    def is_empty(self) -> bool:
        return not any(self._written.values()) and not any(self._removed.values())

    def add(self, wanted: Reservation, related: Collection[MACAddress] = ()) -> None:
        """Make a reservation exist.

        Raises:
            Conflict, Rejected, NotFound: it cannot; nothing is changed.
        """
        number = self._on.of(wanted.subnet).id
        among = self._among(wanted)
        if reservations.is_there(wanted, number, among, related, one_each=self._on.one_each):
            return
        new = reservations.written(wanted)
        self._added[number].append(reservations.host(new, number))
        self._written[number].append(new)

    def remove(self, one: Reservation) -> None:
        """Make a reservation not exist.

        Raises:
            NotFound: there is none.
            Rejected: an administrator has written it.
        """
        number = self._on.of(one.subnet).id
        held = next((h for h in self._among(one) if (h.mac, h.ip) == (one.mac, one.ip)), None)
        if held is None:
            raise NotFound(f"There is no reservation {one}")
        if not held.removable or held.subnet_id != number:
            raise Rejected(f"{held} is static - unable to delete")
        if held in self._added[number]:
            at = self._added[number].index(held)
            del self._added[number][at], self._written[number][at]
        else:
            self._removed[number].add((one.mac, one.ip))

    def _among(self, one: Reservation) -> list[Host]:
        keys = {one.ip, one.mac, one.name.lower()}
        there = [h for h in self._on.among(keys) if (h.mac, h.ip) not in self._removed[h.subnet_id]]
        return [*there, *(h for hosts in self._added.values() for h in hosts if keys & set(_keys(h)))]

    def content(self) -> Content:
        """Return the configuration with the changes; what was given stays as it was."""
        content = self._in(self._on.content)
        if shared := content.get("shared-networks"):
            content = {**content, "shared-networks": [self._in(network) for network in shared]}
        return content

    def _in(self, around: Content) -> Content:
        if not around.get("subnet4"):
            return around
        return {**around, "subnet4": [self._of(one) for one in around["subnet4"]]}

    def _of(self, subnet: Mapping[str, Any]) -> Mapping[str, Any]:
        number = int(subnet["id"])
        if not self._written[number] and not self._removed[number]:
            return subnet
        gone = self._removed[number]
        there = [r for r in subnet.get("reservations") or () if not gone or _who(r, number) not in gone]
        return {**subnet, "reservations": [*there, *self._written[number]]}

    def is_in(self, content: Configuration) -> bool:
        """Whether a configuration has what was added and nothing of what was removed."""
        added = all(
            any((h.mac, h.ip, h.name, h.options) == (a.mac, a.ip, a.name, a.options) for h in content.among([a.mac]))
            for hosts in self._added.values()
            for a in hosts
        )
        gone = {(number, *who) for number, whose in self._removed.items() for who in whose}
        again = {(n, a.mac, a.ip) for n, hosts in self._added.items() for a in hosts}
        return added and not any((h.subnet_id, h.mac, h.ip) in gone - again for h in content.hosts)


def _who(one: Mapping[str, Any], number: int) -> tuple[MACAddress | None, IPv4Address | None]:
    held = reservations.host(one, number)
    return held.mac, held.ip
