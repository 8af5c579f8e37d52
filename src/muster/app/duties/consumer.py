"""Is the package that hosts install of what the cluster is now, and does this member give the newest?"""

from __future__ import annotations

import asyncio

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.cluster.file import ClusterFile
from muster.content.consumer import contents
from muster.content.consumer.contents import Contents
from muster.content.consumer.deb import deb
from muster.content.consumer.given import Given
from muster.content.consumer.ledger import Packages
from muster.content.consumer.rpm import rpm
from muster.content.joining import Joining
from muster.kernel import log
from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.store.engine import Store

_log = log.logger("app")

# Somebody has the member started again, or a CA replaced, and then has a host install it.
_EVERY_S = 3.0


class ConsumerPackage(Duty):
    """Offers this member's contents to all, and takes what is newest for them.

    Without the store the member gives what it had last.

    Args:
        cluster: as it was read at the start, as what ``joining`` tells.
        given: what all processes of this member read.
    """

    name = "consumer package"
    every_s = _EVERY_S

    def __init__(self, cluster: ClusterFile, name: str, joining: Joining, given: Given, store: Store) -> None:
        self._cluster = cluster
        self._member = name
        self._joining = joining
        self._given = given
        self._packages = Packages(store)
        self._why = ""

    async def beat(self) -> None:
        self._why = ""
        # Who cannot read the CA, and so knows of none of its own, gives the others' all the same.
        for step in (self._offer, self._take):
            try:
                await step()
            except MusterError as e:
                _log.debug("The package for hosts was not looked at", why=str(e))

    def found(self) -> Found:
        return Found(notes=(self._why,)) if self._why else NOTHING

    def _contents(self) -> Contents:
        program, told, ca = (self._joining.body(n) for n in ("muster-bootstrap", "muster-client.json", "muster-ca.pem"))
        return contents.contents(self._cluster, program=program, told=told, ca=ca)

    async def _offer(self) -> None:
        mine = self._contents()
        if await self._packages.is_settled(self._member, mine.digest):
            return

        def made(version: str) -> tuple[bytes, bytes]:
            return rpm(mine, version), deb(mine, version)

        try:
            if await self._packages.offer(self._member, mine.digest, mine.name, made):
                _log.info("Made the package that hosts install anew", package=mine.name)
        except Conflict:
            # Another member was first; whether ours is new beside that, the next beat asks.
            _log.debug("Another member made the package for hosts")

    async def _take(self) -> None:
        key = await self._packages.key()
        if key is None or key == self._given.key:
            return
        newest = await self._packages.newest()
        if newest is None:
            return
        try:
            await asyncio.to_thread(self._given.write, newest.package, newest.digest)
        except Unavailable as e:
            self._why = (
                f"The package {newest.package.name} of version {newest.package.version} is not given to hosts: {e}"
            )
