"""The two ways hosts that Foreman builds are signed, both with their lists in the store."""

from __future__ import annotations

from muster.authority import csr
from muster.authority.autosign import Autosign
from muster.kernel.errors import NotFound, Rejected, Unsupported


class Hostnames:
    """By name: what is on the list is signed, whoever asks (Ruby: ``puppetca_hostname_whitelisting``)."""

    def __init__(self, autosign: Autosign) -> None:
        self._autosign = autosign

    async def entries(self) -> list[str]:
        return await self._autosign.hosts()

    async def allow(self, certname: str, ttl_min: int | None) -> str | None:  # noqa: ARG002 - names do not end
        await self._autosign.add_host(certname, by="Foreman")
        return None

    async def forbid(self, certname: str) -> None:
        try:
            await self._autosign.remove_host(certname)
        except NotFound as e:
            raise NotFound(f"Attempt to remove nonexistent client autosign for {certname}") from e

    async def permits(self, csr: bytes) -> bool:  # noqa: ARG002 - the protocol's word for it
        raise Unsupported("Provider only supports trivial autosigning")


class Tokens:
    """By token: a host shows the one Foreman got for it, once (Ruby: ``puppetca_token_whitelisting``)."""

    def __init__(self, autosign: Autosign, ttl_min: int) -> None:
        self._autosign = autosign
        self._ttl_min = ttl_min

    async def entries(self) -> list[str]:
        return await self._autosign.tokens()

    async def allow(self, certname: str, ttl_min: int | None) -> str | None:
        return await self._autosign.give_token(certname, ttl_s=60.0 * (ttl_min or self._ttl_min))

    async def forbid(self, certname: str) -> None:
        try:
            await self._autosign.withdraw_token(certname)
        except NotFound:
            # Foreman withdraws after every build, whether the token was used or not.
            return

    async def permits(self, csr_pem: bytes) -> bool:
        try:
            request = csr.read(csr_pem)
        except Rejected:
            return False
        return await self._autosign.takes_token(request)
