"""Foreman's words around a Puppet CA and an autosigner. Source: docs/facts/smart-proxy-protocol.md §12."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from muster.edge.feature import Surroundings, said
from muster.features.puppetca import providers
from muster.features.puppetca.contract import Autosigner, CAProvider
from muster.features.puppetca.settings import PuppetCASettings
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected
from muster.kernel.names import shown
from muster.policy.chain import chained

_CERTNAME = re.compile(r"[A-Za-z0-9_.-]{1,253}\Z")
_LEADING_NUMBER = re.compile(r"\s*\+?([0-9](?:_?[0-9]){0,19})")
_LONGEST_TTL_MIN = 525_600


@dataclass(frozen=True)
class PuppetCAFeature:
    """The feature's service.

    Attributes:
        unheeded: says why the CA passes over what the autosigner lets be signed; empty when it does not.
    """

    ca: CAProvider
    autosigner: Autosigner
    unheeded: Callable[[], str] = str

    async def reached(self) -> None:
        """Return when the CA answers, and signs whom the autosigner lets.

        Raises:
            Unavailable: it does not answer.
            Misconfigured: what Foreman lets be signed has no effect.
        """
        await self.ca.reached()
        if why := self.unheeded():
            raise Misconfigured(why)
        await self.autosigner.reached()

    async def certificates(self) -> dict[str, dict[str, Any]]:
        """Return what Foreman shows, by certname."""
        try:
            return {c.name: c.as_json() for c in await self.ca.list()}
        except MusterError as e:
            raise said("Failed to list certificates", e) from e

    async def sign(self, certname: str) -> None:
        """Sign a pending request."""
        try:
            await self.ca.sign(_checked(certname).lower())
        except MusterError as e:
            raise said(f"Failed to sign certificate(s) for {shown(certname)}", e) from e

    async def clean(self, certname: str) -> None:
        """Revoke and remove; nothing there is success."""
        try:
            # Certnames are lower case, whoever types a host's name; an import may have brought one that is not.
            for name in dict.fromkeys((_checked(certname).lower(), certname)):
                await self.ca.clean(name)
        except MusterError as e:
            raise said(f"Failed to remove certificate(s) for {shown(certname)}", e) from e

    async def entries(self) -> list[str]:
        """Return the autosign list."""
        try:
            return await self.autosigner.entries()
        except MusterError as e:
            raise said("Failed to list autosign entries", e) from e

    async def allow(self, certname: str, ttl_min: str | None) -> str | None:
        """Let a name be signed; return its token, if it needs one."""
        try:
            return await self.autosigner.allow(certname, _minutes(ttl_min))
        except MusterError as e:
            raise said(f"Failed to enable autosign for {shown(certname)}", e) from e

    async def forbid(self, certname: str) -> None:
        """Let a name be signed no more."""
        try:
            await self.autosigner.forbid(certname)
        except NotFound:
            raise
        except MusterError as e:
            raise said(f"Failed to remove autosign for {shown(certname)}", e) from e

    async def permits(self, csr: bytes) -> bool:
        """Whether a request may be signed now."""
        try:
            return await self.autosigner.permits(csr)
        except MusterError as e:
            raise said("Failed to validate CSR", e) from e


def _checked(certname: str) -> str:
    if not _CERTNAME.match(certname):
        raise Rejected(f"{shown(certname)} is no certname")
    return certname


def _minutes(text: str | None) -> int | None:
    """Return a time to live as Ruby's ``to_i`` reads it: a leading number counts. None means the default."""
    found = _LEADING_NUMBER.match(text) if text else None
    return min(int(found[1]), _LONGEST_TTL_MIN) or None if found else None


@asynccontextmanager
async def opened(settings: PuppetCASettings, around: Surroundings) -> AsyncIterator[PuppetCAFeature]:
    """Yield the service with its CA open.

    Raises:
        Misconfigured: its settings cannot work.
    """
    from muster.authority.autosign import Autosign
    from muster.authority.reserved import Reserved
    from muster.cluster.file import Authority
    from muster.features.puppetca import autosigners

    if around.store is None:
        raise Misconfigured("The Puppet CA feature needs the cluster's store")
    autosign = Autosign(around.store, Authority(), Reserved.of(around.cluster) if around.cluster else None)
    policies = around.chains.built(
        "puppetca", settings.policies, around.operations, label=f"puppetca/{settings.provider}", word=settings.provider
    )
    async with providers.opened(settings, around) as provider, autosigners.opened(settings, autosign) as own:
        ca = chained(CAProvider, provider, policies)  # type: ignore[type-abstract]
        autosigner = chained(Autosigner, own, policies)  # type: ignore[type-abstract]
        yield PuppetCAFeature(ca, autosigner, lambda: _unheeded(settings, around))


def _unheeded(settings: PuppetCASettings, around: Surroundings) -> str:
    # Asked each time: the CA opens after the features, and its settings are known with it.
    ca = around.authority() if settings.provider == "authority" and around.authority is not None else None
    # A program that decides may ask us: muster-autosign does.
    if ca is None or {settings.autosigner, "all", "policy"} & set(ca.settings.autosign):
        return ""
    return (
        f"Hosts that Foreman lets be signed wait for an administrator: autosigner is {settings.autosigner}, and "
        f"authority.autosign [{', '.join(ca.settings.autosign)}] does not name it"
    )
