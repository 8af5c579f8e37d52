"""What Foreman is told of a Pulp, and Pulp's word for how it is. Source: docs/facts/smart-proxy-protocol.md §18."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from muster.cluster.sections import Foreman
from muster.edge.feature import Surroundings, Told
from muster.features.pulpcore.contract import PulpProvider, PulpStatus, Said
from muster.features.pulpcore.settings import PulpcoreSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.names import in_url
from muster.kernel.secrets import Secret
from muster.policy.chain import chained

# Anybody may ask for the status, and each answer costs Pulp queries.
_KEPT_S = 2.0
# What a Pulp has changes when it is upgraded.
_CAPABLE_S = 60.0
_PASSWORD_BYTES = 4096


@dataclass(frozen=True)
class Whereabouts:
    """Where one Pulp is.

    Attributes:
        pulp_url, content_app_url, rhsm_url: as Foreman is told.
        asked: where members ask for its status.
    """

    pulp_url: str | None
    content_app_url: str | None
    rhsm_url: str | None
    asked: str


class Pulpcore:
    """The feature's service. All who want the status at the same moment share one question.

    Attributes:
        version: the Smart Proxy version that Pulp's own record says, as the member's does.
        known: what Pulp last said of itself; None while it has said nothing.
        asked_at: when that was, by the clock's monotonic seconds.
    """

    def __init__(
        self,
        provider: PulpProvider,
        settings: PulpcoreSettings,
        where: Whereabouts,
        *,
        version: str = Foreman().told_version,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.version = version
        self.known: PulpStatus | None = None
        self.asked_at = 0.0
        self._provider = provider
        self._where = where
        self._clock = clock or SystemClock()
        self._said: Said | None = None
        self._said_at = 0.0
        self._asking: asyncio.Task[Said] | None = None

    @property
    def where(self) -> Whereabouts:
        return self._where

    async def reached(self) -> None:
        """Return when Pulp answers and works.

        Raises:
            Unavailable: it does not; the sentence says what is amiss.
            Misconfigured: TLS refused.
        """
        said = await self._asked(kept_s=0)
        if said.status != 200:
            raise Unavailable(f"{self.where.asked} answers {said.status} to the question for Pulp's status")
        status = PulpStatus.read(said.text)
        if status.troubles:
            raise Unavailable(f"Pulp at {self.where.asked} answers, but {' and '.join(status.troubles)}")

    async def relayed(self) -> Said:
        """Return Pulp's status with Pulp's own code, for whoever asks; at most two seconds old.

        Raises:
            Unavailable: it did not answer, in the Ruby plugin's words.
        """
        try:
            return await self._asked(kept_s=_KEPT_S)
        except MusterError as e:
            raise Unavailable(f"Communication error with '{_host(self.where.asked)}': {e}") from e

    async def refresh(self) -> None:
        """Bring what Foreman is told up to date; what cannot be asked stays as it was last known."""
        if self.known is not None and self._clock.monotonic() - self.asked_at < _CAPABLE_S:
            return
        try:
            await self._asked(kept_s=_KEPT_S)
        except MusterError:
            # That it is away, readiness and the log say; what it can do it still can when it is back.
            return

    def told(self) -> Told:
        """Return the settings and capabilities that Foreman is told; without an answer there are no capabilities."""
        where, settings = self.where, self.settings
        shown = {
            "pulp_url": where.pulp_url,
            "mirror": settings.mirror,
            "content_app_url": where.content_app_url,
            "username": settings.username,
            "password": settings.password or _password_in(settings),
            "client_authentication": list(settings.client_authentication),
            "rhsm_url": where.rhsm_url,
        }
        return Told(shown, tuple(self.known.versions) if self.known is not None else ())

    async def close(self) -> None:
        """End the question that still runs."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _asked(self, *, kept_s: float) -> Said:
        if self._said is not None and self._clock.monotonic() - self._said_at < kept_s:
            return self._said
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(self.where.asked), name="status of Pulp")
            # One that nobody waits for any more may fail unheard.
            self._asking.add_done_callback(lambda t: t.cancelled() or t.exception())
        # Whoever gives up must not end the question others wait for.
        return await asyncio.shield(self._asking)

    async def _ask(self, url: str) -> Said:
        said = await self._provider.status(url)
        self._said, self._said_at = said, self._clock.monotonic()
        if said.status == 200:
            self.known, self.asked_at = PulpStatus.read(said.text), self._said_at
        return said


def _password_in(settings: PulpcoreSettings) -> Secret | None:
    """Return the password in the settings' file, which may change; None where none can be had, which opening has said."""
    if settings.password_file is None:
        return None
    try:
        raw = read_bounded(settings.password_file, what="Pulp password file", limit_bytes=_PASSWORD_BYTES)
    except MusterError:
        return None
    lines = raw.decode("utf-8", "replace").splitlines()
    return Secret(lines[0].strip()) if lines and lines[0].strip() else None


def _host(url: str) -> str:
    return url if url.startswith("unix:") else urlsplit(url).hostname or url


def whereabouts(settings: PulpcoreSettings, around: Surroundings) -> Whereabouts:
    """Return where this member's Pulp is, by the settings."""
    cluster = around.cluster
    address = in_url(cluster.member(around.member).address) if cluster is not None else around.member

    def placed(url: str | None) -> str | None:
        return url and url.replace("{member}", around.member).replace("{address}", address).rstrip("/")

    beside = cluster.content.pulp_api_url if cluster is not None and cluster.content is not None else None
    asked = placed(settings.status_url or beside or settings.pulp_url) or ""
    return Whereabouts(placed(settings.pulp_url), placed(settings.content_app_url), placed(settings.rhsm_url), asked)


@asynccontextmanager
async def opened(settings: PulpcoreSettings, around: Surroundings) -> AsyncIterator[Pulpcore]:
    """Yield the service with its provider open.

    Raises:
        Misconfigured: its settings cannot work.
    """
    from muster.features.pulpcore import providers

    if settings.password_file is not None and _password_in(settings) is None:
        raise Misconfigured(f"The Pulp password file {settings.password_file} cannot be read, or is empty")
    policies = settings.policies.built(around.operations, f"pulpcore/{settings.provider}")
    async with providers.opened(settings, around) as provider:
        service = Pulpcore(
            chained(PulpProvider, provider, policies),  # type: ignore[type-abstract]
            settings,
            whereabouts(settings, around),
            version=(around.cluster.foreman if around.cluster is not None else Foreman()).told_version,
        )
        try:
            yield service
        finally:
            await service.close()
