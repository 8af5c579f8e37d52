"""Rules common to all realm providers: what Foreman's parameters mean, and Foreman's words.

Source: docs/facts/smart-proxy-protocol.md §14.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from muster.edge.feature import Surroundings
from muster.features.realm import providers
from muster.features.realm.contract import RealmProvider, Wanted
from muster.features.realm.settings import RealmSettings
from muster.features.realm.turns import Turns
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.names import FQDN, shown
from muster.policy.chain import chained
from muster.store.leases import Leases

LONGEST_USERCLASS = 255
_NOTHING = {"message": "nothing to do"}


@dataclass(frozen=True)
class Realm:
    """The feature's service: validates, waits for its turn, asks the provider, speaks Foreman's words.

    Attributes:
        realm: the only one it has; None: another proxy knows which it has.
    """

    provider: RealmProvider
    realm: str | None
    turns: Turns

    async def reached(self) -> None:
        """Return when the realm's server lets us in; the provider's error says why not."""
        await self.provider.reached()

    async def enrol(
        self, realm: str, hostname: str, userclass: str | None, *, is_rebuilt: bool, is_update: bool
    ) -> Mapping[str, Any]:
        """Make a host one of the realm's and return what is told of it, ``randompassword`` included where one was set.

        Raises:
            Rejected: a parameter is malformed, the realm is another one, or the server refuses.
            Conflict: another call changes the host, or its account is another host's.
        """
        wanted = Wanted(self._known(realm), FQDN.parse(hostname), _class(userclass), is_rebuilt, is_update)
        async with self.turns.turn(wanted.host, is_patient=is_update and not is_rebuilt):
            account = await self.provider.enrol(wanted)
        if account.is_as_it_was:
            return _NOTHING
        if account.password is None:
            return account.told
        return {**account.told, "randompassword": account.password.reveal()}

    async def remove(self, realm: str, hostname: str) -> Mapping[str, Any] | None:
        """Take a host from the realm.

        Raises:
            NotFound: in Foreman's words; Foreman takes it for done.
        """
        known, host = self._known(realm), FQDN.parse(hostname)
        async with self.turns.turn(host, is_patient=True):
            try:
                return await self.provider.remove(known, host)
            except NotFound as e:
                raise NotFound(f"Host {host} not found in realm") from e

    def _known(self, realm: str) -> str:
        if self.realm is None:
            return FQDN.parse(realm)
        if realm.lower() != self.realm.lower():
            raise Rejected(f"Unknown realm {shown(realm)}")
        return self.realm


def _class(given: str | None) -> str | None:
    if not given:
        return None
    if len(given) > LONGEST_USERCLASS or not given.isprintable():
        raise Rejected(f"Invalid userclass {shown(given)}: at most {LONGEST_USERCLASS} characters on one line")
    return given


@asynccontextmanager
async def opened(settings: RealmSettings, around: Surroundings) -> AsyncIterator[Realm]:
    """Open the provider the settings name, wrapped in its policies."""
    async with providers.opened(settings, around) as (provider, realm):
        word = settings.provider
        policies = around.chains.built("realm", settings.policies, around.operations, label=word, word=word)
        leases = Leases(around.store) if around.store is not None else None
        turns = Turns(leases, around.member, settings.policies.deadline_s)
        yield Realm(chained(RealmProvider, provider, policies), realm, turns)  # type: ignore[type-abstract]
