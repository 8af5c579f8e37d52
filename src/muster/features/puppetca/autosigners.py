"""The two ways hosts that Foreman builds are signed, both with their lists in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from muster.authority.autosign import Autosign
from muster.authority.x509 import csr
from muster.features.puppetca.autosign_file import AutosignFile
from muster.features.puppetca.contract import Autosigner
from muster.features.puppetca.settings import PuppetCASettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected
from muster.kernel.log import logger

_log = logger("features")

_FOLLOW_S = 2.0


Opening = AbstractAsyncContextManager[Autosigner]


def opened(settings: PuppetCASettings, autosign: Autosign) -> Opening:
    """Yield the autosigner the settings name; its file, if it has one, follows the list meanwhile."""
    return AUTOSIGNERS[settings.autosigner](settings, autosign)


class Hostnames:
    """By name: what is on the list is signed, whoever asks (Ruby: ``puppetca_hostname_whitelisting``).

    A puppetserver learns the list by asking (``muster-autosign``), or from a file that :meth:`following` keeps.
    """

    def __init__(self, autosign: Autosign, file: AutosignFile | None = None, clock: Clock | None = None) -> None:
        self._autosign = autosign
        self._file = file
        self._clock = clock or SystemClock()
        self._turn = asyncio.Lock()
        self._withheld: dict[str, str] = {}

    async def reached(self) -> None:
        if self._file is not None and self._file.trouble:
            raise Misconfigured(self._file.trouble)

    async def entries(self) -> list[str]:
        return await self._autosign.hosts()

    async def allow(self, certname: str, ttl_min: int | None) -> str | None:  # noqa: ARG002 - names do not end
        if self._file is not None and "*" in certname and (given := self._autosign.given_away(certname)):
            raise Rejected(
                f"{certname} would have the puppetserver sign {given}, a name of the cluster's own; let hosts be signed by "
                "their names, or have it ask: autosign = muster-autosign"
            )
        await self._autosign.add_host(certname, by="Foreman")
        await self.follow()
        return None

    async def forbid(self, certname: str) -> None:
        try:
            await self._autosign.remove_host(certname)
        except NotFound as e:
            raise NotFound(f"Attempt to remove nonexistent client autosign for {certname}") from e
        await self.follow()

    async def permits(self, csr_pem: bytes) -> bool:
        try:
            request = csr.read(csr_pem)
            # ``*`` lets every host through, not what is none.
            csr.refuse_subject(request, request.name)
        except Rejected:
            return False
        return await self._autosign.lists(request)

    async def follow(self) -> None:
        """Bring the file to what the list says now.

        Raises:
            Unavailable: the store did not answer.
        """
        if self._file is None:
            return
        # One after another: an older list must not replace a newer one.
        async with self._turn:
            hosts = await self._autosign.hosts()
            # The file knows no exceptions: an entry that would sign a reserved name cannot stand there.
            withheld = {h: name for h in hosts if (name := self._autosign.given_away(h))}
            if withheld != self._withheld:
                self._withheld = withheld
                for entry, name in withheld.items():
                    _log.warning("An autosign entry is kept from the puppetserver's file", entry=entry, would_sign=name)
            await self._file.hold([h for h in hosts if h not in withheld])

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Hold the file at what any member was told, for the length of the block."""
        if self._file is None:
            yield
            return
        task = asyncio.create_task(self._follow(), name="autosign file")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                await self.follow()
            except MusterError as e:
                # The store says its own trouble; the file keeps the last list.
                _log.debug("The autosign file was not compared with the list", why=str(e))
            except Exception:  # noqa: BLE001 - boundary: a bug met once must not end the following
                _log.exception("The autosign file could not follow the list")
            await self._clock.sleep(_FOLLOW_S)


class Tokens:
    """By token: a host shows the one Foreman got for it, once (Ruby: ``puppetca_token_whitelisting``)."""

    def __init__(self, autosign: Autosign, ttl_min: int) -> None:
        self._autosign = autosign
        self._ttl_min = ttl_min

    async def reached(self) -> None:
        return

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


@asynccontextmanager
async def _hostnames(settings: PuppetCASettings, autosign: Autosign) -> AsyncIterator[Autosigner]:
    names = Hostnames(autosign, AutosignFile(settings.autosign_file) if settings.autosign_file else None)
    async with names.following():
        yield names


def _tokens(settings: PuppetCASettings, autosign: Autosign) -> Opening:
    return nullcontext(Tokens(autosign, settings.token_ttl_min))


AUTOSIGNERS: Mapping[str, Callable[[PuppetCASettings, Autosign], Opening]] = {
    "hostnames": _hostnames,
    "tokens": _tokens,
}
