"""FreeIPA: hosts with a one-time password, by its JSON API. Unproven: see ``UNPROVEN``.

Source: docs/facts/smart-proxy-protocol.md §14, docs/facts/realm.md §2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from muster.features.realm import kerberos
from muster.features.realm.contract import Account, Wanted
from muster.features.realm.freeipa import config, session
from muster.features.realm.freeipa.session import NothingToDo, Session
from muster.features.realm.settings import FreeIPASettings
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret

_log = logger("features")


class FreeIPARealm:
    """Hosts of one FreeIPA, which makes their passwords itself."""

    def __init__(self, session: Session, *, remove_dns: bool) -> None:
        self._session = session
        self._remove_dns = remove_dns

    async def reached(self) -> None:
        await self._session.call("ping", ())

    async def lookup(self, host: FQDN) -> bool:
        return await self._held(host) is not None

    async def enrol(self, wanted: Wanted) -> Account:
        host, held = str(wanted.host).lower(), await self._held(wanted.host)
        described = {"setattr": [f"userclass={wanted.userclass}"]} if wanted.userclass is not None else {}
        if held is None:
            # Forced, for the host's name is in no DNS yet.
            return _account(await self._session.call("host_add", (host,), {"random": True, "force": True, **described}))
        if wanted.is_rebuilt:
            if held.get("has_keytab") is True:
                await self._session.call("host_disable", (host,))
            return _account(await self._session.call("host_mod", (host,), {"random": True, **described}))
        if not described:
            return Account()
        try:
            return _account(await self._session.call("host_mod", (host,), described), needs_password=False)
        except NothingToDo:
            return Account()

    async def remove(self, realm: str, host: FQDN) -> Mapping[str, Any] | None:  # noqa: ARG002
        name = str(host).lower()
        if not self._remove_dns:
            return await self._session.call("host_del", (name,), {"updatedns": False})
        try:
            return await self._session.call("host_del", (name,), {"updatedns": True})
        except NotFound as e:
            # Of the host, or of a DNS zone.
            if await self._held(host) is None:
                raise
            return await self._without_dns(name, e)
        except Rejected as e:
            return await self._without_dns(name, e)

    async def _without_dns(self, name: str, why: Exception) -> Mapping[str, Any]:
        _log.warning(f"FreeIPA removes {name} without its DNS records: {why}")
        return await self._session.call("host_del", (name,), {"updatedns": False})

    async def _held(self, host: FQDN) -> Mapping[str, Any] | None:
        try:
            found = (await self._session.call("host_show", (str(host).lower(),))).get("result")
        except NotFound:
            return None
        return found if isinstance(found, dict) else {}


def _account(answer: Mapping[str, Any], *, needs_password: bool = True) -> Account:
    found = answer.get("result")
    told = dict(found) if isinstance(found, dict) else {}
    password = told.pop("randompassword", None)
    if isinstance(password, str) and password:
        return Account(Secret(password), told)
    if needs_password:
        raise Unavailable("FreeIPA told no password of the host; it has one that nobody knows")
    return Account(None, told)


@asynccontextmanager
async def opened(settings: FreeIPASettings) -> AsyncIterator[tuple[FreeIPARealm, str]]:
    """Yield the provider and its realm.

    Raises:
        Misconfigured: ``ipa_config`` or FreeIPA's CA cannot be read.
    """
    place = config.read(settings.ipa_config)
    with kerberos.opened(settings, str(place.realm)) as tickets:
        async with session.opened(place, settings, tickets) as known:
            yield FreeIPARealm(known, remove_dns=settings.remove_dns), str(place.realm)
