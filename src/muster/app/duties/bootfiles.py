"""Are the boot files on this member's disk those of the cluster?"""

from __future__ import annotations

import time
from collections.abc import Sequence

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.netboot.tree import Tree

_log = log.logger("app")

_FORGOTTEN_EVERY_S = 3600.0
_VERIFIED_EVERY_S = 86_400.0


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
