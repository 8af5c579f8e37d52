"""phpIPAM: sections are groups, over its API. Unproven: see ``UNPROVEN``.

A token is fetched with the account's password and kept until phpIPAM refuses it. Source: docs/facts/externalipam.md §5.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from muster.features.externalipam import rest, shapes
from muster.features.externalipam.contract import Group, IPAddress, IPNetwork, Subnet, lowest, only
from muster.features.externalipam.rest import REST, Said
from muster.features.externalipam.settings import PhpIPAMSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import MACAddress, shown
from muster.kernel.secrets import Secret

_DESCRIPTION = "Added by Foreman"


class PhpIPAM:
    """One phpIPAM. A space is a section."""

    def __init__(self, api: REST, user: str, password: Secret) -> None:
        self._api = api
        self._user = user
        self._password = password
        self._token: Secret | None = None
        self._fetching = asyncio.Lock()

    async def reached(self) -> None:
        await self._list("sections/")

    async def groups(self) -> Sequence[Group]:
        return [
            shapes.to_group(s, f"What {self._api.url} has among its sections") for s in await self._list("sections/")
        ]

    async def subnets(self, group: str) -> Sequence[Subnet]:
        # Found by name among all: no name stands in a path.
        found = [g for g in await self.groups() if g.name == group]
        if not found:
            raise NotFound(f"phpIPAM has no section {shown(group)}")
        section = found[0].id
        if section is None:
            raise Unavailable(f"{self._api.url} has a section without a number: {shown(group)}")
        told = await self._list(f"sections/{section}/subnets/")
        return [self._subnet(s, group, f"section {section}") for s in told if _is_network(s)]

    async def subnet(self, network: IPNetwork, group: str) -> Subnet:
        if group:
            for one in await self.subnets(group):
                if one.network == network:
                    return one
            raise NotFound(f"phpIPAM has no subnet {network} in section {shown(group)}")
        found = await self._list(f"subnets/cidr/{network.network_address}/{network.prefixlen}/")
        told = [self._subnet(s, "", None) for s in found if _is_network(s)]
        return only((s for s in told if s.network == network), network, "section")

    async def holds(self, subnet: Subnet, ip: IPAddress) -> bool:
        return await self._address(subnet, ip) is not None

    async def free(self, subnet: Subnet, but: Collection[IPAddress], at_most: int) -> Sequence[IPAddress]:
        said = await self._asked("GET", f"subnets/{subnet.id}/first_free/")
        if said is None:
            return []
        # Of what is below phpIPAM has an opinion of its own, of ranges for others, for instance.
        first = self._ip(said)
        used = [self._ip(a.get("ip")) for a in await self._list(f"subnets/{subnet.id}/addresses/")]
        return lowest(subnet, [*but, *used], at_most, since=first)

    async def offered(self, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:  # noqa: ARG002
        # It makes an address of its first free one by POST, and names the same one again by GET.
        raise Unsupported("phpIPAM keeps no promise of an address")

    async def add(self, subnet: Subnet, ip: IPAddress, mac: MACAddress | None) -> None:
        content = {"subnetId": str(subnet.id), "ip": str(ip), "description": _DESCRIPTION}
        await self._asked("POST", "addresses/", {**content, "mac": str(mac)} if mac else content)

    async def remove(self, subnet: Subnet, ip: IPAddress) -> None:
        if await self._address(subnet, ip) is None:
            raise NotFound(f"{ip} is not in use in {subnet}")
        await self._asked("DELETE", f"addresses/{ip}/{subnet.id}/")

    async def _address(self, subnet: Subnet, ip: IPAddress) -> Any:
        return await self._asked("GET", f"subnets/{subnet.id}/addresses/{ip}/")

    def _subnet(self, content: Any, group: str, space: str | None) -> Subnet:
        whose = f"What {self._api.url} has among its subnets"
        section = shapes.identity(content.get("sectionId")) if isinstance(content, dict) else None
        found = shapes.to_subnet(content, whose, space=space or f"section {section}", group=group)
        if not str(found.id).isdigit() or (space is None and section is None):
            raise Unavailable(f"{whose} lacks a number: {shown(content)}")
        return found

    def _ip(self, said: Any) -> IPAddress:
        try:
            return ipaddress.ip_address(str(said))
        except ValueError:
            raise Unavailable(f"{self._api.url} has an address that is none: {shown(said)}") from None

    async def _list(self, path: str) -> list[Any]:
        said = await self._asked("GET", path)
        if said is None:
            return []
        if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
            raise Unavailable(f"{self._api.url} answered no list to GET {path}: {shown(said)}")
        return said

    async def _asked(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Send one call and return its data, None when there is nothing there; a token that has ended is fetched anew."""
        token = self._token or await self._fetched(None)
        said = await self._api.ask(method, path, document=content, headers={"token": token.reveal()})
        if said.status in (401, 403):
            token = await self._fetched(token)
            said = await self._api.ask(method, path, document=content, headers={"token": token.reveal()})
        return _data(said, method)

    async def _fetched(self, refused: Secret | None) -> Secret:
        async with self._fetching:
            # Others may have fetched one while this call waited.
            if self._token is not None and self._token is not refused:
                return self._token
            plain = f"{self._user}:{self._password.reveal()}".encode()
            headers = {"Authorization": f"Basic {base64.b64encode(plain).decode('ascii')}"}
            said = await self._api.ask("POST", "user/", headers=headers)
            match said.content:
                case {"data": {"token": str(token)}} if said.status < 300 and token.isascii() and token.isprintable():
                    self._token = Secret(token)
                    return self._token
            if said.is_passing and said.status != 500:
                raise Unavailable(f"{said.target} was answered {said.status}")
            raise Misconfigured(f"{said.target} was answered {said.status}: {_words(said)}; it gave no token")


def _is_network(content: Mapping[str, Any]) -> bool:
    """Whether it is a subnet, and no folder."""
    return str(content.get("isFolder") or "0") != "1"


def _words(said: Said) -> str:
    message = said.content.get("message") if isinstance(said.content, dict) else None
    return shown(message if isinstance(message, str) else said.content, 200)


def _data(said: Said, method: str) -> Any:
    """Return the data of an answer; the one place where refusals become ours.

    phpIPAM says 404 where there is nothing of what was asked for, or 200 with ``success`` false.
    """
    content = said.content
    words = f"{said.target} was answered {said.status}: {_words(said)}"
    if said.status in (401, 403):
        raise Misconfigured(f"{words}; the account has no right to it")
    if said.is_passing:
        raise Unavailable(words)
    if not isinstance(content, dict):
        raise Unavailable(words)
    if said.status < 300 and content.get("success"):
        # A change has a message and perhaps no data.
        return content.get("data") if method == "GET" else content
    if said.status == 404 or said.status < 300:
        if method == "GET":
            return None
        raise (NotFound if method == "DELETE" else Rejected)(words)
    raise (Conflict if said.status == 409 else Rejected)(words)


@asynccontextmanager
async def opened(settings: PhpIPAMSettings) -> AsyncIterator[PhpIPAM]:
    """Yield the provider.

    Raises:
        Misconfigured: the password's or the CA's file cannot be read.
    """
    password = rest.secret_of(settings.password, settings.password_file, "phpIPAM's password")
    base = f"/api/{settings.app or settings.user}/"
    async with rest.opened(settings.url, base, ca=settings.ca, timeout_s=settings.timeout_s) as api:
        yield PhpIPAM(api, settings.user, password)
