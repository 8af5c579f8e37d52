"""The DHCP contract served by another Smart Proxy over REST: location is a setting, not a code path."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import quote, urlencode

from muster.edge import another_proxy
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.edge.replies import NOT_FOUND_TEXT
from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Record, Records, Reservation, Subnet
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import NotFound, Unavailable
from muster.kernel.names import MACAddress, shown

# A large subnet: 100,000 leases are 40 MB.
_ANSWER_LIMIT_BYTES = 128 << 20
# Asked one by one, so many at a time; where more are asked for, all records are.
_ONE_BY_ONE = 16


class SmartProxyDHCP:
    """Asks the other proxy for everything: it keeps the conflict rules, and finds free addresses beside our claims."""

    has_vendor_options = True

    def __init__(self, proxy: SmartProxy) -> None:
        self._proxy = proxy

    async def reached(self) -> None:
        await self._proxy.call("GET", "/version")

    async def subnets(self) -> Sequence[Subnet]:
        return shapes.to_subnets(await self._got("/dhcp"), self._whose("/dhcp"))

    async def records(self, subnet: Subnet) -> Records:
        path = _path(subnet)
        return shapes.to_records(await self._got(path), subnet, self._whose(path))

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        path = f"{_path(subnet)}/ip/{ip}"
        found = await self._got_if_any(path)
        return shapes.to_list(found, subnet, self._whose(path)) if found is not None else ()

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        path = f"{_path(subnet)}/mac/{mac}"
        found = await self._got_if_any(path)
        return shapes.to_record(found, subnet, self._whose(path)) if found is not None else None

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
        found = await self._got(f"{path}?{query}")
        text = found.get("ip") if isinstance(found, dict) else found
        if text is None:
            return None
        try:
            return ipaddress.IPv4Address(text)
        except ValueError:
            raise Unavailable(f"{self._whose(path)} is no address: {shown(text)}") from None

    async def as_kept(self, reservation: Reservation) -> Reservation:
        # The other proxy says itself what is the same to it.
        return reservation

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        form = _form(reservation, related)
        try:
            await self._proxy.call("POST", _path(reservation.subnet), form)
        except NotFound as e:
            raise self._without_dhcp() from e

    async def remove(self, reservation: Reservation) -> None:
        path = f"{_path(reservation.subnet)}/mac/{reservation.mac}"
        if await self.of(reservation.subnet, reservation.mac) is None:
            raise NotFound(f"{self._proxy.url} has no reservation {reservation}")
        try:
            await self._proxy.call("DELETE", path)
        except NotFound as e:
            raise self._without_dhcp() from e

    async def _got(self, path: str) -> Any:
        try:
            return (await self._proxy.call("GET", path)).json()
        except NotFound as e:
            raise self._without_dhcp() from e

    async def _got_if_any(self, path: str) -> Any:
        """Return what there is, None where the other proxy says that there is nothing."""
        answer = await self._proxy.ask("GET", path)
        if answer.status == 404 and answer.text.strip() != NOT_FOUND_TEXT:
            return None
        if answer.status == 404:
            raise self._without_dhcp()
        return answer.accepted(self._proxy.url, "GET", path).json()

    def _whose(self, path: str) -> str:
        return f"What {self._proxy.url} answered to GET {path}"

    def _without_dhcp(self) -> Unavailable:
        return Unavailable(
            f"{self._proxy.url} does not serve the feature dhcp, or has no such subnet; nothing was changed"
        )


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
