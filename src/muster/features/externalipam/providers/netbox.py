"""NetBox: VRFs are groups, prefixes subnets, over its REST API. Unproven: see ``UNPROVEN``.

Every question goes to NetBox, so nothing of it is stale. Source: docs/facts/externalipam.md §4.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from muster.features.externalipam import rest, shapes
from muster.features.externalipam.contract import Group, IPAddress, IPNetwork, Subnet, only
from muster.features.externalipam.rest import REST, Said
from muster.features.externalipam.settings import NetBoxSettings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import MACAddress, shown
from muster.kernel.secrets import Secret

_PAGE = 500
_MOST_PAGES = 200
# NetBox gives no more at once, whatever is asked for (its MAX_PAGE_SIZE).
_MOST_FREE = 1000
_DESCRIPTION = "Added by Foreman"
# What tokens of NetBox 4.5 and later begin with, which are shown in another way.
_NEW_TOKEN = "nbt_"  # noqa: S105

Fields = Mapping[str, Any]


class NetBoxIPAM:
    """One NetBox. A space is a VRF, or the global table."""

    def __init__(self, api: REST, token: Secret) -> None:
        self._api = api
        self._token = token

    async def reached(self) -> None:
        said = await self._asked("GET", "ipam/vrfs/", {"limit": "1"})
        if not isinstance(said, dict) or "results" not in said:
            raise Unavailable(f"{self._api.url} answered no page to GET ipam/vrfs/: {shown(said)}")

    async def groups(self) -> Sequence[Group]:
        return [self._group(v) for v in await self._all("ipam/vrfs/", {})]

    async def subnets(self, group: str) -> Sequence[Subnet]:
        vrf = await self._vrf(group)
        found = await self._all("ipam/prefixes/", {"status": "active", "vrf_id": str(vrf)})
        return [self._subnet(p, group) for p in found]

    async def subnet(self, network: IPNetwork, group: str) -> Subnet:
        wanted = {"status": "active", "prefix": str(network)}
        if group:
            wanted["vrf_id"] = str(await self._vrf(group))
        told = [self._subnet(p, group) for p in await self._all("ipam/prefixes/", wanted)]
        found = [s for s in told if s.network == network]
        return only([s for s in found if s.space == ""] or found, network, "VRF")

    async def holds(self, subnet: Subnet, ip: IPAddress) -> bool:
        return bool(await self._addresses(subnet, ip))

    async def free(self, subnet: Subnet, but: Collection[IPAddress], at_most: int) -> Sequence[IPAddress]:
        # Those that are promised stand among the lowest: as many more are asked for.
        limit = min(len(but) + at_most, _MOST_FREE)
        path = f"ipam/prefixes/{subnet.id}/available-ips/"
        said = await self._asked("GET", path, {"limit": str(limit)})
        if not isinstance(said, list):
            raise Unavailable(f"{self._api.url} answered no list to GET {path}: {shown(said)}")
        told = [self._address(one.get("address") if isinstance(one, dict) else None) for one in said]
        low, high = subnet.span
        found = sorted((ip for ip in told if ip not in but and low <= int(ip) <= high), key=int)
        if not found and len(told) >= _MOST_FREE:
            raise Unavailable(f"The {len(told)} lowest free addresses of {subnet} are all promised; try again later")
        return found[:at_most]

    async def offered(self, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:  # noqa: ARG002
        # It makes an address of what it offers by POST, and names the same one again by GET.
        raise Unsupported("NetBox keeps no promise of an address")

    async def add(self, subnet: Subnet, ip: IPAddress, mac: MACAddress | None) -> None:
        content: dict[str, Any] = {
            "address": f"{ip}/{subnet.network.prefixlen}",
            "status": "active",
            "description": f"{_DESCRIPTION}, {mac}" if mac else _DESCRIPTION,
        }
        if subnet.space:
            content["vrf"] = int(subnet.space)
        await self._asked("POST", "ipam/ip-addresses/", {}, content)

    async def remove(self, subnet: Subnet, ip: IPAddress) -> None:
        found = await self._addresses(subnet, ip)
        if not found:
            raise NotFound(f"{ip} is not in use in {subnet}")
        # Several where NetBox does not mind: none is in use afterwards.
        for one in found:
            await self._asked("DELETE", f"ipam/ip-addresses/{self._id(one)}/", {})

    async def _addresses(self, subnet: Subnet, ip: IPAddress) -> list[Fields]:
        found = await self._all("ipam/ip-addresses/", {"address": str(ip)})
        # The filter of VRFs is none that every version has for the global table.
        return [a for a in found if self._space(a) == subnet.space and self._address(a.get("address")) == ip]

    async def _vrf(self, name: str) -> int:
        found = [v for v in await self._all("ipam/vrfs/", {"name": name}) if v.get("name") == name]
        if not found:
            raise NotFound(f"NetBox has no VRF {shown(name)}")
        if len(found) > 1:
            raise Rejected(f"NetBox has {len(found)} VRFs {shown(name)}; give them names of their own")
        return self._id(found[0])

    def _group(self, one: Fields) -> Group:
        return shapes.to_group(one, f"What {self._api.url} has among its VRFs")

    def _subnet(self, one: Fields, group: str) -> Subnet:
        try:
            network = ipaddress.ip_network(str(one.get("prefix")))
        except ValueError:
            raise Unavailable(f"{self._api.url} has a prefix that is none: {shown(one.get('prefix'))}") from None
        return Subnet(network, self._space(one), shapes.text(one.get("description")), self._id(one), group)

    def _space(self, one: Fields) -> str:
        vrf = one.get("vrf")
        return str(self._id(vrf)) if isinstance(vrf, dict) else ""

    def _id(self, one: Fields) -> int:
        found = one.get("id")
        if not isinstance(found, int) or isinstance(found, bool):
            raise Unavailable(f"{self._api.url} named something without a number: {shown(one)}")
        return found

    def _address(self, said: Any) -> IPAddress:
        try:
            return ipaddress.ip_interface(str(said)).ip
        except ValueError:
            raise Unavailable(f"{self._api.url} has an address that is none: {shown(said)}") from None

    async def _all(self, path: str, wanted: Mapping[str, str]) -> list[Fields]:
        """Return all that there is of a kind, page by page.

        By number: where NetBox says that the next one is may be anywhere, and the token would go there.
        """
        found: list[Fields] = []
        for _ in range(_MOST_PAGES):
            said = await self._asked("GET", path, {**wanted, "limit": str(_PAGE), "offset": str(len(found))})
            match said:
                case {"count": int(count), "results": list(page)} if all(isinstance(one, dict) for one in page):
                    found += page
                    if len(found) >= count or not page:
                        return found
                case _:
                    raise Unavailable(f"{self._api.url} answered no page to GET {path}: {shown(said)}")
        raise Unavailable(f"{self._api.url} has more than {_PAGE * _MOST_PAGES} at {path}")

    async def _asked(self, method: str, path: str, query: Mapping[str, str], content: Fields | None = None) -> Any:
        """Send one call and return what it answers; the one place where its refusals become ours."""
        token = self._token.reveal()
        scheme = "Bearer" if token.startswith(_NEW_TOKEN) else "Token"
        headers = {"Authorization": f"{scheme} {token}"}
        said = await self._api.ask(method, path, query, document=content, headers=headers)
        if said.status < 300:
            return said.content
        raise _refusal(said)


def _refusal(said: Said) -> MusterError:
    words = f"{said.target} was answered {said.status}: {shown(said.content, 200)}"
    if said.status in (401, 403):
        return Misconfigured(f"{words}; the token is refused, or has no right to it")
    if said.is_passing:
        return Unavailable(words)
    if said.status == 404:
        return NotFound(words)
    if said.status == 409 or (said.status == 400 and "uplicate" in str(said.content)):
        return Conflict(words)
    return Rejected(words)


@asynccontextmanager
async def opened(settings: NetBoxSettings) -> AsyncIterator[NetBoxIPAM]:
    """Yield the provider.

    Raises:
        Misconfigured: the token's or the CA's file cannot be read.
    """
    token = rest.secret_of(settings.token, settings.token_file, "NetBox' token")
    async with rest.opened(settings.url, "/api/", ca=settings.ca, timeout_s=settings.timeout_s) as api:
        yield NetBoxIPAM(api, token)
