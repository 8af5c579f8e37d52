"""The IPAM contract served by another Smart Proxy over REST: location is a setting, not a code path."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote_plus, urlencode

from muster.edge import another_proxy
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.features.externalipam import rest, shapes
from muster.features.externalipam.contract import Group, IPAddress, IPNetwork, Subnet
from muster.foreman.answers import Answer
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.documents import values_in
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

_REFUSALS: Mapping[int, type[MusterError]] = {404: NotFound, 409: Conflict, 501: Unsupported}


class SmartProxyIPAM:
    """Asks the other proxy for everything: it promises addresses, beside us. A space is a group."""

    def __init__(self, proxy: SmartProxy) -> None:
        self._proxy = proxy

    async def reached(self) -> None:
        # Its version it tells everybody; this only whom it trusts.
        await self._asked("GET", "/ipam/groups")

    async def groups(self) -> Sequence[Group]:
        return [shapes.to_group(g, self._whose("/ipam/groups")) for g in await self._list("/ipam/groups")]

    async def subnets(self, group: str) -> Sequence[Subnet]:
        # As Foreman writes it there.
        path = f"/ipam/groups/{quote_plus(group)}/subnets"
        return [shapes.to_subnet(s, self._whose(path), space=group, group=group) for s in await self._list(path)]

    async def subnet(self, network: IPNetwork, group: str) -> Subnet:
        path = _path(network, group)
        content = await self._asked("GET", path)
        found = shapes.to_subnet(content, self._whose(path), space=group, group=group)
        if found.network != network:
            raise Unavailable(f"{self._whose(path)} is another subnet: {found.network}")
        return found

    async def holds(self, subnet: Subnet, ip: IPAddress) -> bool:
        path = _path(subnet.network, subnet.group, f"/{ip}")
        # Bare, as the plugin says it; in an object, as Foreman understands it as well.
        match await self._asked("GET", path):
            case bool(said) | {"result": bool(said)}:
                return said
            case other:
                raise Unavailable(f"{self._whose(path)} is neither true nor false: {shown(other)}")

    async def free(self, subnet: Subnet, but: Collection[IPAddress], at_most: int) -> Sequence[IPAddress]:  # noqa: ARG002
        raise Unsupported("Another Smart Proxy tells of one free address at a time, and promises it")

    async def offered(self, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:
        path = _path(subnet.network, subnet.group, "/next_ip", {"mac": str(mac)} if mac else {})
        try:
            content = await self._asked("GET", path)
        except NotFound:
            return None
        said = content.get("data") if isinstance(content, dict) else None
        try:
            return ipaddress.ip_address(str(said))
        except ValueError:
            raise Unavailable(f"{self._whose(path)} has no address: {shown(content)}") from None

    async def add(self, subnet: Subnet, ip: IPAddress, mac: MACAddress | None) -> None:  # noqa: ARG002
        await self._asked("POST", _path(subnet.network, subnet.group, f"/{ip}"))

    async def remove(self, subnet: Subnet, ip: IPAddress) -> None:
        if not await self.holds(subnet, ip):
            raise NotFound(f"{ip} is not in use in {subnet}")
        await self._asked("DELETE", _path(subnet.network, subnet.group, f"/{ip}"))

    async def _list(self, path: str) -> list[Any]:
        content = await self._asked("GET", path)
        if not isinstance(content, list):
            raise Unavailable(f"{self._whose(path)} is no list: {shown(content)}")
        return content

    async def _asked(self, method: str, path: str) -> Any:
        """Return what it answered; the one place where its refusals become ours."""
        answer = await self._proxy.ask(method, path)
        content = _content(answer)
        said = f"{self._proxy.url} answered {answer.status} to {method} {path}: {shown(answer.text.strip(), 200)}"
        if answer.status in (401, 403):
            raise Misconfigured(said)
        if 300 <= answer.status < 400:
            # Whoever is sent elsewhere has not been answered, and goes nowhere.
            raise Unavailable(said)
        refusal = content.get("error") if isinstance(content, dict) else None
        if answer.status == 404 and refusal is None:
            # A refusal of the feature is JSON; anything else is that of a proxy without it.
            raise Unavailable(f"{said}; it does not serve the feature externalipam")
        if answer.status >= 500 and answer.status != 501:
            raise Unavailable(said if method == "GET" else f"{said}; whether anything was changed is unknown")
        if answer.status >= 300:
            raise _REFUSALS.get(answer.status, Rejected)(said)
        if refusal:
            raise Unavailable(said)
        if content is None and answer.text.strip():
            raise Unavailable(f"{said}, which is no JSON, or has more than {rest.MOST_VALUES} values")
        return content

    def _whose(self, path: str) -> str:
        return f"What {self._proxy.url} answered to GET {path}"


def _content(answer: Answer) -> Any:
    if values_in(answer.text) > rest.MOST_VALUES:
        return None
    try:
        return json.loads(answer.text)
    except (ValueError, RecursionError):
        return None


def _path(network: IPNetwork, group: str, below: str = "", query: Mapping[str, str] = {}) -> str:
    asked = urlencode({**query, "group": group} if group else dict(query))
    return f"/ipam/subnet/{network.network_address}/{network.prefixlen}{below}" + (f"?{asked}" if asked else "")


@asynccontextmanager
async def opened(settings: SmartProxySettings, around: Surroundings) -> AsyncIterator[SmartProxyIPAM]:
    """Yield the provider, presenting this member's certificate to the other proxy; a renewed one is taken up."""
    async with another_proxy.opened(settings, around, answer_limit_bytes=rest.ANSWER_LIMIT_BYTES) as proxy:
        yield SmartProxyIPAM(proxy)
