"""The realm contract served by another Smart Proxy over REST; it knows the realms it has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from muster.edge import another_proxy
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.edge.replies import NOT_FOUND_TEXT
from muster.features.realm.contract import Account, Wanted
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import NotFound, Unavailable, Unsupported
from muster.kernel.names import FQDN, shown
from muster.kernel.secrets import Secret


class SmartProxyRealm:
    """Sends every change to the other proxy."""

    def __init__(self, proxy: SmartProxy) -> None:
        self._proxy = proxy

    async def reached(self) -> None:
        await self._proxy.call("GET", "/version")

    async def lookup(self, host: FQDN) -> bool:  # noqa: ARG002
        raise Unsupported("The Smart Proxy protocol has no call that looks a host up in its realm")

    async def enrol(self, wanted: Wanted) -> Account:
        form = {"hostname": str(wanted.host)}
        if wanted.userclass is not None:
            form["userclass"] = wanted.userclass
        for name, is_so in (("rebuild", wanted.is_rebuilt), ("update", wanted.is_update)):
            if is_so:
                form[name] = "true"
        try:
            answer = await self._proxy.call("POST", f"/realm/{quote(wanted.realm, safe='')}/", form)
        except NotFound as e:
            raise self._without_realm() from e
        told = answer.json()
        if not isinstance(told, dict):
            # Not shown: what is no object may be a password all the same.
            raise Unavailable(f"{self._proxy.url} answered no object; whether {wanted.host} was changed is unknown")
        password = told.pop("randompassword", None)
        if isinstance(password, str) and password:
            return Account(Secret(password), told)
        return Account() if set(told) == {"message"} else Account(None, told)

    async def remove(self, realm: str, host: FQDN) -> Mapping[str, Any] | None:
        path = f"/realm/{quote(realm, safe='')}/{quote(host, safe='')}"
        answer = await self._proxy.ask("DELETE", path)
        if answer.status == 404:
            # A Ruby proxy without the feature says so in the words of an unknown route; the host may well be there.
            if answer.text.strip() == NOT_FOUND_TEXT:
                raise self._without_realm()
            raise NotFound(f"{self._proxy.url} answered 404 to DELETE {path}: {shown(answer.text.strip())}")
        answer.accepted(self._proxy.url, "DELETE", path)
        told = answer.json() if answer.text.strip() else None
        return told if isinstance(told, dict) else None

    def _without_realm(self) -> Unavailable:
        return Unavailable(f"{self._proxy.url} does not serve the feature realm; nothing was changed there")


@asynccontextmanager
async def opened(settings: SmartProxySettings, around: Surroundings) -> AsyncIterator[SmartProxyRealm]:
    """Yield the provider, presenting this member's certificate to the other proxy; a renewed one is taken up."""
    async with another_proxy.opened(settings, around) as proxy:
        yield SmartProxyRealm(proxy)
