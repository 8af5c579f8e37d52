"""The DHCP contract served by another Smart Proxy over REST: location is a setting, not a code path."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from muster.edge import another_proxy
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Record, Records, Reservation, Subnet, same
from muster.foreman.answers import Answer
from muster.foreman.smart_proxy import Form, SmartProxy
from muster.kernel.errors import (
    Conflict,
    Misconfigured,
    MusterError,
    NotFound,
    Rejected,
    Unavailable,
    Unsupported,
)
from muster.kernel.names import MACAddress, shown

# A large subnet: 100,000 leases are 40 MB.
_ANSWER_LIMIT_BYTES = 128 << 20
# Asked one by one, so many at a time; where more are asked for, all records are.
_ONE_BY_ONE = 16
_LARGE = 1 << 18
# What the protocol says where a subnet has nothing there; any other 404 is that of something else.
_NOTHING = re.compile(r"(?:No DHCP records? for|Subnet \S{1,40} could not found)")
_REFUSALS: Mapping[int, type[MusterError]] = {409: Conflict, 501: Unsupported}
T = TypeVar("T")


class SmartProxyDHCP:
    """Asks the other proxy for everything: it keeps the conflict rules, and finds free addresses beside our claims."""

    has_vendor_options = True

    def __init__(self, proxy: SmartProxy) -> None:
        self._proxy = proxy

    async def reached(self) -> None:
        # Its version it tells everybody; this only whom it trusts.
        await self._got("/dhcp")

    async def subnets(self) -> Sequence[Subnet]:
        return await self._read("/dhcp", shapes.to_subnets)

    async def records(self, subnet: Subnet) -> Records:
        return await self._read(_path(subnet), lambda content, whose: shapes.to_records(content, subnet, whose))

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        path = f"{_path(subnet)}/ip/{ip}"
        found = await self._got_if_any(path)
        if found is None:
            return ()
        records = shapes.to_list(found.json(), subnet, self._whose(path))
        if any(r.ip != ip for r in records):
            raise Unavailable(f"{self._whose(path)} is about another address")
        return records

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        path = f"{_path(subnet)}/mac/{mac}"
        found = await self._got_if_any(path)
        if found is None:
            return None
        record = shapes.to_record(found.json(), subnet, self._whose(path))
        if record.mac != mac or record.ip not in subnet.network:
            raise Unavailable(f"{self._whose(path)} is about another machine or subnet: {record}")
        return record

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        if len(among) > _ONE_BY_ONE:
            return {r.ip for r in await self.records(subnet)} & set(among)
        asked = list(among)
        answers = await asyncio.gather(*(self.at(subnet, ip) for ip in asked))
        return {ip for ip, has in zip(asked, answers, strict=True) if has}

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:
        # 501 is Unsupported, as here.
        query = urlencode({"from": str(first), "to": str(last)})
        path = f"{_path(subnet)}/unused_ip"
        found = (await self._got(f"{path}?{query}")).json()
        text = found.get("ip") if isinstance(found, dict) else found
        if text is None:
            return None
        try:
            offered = ipaddress.IPv4Address(text) if isinstance(text, str) else None
        except ValueError:
            offered = None
        if offered is None or not first <= offered <= last:
            raise Unavailable(f"{self._whose(path)} is no address between {first} and {last}: {shown(text)}")
        return offered

    async def as_kept(self, reservation: Reservation) -> Reservation:
        # The other proxy says itself what is the same to it.
        return reservation

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        try:
            await self._asked("POST", _path(reservation.subnet), _form(reservation, related))
        except Conflict:
            # A Ruby proxy says so of the same again, too, as when its first answer was lost.
            held = await self.of(reservation.subnet, reservation.mac)
            if not isinstance(held, Reservation) or not same(held, reservation):
                raise

    async def remove(self, reservation: Reservation) -> None:
        held = await self.of(reservation.subnet, reservation.mac)
        if not isinstance(held, Reservation) or held.ip != reservation.ip:
            raise NotFound(f"{self._proxy.url} has no reservation {reservation}")
        await self._asked("DELETE", f"{_path(reservation.subnet)}/mac/{reservation.mac}")

    async def _read(self, path: str, read: Callable[[Any, str], T]) -> T:
        answer, whose = await self._got(path), self._whose(path)
        if len(answer.text) < _LARGE:
            return read(answer.json(), whose)
        # Of a hundred thousand leases this is a second in which nobody else would have a turn.
        return await asyncio.to_thread(lambda: read(answer.json(), whose))

    async def _got(self, path: str) -> Answer:
        return await self._asked("GET", path)

    async def _got_if_any(self, path: str) -> Answer | None:
        """Return what there is, None where the other proxy says that there is nothing."""
        answer = await self._proxy.ask("GET", path)
        if answer.status == 404 and _NOTHING.match(answer.text):
            return None
        return self._accepted(answer, "GET", path)

    async def _asked(self, method: str, path: str, form: Form | None = None) -> Answer:
        return self._accepted(await self._proxy.ask(method, path, form), method, path)

    def _accepted(self, answer: Answer, method: str, path: str) -> Answer:
        """Return the answer unless it is a refusal; the one place where those become ours."""
        said = f"{self._proxy.url} answered {answer.status} to {method} {path}: {shown(answer.text.strip(), 200)}"
        if answer.status in (401, 403):
            raise Misconfigured(said)
        if 300 <= answer.status < 400:
            # Whoever is sent elsewhere has not been answered, and goes nowhere.
            raise Unavailable(said)
        if answer.status == 404:
            # That it does not serve the feature it says so, too.
            raise Unavailable(f"{said}; it does not serve the feature dhcp, or has no such subnet; nothing was changed")
        if answer.status >= 500 and answer.status != 501:
            raise Unavailable(said if method == "GET" else f"{said}; whether anything was changed is unknown")
        if answer.status >= 300:
            raise _REFUSALS.get(answer.status, Rejected)(said)
        return answer

    def _whose(self, path: str) -> str:
        return f"What {self._proxy.url} answered to GET {path}"


def _path(subnet: Subnet) -> str:
    return f"/dhcp/{quote(str(subnet.network.network_address), safe='')}"


def _form(reservation: Reservation, related: Collection[MACAddress]) -> list[tuple[str, str]]:
    """Return a reservation as Foreman writes it (docs/facts/smart-proxy-protocol.md §8.4)."""
    form = [("name", reservation.name), ("ip", str(reservation.ip)), ("mac", str(reservation.mac))]
    for name, value in reservation.options.items():
        if isinstance(value, dict):
            form += [(f"{name}[{key}]", str(inner)) for key, inner in value.items()]
        elif name != "hardware_type":
            form.append((name, str(value)))
    return [*form, *(("related_macs[]", str(mac)) for mac in sorted(related))]


@asynccontextmanager
async def opened(settings: SmartProxySettings, around: Surroundings) -> AsyncIterator[SmartProxyDHCP]:
    """Yield the provider, presenting this member's certificate to the other proxy; a renewed one is taken up."""
    async with another_proxy.opened(settings, around, answer_limit_bytes=_ANSWER_LIMIT_BYTES) as proxy:
        yield SmartProxyDHCP(proxy)
