"""Which Foreman is it, by what it says of itself, so that members say the same?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.cluster.file import ClusterFile
from muster.cluster.foreman import DOCUMENT, HEARD, Heard, api_opened, is_asked, is_named, keep, trust_of
from muster.foreman.version import asked
from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Denied, MusterError
from muster.kernel.files import fingerprint
from muster.store.engine import Store

_log = log.logger("app")

_ASKED_EVERY_S = 300.0
_FIRST_WAIT_S = 5.0
# A store that hangs keeps no member from starting.
_BEGIN_S = 2.0
_SET = "write foreman.version, or foreman.url, api_user and api_token_file, so that Foreman can be asked"


class ForemanFollowed(Duty):
    """Has members say Foreman's version: as Foreman says it, else as it was last heard by any of them.

    Each beat reads what the members heard; every five minutes Foreman is asked. After a failure it is asked sooner, but not
    after a refusal, since Foreman locks out who logs in wrongly too often: then when the token's file changes.
    """

    name = "foreman's version"
    every_s = 5.0

    def __init__(
        self,
        cluster: ClusterFile,
        member: str,
        ca: Path,
        store: Store,
        tell: Callable[[str], None],
        *,
        clock: Clock | None = None,
    ) -> None:
        """``tell`` hears the version that counts, ``x.y.z``."""
        self._cluster, self._member, self._ca, self._store, self._tell = cluster, member, ca, store, tell
        self._clock = clock or SystemClock()
        self._told = cluster.foreman.told_version
        self._heard: Heard | None = None
        # What was heard here and is not in the store yet, and when it was asked.
        self._mine: tuple[str, float] | None = None
        self._trouble = ""
        self._failures = 0
        self._due = float("-inf")
        self._files: tuple[object, ...] = ()
        self._reading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Say what was last heard, from the first answer on."""
        reading = self._reading = asyncio.create_task(self._read(), name="what was heard of Foreman's version")
        # Not cut off: it may be what brings the schema to this release.
        await asyncio.wait({reading}, timeout=_BEGIN_S)

    async def beat(self) -> None:
        if is_asked(self._cluster):
            await self._ask()
        if self._mine is None:
            await self._read()
            return
        version, since = self._mine
        try:
            age_s = self._clock.monotonic() - since
            found = await keep(self._store, version, age_s=age_s, by=self._member)
        except MusterError as e:
            _log.debug("What was heard of Foreman's version was not shared", why=str(e))
            self._say(version)
        else:
            self._mine = None
            self._follow(found)

    def found(self) -> Found:
        if self._trouble:
            since = f", as {self._heard.by} heard" if self._heard is not None and self._mine is None else ""
            note = f"Foreman's version was not heard, and this member says {self._told}{since}: {self._trouble}"
        elif self._heard is None and self._mine is None and is_named(self._cluster):
            if is_asked(self._cluster):
                # Not yet.
                return NOTHING
            note = f"Foreman's version is not known, and this member says {self._told}: {_SET}"
        elif self._heard is not None and not is_asked(self._cluster):
            note = (
                f"Foreman's version is not asked any more, and this member says {self._told}, as was last heard: {_SET}"
            )
        else:
            return NOTHING
        return Found(notes=(note,))

    async def end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        """Say what was last heard, unless the store does not answer."""
        try:
            heard = Heard.read(await self._store.ask(HEARD, name=DOCUMENT))
        except MusterError as e:
            _log.debug("What was last heard of Foreman's version is not known", why=str(e))
        else:
            # What was heard here meanwhile is later.
            if self._mine is None:
                self._follow(heard)

    async def _ask(self) -> None:
        settings, begun = self._cluster.foreman, self._clock.monotonic()
        files = fingerprint(
            *(f for f in (settings.api_token_file, self._ca, *trust_of(self._cluster)) if f is not None)
        )
        if begun < self._due and files == self._files:
            return
        self._files = files
        try:
            async with api_opened(self._cluster, self._ca) as api:
                version = await asked(api)
        except MusterError as e:
            self._failures += 1
            wait_s = _ASKED_EVERY_S if isinstance(e, Denied) else _FIRST_WAIT_S * 2 ** min(self._failures - 1, 10)
            self._due = self._clock.monotonic() + min(wait_s, _ASKED_EVERY_S)
            if not self._trouble:
                _log.warning("Foreman's version was not heard", why=str(e))
            self._trouble = str(e)
        else:
            if self._trouble:
                _log.info("Foreman's version is heard again", version=version)
            self._trouble, self._failures = "", 0
            self._due = begun + _ASKED_EVERY_S
            self._mine = (version, begun)

    def _follow(self, heard: Heard | None) -> None:
        self._heard = heard
        self._say(heard.version if heard is not None else self._cluster.foreman.told_version)

    def _say(self, version: str) -> None:
        if version != self._told:
            _log.info("Foreman's version is another now", was=self._told, now=version)
        self._told = version
        self._tell(version)
