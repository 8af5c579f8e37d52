"""The DNS contract served by another Smart Proxy over REST: location is a setting, not a code path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from muster.edge import another_proxy
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.edge.replies import NOT_FOUND_TEXT
from muster.features.dns.contract import Data, NoZone, Record, RecordType
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import NotFound, Unavailable, Unsupported
from muster.kernel.names import FQDN, ServiceName, shown


class SmartProxyDNS:
    """Sends every change to the other proxy, which keeps the conflict rules."""

    def __init__(self, proxy: SmartProxy) -> None:
        self._proxy = proxy

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:  # noqa: ARG002
        raise Unsupported("The Smart Proxy protocol has no call that looks a record up")

    async def reached(self) -> None:
        await self._proxy.call("GET", "/version")

    async def add(self, record: Record) -> None:
        # A PTR's owner travels as the value and its data as the name (docs/facts/smart-proxy-protocol.md §7.1).
        fqdn, value = (record.data, record.name) if record.type is RecordType.PTR else (record.name, record.data)
        form = {"fqdn": str(fqdn), "value": str(value), "type": record.type.value}
        try:
            await self._proxy.call("POST", "/dns/", form)
        except NotFound as e:
            raise self._without_dns() from e

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        path = f"/dns/{quote(name, safe='')}/{type.value}"
        answer = await self._proxy.ask("DELETE", path)
        if answer.status == 404:
            # A Ruby proxy without the feature says so in the words of an unknown route; the record may well be there.
            if answer.text.strip() == NOT_FOUND_TEXT:
                raise self._without_dns()
            raise NoZone(f"{self._proxy.url} answered 404 to DELETE {path}: {shown(answer.text.strip())}")
        answer.accepted(self._proxy.url, "DELETE", path)

    def _without_dns(self) -> Unavailable:
        return Unavailable(f"{self._proxy.url} does not serve the feature dns; nothing was changed there")


@asynccontextmanager
async def opened(settings: SmartProxySettings, around: Surroundings) -> AsyncIterator[SmartProxyDNS]:
    """Yield the provider, presenting this member's certificate to the other proxy; a renewed one is taken up."""
    async with another_proxy.opened(settings, around) as proxy:
        yield SmartProxyDNS(proxy)
