"""What Foreman is told of a Pulp, and Pulp's word for how it is. Source: docs/facts/smart-proxy-protocol.md §18."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from muster.cluster.sections import Foreman
from muster.cluster.service import ANY, Seen, Service
from muster.cluster.services import register
from muster.edge.feature import Surroundings, Told
from muster.features.pulpcore.contract import PulpProvider, PulpStatus, Said
from muster.features.pulpcore.settings import PulpcoreSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.log import logger
from muster.kernel.names import in_url
from muster.kernel.secrets import Secret
from muster.kernel.tasks import ended
from muster.policy.chain import chained

# Anybody may ask for the status, and each answer costs Pulp queries.
_KEPT_S = 2.0
# What a Pulp has changes when it is upgraded.
_CAPABLE_S = 60.0
# Longer than the member's duty rests between two questions.
_TRIED_S = 10.0
# The register is in the store, and a member whose store hangs serves on.
_LOOK_S = 2.0
_PASSWORD_BYTES = 4096

_log = logger("features")

Registered = Callable[[], Awaitable[Service | None]]
"""Returns this member's entry in the register, None when there is none. Raises Unavailable."""


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

    def changed(self, entry: Service) -> Whereabouts:
        """Return where it is when an administrator has typed something else into the register."""
        control = entry.control_url.rstrip("/") if entry.typed("control_url") else ""
        client = entry.client_urls[ANY].rstrip("/") if entry.typed(f"client_urls.{ANY}") else ""
        return replace(
            self,
            pulp_url=control or self.pulp_url,
            content_app_url=client or self.content_app_url,
            asked=control or self.asked,
        )


class Pulpcore:
    """The feature's service. All who want the status at the same moment share one question.

    Attributes:
        known: what Pulp last said of itself; None while it has said nothing.
        asked_at: when that was, by the clock's monotonic seconds.
    """

    def __init__(
        self,
        provider: PulpProvider,
        settings: PulpcoreSettings,
        where: Whereabouts,
        *,
        version: Callable[[], str] = lambda: Foreman().told_version,
        registered: Registered | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._version = version
        self.known: PulpStatus | None = None
        self.asked_at = float("-inf")
        self._provider = provider
        self._where = self._of_settings = where
        self._registered = registered
        self._is_essential: bool | None = None
        self._clock = clock or SystemClock()
        self._said: Said | None = None
        self._said_at = 0.0
        self._tried_at = float("-inf")
        self._asking: dict[str, asyncio.Task[Said]] = {}

    @property
    def version(self) -> str:
        """The Smart Proxy version that Pulp's own record says now, as the member's does."""
        return self._version()

    @property
    def where(self) -> Whereabouts:
        """Where the Pulp is, by the register as it was last read, else by the settings."""
        return self._where

    @property
    def is_essential(self) -> bool:
        """Whether the member leaves the balancer while Pulp is away."""
        return self.settings.readiness == "essential" if self._is_essential is None else self._is_essential

    async def reached(self) -> None:
        """Return when Pulp answers and works.

        Raises:
            Unavailable: it does not; the sentence says what is amiss.
            Misconfigured: TLS refused.
        """
        await self._follow()
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
        await self._follow()
        now = self._clock.monotonic()
        # One that is away is asked by the member's duty all the time; nobody needs to wait for that.
        if self.known is not None and (now - self.asked_at < _CAPABLE_S or now - self._tried_at < _TRIED_S):
            return
        # That it is away, readiness and the log say; what it can do it still can when it is back.
        with contextlib.suppress(MusterError, TimeoutError):
            async with asyncio.timeout(self.settings.status_timeout_s):
                await self._asked(kept_s=_KEPT_S)

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

    def observed(self) -> tuple[Seen, ...]:
        """Return what Pulp has just said, for the register; nothing while it says nothing, so that facts show their age."""
        is_fresh = self._clock.monotonic() - self.asked_at < _CAPABLE_S
        return (Seen("pulp", self.known.facts()),) if self.known is not None and is_fresh else ()

    async def close(self) -> None:
        """End the questions that still run."""
        await ended(self._asking.values())

    async def _follow(self) -> None:
        """Take up what an administrator has typed into the register since."""
        if self._registered is None:
            return
        try:
            async with asyncio.timeout(_LOOK_S):
                entry = await self._registered()
        except (MusterError, TimeoutError):
            # The store's own duty says so; a Pulp does not move back because of that.
            return
        where = self._of_settings if entry is None else self._of_settings.changed(entry)
        self._is_essential = entry.weight == "essential" if entry is not None and entry.typed("weight") else None
        if where == self._where:
            return
        if where.asked != self._where.asked:
            _log.info("Pulp is elsewhere now, by the register", was=self._where.asked, now=where.asked)
            # What the other one said is no answer of this one's; what it could is told until this one has answered.
            self._said, self.asked_at, self._tried_at = None, float("-inf"), float("-inf")
        self._where = where

    async def _asked(self, *, kept_s: float) -> Said:
        if self._said is not None and self._clock.monotonic() - self._said_at < kept_s:
            return self._said
        url = self.where.asked
        asking = self._asking.get(url)
        if asking is None:
            asking = self._asking[url] = asyncio.create_task(self._ask(url), name="status of Pulp")
            asking.add_done_callback(lambda task: self._asked_and_done(url, task))
        # Whoever gives up must not end the question others wait for.
        return await asyncio.shield(asking)

    def _asked_and_done(self, url: str, task: asyncio.Task[Said]) -> None:
        del self._asking[url]
        # One that nobody waits for any more may fail unheard.
        if not task.cancelled():
            task.exception()

    async def _ask(self, url: str) -> Said:
        if url == self._where.asked:
            self._tried_at = self._clock.monotonic()
        said = await self._provider.status(url)
        # What is no status of a Pulp is passed on to nobody.
        status = PulpStatus.read(said.text) if said.status == 200 else None
        # Else it moved meanwhile.
        if url == self._where.asked:
            self._said, self._said_at = said, self._clock.monotonic()
            if status is not None:
                self.known, self.asked_at = status, self._said_at
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


def _registered(around: Surroundings) -> Registered | None:
    store, cluster = around.store, around.cluster
    if store is None or cluster is None:
        return None
    member = cluster.member(around.member)

    async def looked_up() -> Service | None:
        # What the settings say is known here.
        return (await register(store, {})).of_member("pulp", member)

    return looked_up


@asynccontextmanager
async def opened(settings: PulpcoreSettings, around: Surroundings) -> AsyncIterator[Pulpcore]:
    """Yield the service with its provider open.

    Raises:
        Misconfigured: its settings cannot work.
    """
    from muster.features.pulpcore import providers

    if settings.password_file is not None and _password_in(settings) is None:
        raise Misconfigured(f"The Pulp password file {settings.password_file} cannot be read, or is empty")
    policies = around.chains.built(
        "pulpcore", settings.policies, around.operations, label=f"pulpcore/{settings.provider}", word=settings.provider
    )
    async with providers.opened(settings, around) as provider:
        service = Pulpcore(
            chained(PulpProvider, provider, policies),  # type: ignore[type-abstract]
            settings,
            whereabouts(settings, around),
            registered=_registered(around),
            version=around.version,
        )
        try:
            yield service
        finally:
            await service.close()
