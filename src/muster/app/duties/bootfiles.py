"""Are the boot files on this member's disk those of the cluster?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.kernel.happenings import Detail, Happening, Tell
from muster.netboot.contract import HIDDEN
from muster.netboot.tftp.server import TFTPServer
from muster.netboot.tftp.settings import TFTPSettings

if TYPE_CHECKING:
    from muster.cluster.sections import TFTP
    from muster.netboot.fetching import Fetching
    from muster.netboot.tftp.metrics import TFTPMetrics
    from muster.netboot.tftp.told import TransferEnded
    from muster.netboot.tree import Tree

_log = log.logger("app")

_FORGOTTEN_EVERY_S = 3600.0
_VERIFIED_EVERY_S = 86_400.0
_LISTENED_AGAIN_S = 5.0
# How often it is noted that this process runs, and what it takes to be said to have stood: so short a time costs nobody a
# place among those that changes wait for (netboot/confirmed.py).
_NOTED_EVERY_S, _STOOD_S = 0.25, 2.0


class BootFilesKept(Duty):
    """Follows the tree. Takes the services out that answer for boot files while this member is behind what was acknowledged.

    Args:
        services: the services in question, by name.
    """

    name = "boot files"
    # Whoever changes something waits for us.
    every_s = 0.2

    def __init__(self, tree: Tree, services: Sequence[str]) -> None:
        self._tree = tree
        self._services = tuple(services)
        self._forgotten_at = time.monotonic()

    async def beat(self) -> None:
        await self._tree.beat()
        if time.monotonic() - self._forgotten_at >= _FORGOTTEN_EVERY_S:
            self._forgotten_at = time.monotonic()
            try:
                await self._tree.forget()
            except MusterError as e:
                _log.warning("What nobody needs of boot files was not dropped", why=str(e))

    def found(self) -> Found:
        if self._tree.trouble:
            return Found(dict.fromkeys(self._services, self._tree.trouble))
        return Found(notes=(self._tree.note,)) if self._tree.note else NOTHING

    async def end(self) -> None:
        await self._tree.close()


class BootFilesFetched(Duty):
    """Goes on with what members were fetching that have fallen silent, and drops what is old."""

    name = "boot files' origins"
    every_s = 2.0

    def __init__(self, fetching: Fetching) -> None:
        self._fetching = fetching

    async def beat(self) -> None:
        try:
            await self._fetching.beat()
        except MusterError as e:
            _log.debug("What other members fetch was not looked at", why=str(e))

    async def end(self) -> None:
        await self._fetching.close()


class _Running:
    """Tells when this process last went on after it had stood, as when it was stopped, or its machine was.

    Concurrency: one loop.
    """

    def __init__(self) -> None:
        self._noted_at = time.monotonic()
        self._since = -float("inf")
        self._handle: asyncio.TimerHandle | None = None

    @property
    def since(self) -> float:
        """On the monotonic clock; it may be now: nobody has looked since."""
        now = time.monotonic()
        if now - self._noted_at > _STOOD_S:
            self._since = now
        self._noted_at = now
        return self._since

    def begin(self) -> None:
        """Look now and then; the second time nothing is done."""
        if self._handle is None:
            self._look()

    def end(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        _ = self.since
        self._handle = asyncio.get_running_loop().call_later(_NOTED_EVERY_S, self._look)


class BootFilesGiven(Duty):
    """Gives the boot files over TFTP, while they are those of the cluster.

    A request is answered by what was found of the tree at the last beat of the duty that follows it; the store is not asked.
    Who was stopped meanwhile, and goes on, may have been taken out: nothing is answered until that was looked at again.

    No service leaves for what is wrong here: no balancer passes TFTP.

    Args:
        addresses: to listen on; those that this host does not have are passed over while it has one of them.
        tell: hears of each request when it is over.
    """

    name = "TFTP"

    def __init__(self, tree: Tree, settings: TFTP, addresses: Sequence[str], counted: TFTPMetrics, tell: Tell) -> None:
        self._tree = tree
        self._settings = TFTPSettings(
            tree.root, addresses, settings.port, settings.data_ports, transfers_limit=settings.transfers
        )
        self._counted = counted
        self._tell = tell
        self._server: TFTPServer | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._why = "its directory was not looked at yet"
        self._listened_at = -float("inf")
        self._running = _Running()

    async def beat(self) -> None:
        self._running.begin()
        is_fit = not self._tree.trouble and self._tree.version is not None
        if self._server is not None and not is_fit:
            _log.warning("TFTP is not served for now", why=self._tree.trouble)
            self._give_up(self._server, self._tree.trouble)
        elif self._server is None and is_fit and time.monotonic() - self._listened_at >= _LISTENED_AGAIN_S:
            await self._listen()

    async def _listen(self) -> None:
        self._listened_at = time.monotonic()
        server = TFTPServer(self._settings, metrics=self._counted, told=self._told, is_fit=self._is_fit)
        try:
            await server.__aenter__()
        except MusterError as e:
            if self._why != str(e):
                _log.error("TFTP is not served here", why=str(e))
            self._why = str(e)
            return
        self._server, self._why = server, ""
        _log.info("TFTP is served", root=str(self._tree.root), port=self._settings.port)

    def _is_fit(self) -> bool:
        return self._tree.may_be_given and self._tree.judged_at > self._running.since

    def _give_up(self, server: TFTPServer, why: str) -> None:
        """Take no request any more; files on their way are given to their end."""
        task = asyncio.create_task(server.stop(), name="tftp ends")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        self._server, self._why = None, why
        self._listened_at = -float("inf")

    def found(self) -> Found:
        return Found(notes=(f"this member serves no TFTP: {self._why}",)) if self._why else NOTHING

    async def end(self) -> None:
        self._running.end()
        if self._server is not None:
            self._give_up(self._server, "the member ends")
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _told(self, one: TransferEnded) -> None:
        if one.name.lstrip("/").startswith(f"{HIDDEN}/"):
            # Nothing below it is given: a program asks whether anybody answers (derived/keepalived.py), again and again.
            return
        _log.info(
            "TFTP", client=one.client, file=one.name, outcome=one.outcome, bytes=one.bytes,
            seconds=round(one.duration_s, 3), why=one.reason,
        )  # fmt: skip
        said: dict[str, Detail] = {
            "file": one.name,
            "outcome": one.outcome,
            "bytes": one.bytes,
            "why": one.reason or None,
        }
        self._tell(Happening("tftp", None, one.client, said))


class BootFilesVerified(Duty):
    """Reads every boot file's bytes once a day: disks lose some without a word."""

    name = "boot files' bytes"
    every_s = _VERIFIED_EVERY_S
    begins_at_once = False

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def beat(self) -> None:
        try:
            await self._tree.verify()
        except MusterError as e:
            _log.warning("Boot files were not verified", why=str(e))
