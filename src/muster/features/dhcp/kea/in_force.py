"""What is in force on a Kea: its configuration, its commands, its version. Nothing is told from memory unasked.

Kea 2.4 and later tell a hash of the configuration, so that it is told again only where it is another one; of an older one it
is asked each time, and read only where its text is another one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from muster.features.dhcp.kea import configuration
from muster.features.dhcp.kea.commands import Kea
from muster.features.dhcp.kea.configuration import Configuration, without_hosts
from muster.kernel.errors import MusterError, Unavailable, Unsupported
from muster.kernel.names import shown


@dataclass(frozen=True)
class InForce:
    """What one Kea was asked and had, all of it at one time.

    Attributes:
        hash: of the configuration; empty where Kea tells none.
        version: its first two numbers.
    """

    configuration: Configuration
    commands: frozenset[str]
    version: tuple[int, int]
    hash: str = ""


class Current:
    """Asks for what is in force.

    Concurrency: any number of calls; those that come while one asks wait, and share the next answer, which is therefore
    never older than their question.
    """

    def __init__(self, kea: Kea) -> None:
        self._kea = kea
        self._lock = asyncio.Lock()
        self._begun = 0
        self._last: tuple[int, InForce] | None = None
        self._failed: tuple[int, MusterError] | None = None

    @property
    def latest(self) -> InForce | None:
        """What was told last, which may be in force no more; None: nothing yet."""
        return None if self._last is None else self._last[1]

    async def now(self) -> InForce:
        """Return what is in force now.

        Raises:
            Unavailable, Misconfigured: as :meth:`Kea.ask`.
        """
        arrived = self._begun
        async with self._lock:
            if self._last is not None and self._last[0] > arrived:
                return self._last[1]
            if self._failed is not None and self._failed[0] > arrived:
                # Else each would wait for as long as Kea may take, one behind the other.
                raise self._failed[1].with_traceback(None)
            self._begun += 1
            number = self._begun
            try:
                found = await self._asked(None if self._last is None else self._last[1])
            except MusterError as e:
                self._failed = number, e
                raise
            self._last = (number, found)
            return found

    async def _asked(self, before: InForce | None) -> InForce:
        if before is not None and before.hash and await self._hash() == before.hash:
            return before
        answer = await self._kea.ask("config-get")
        content = answer.arguments.get("Dhcp4")
        if before is not None and not before.hash and content == before.configuration.content:
            return before
        if not isinstance(content, dict):
            raise Unavailable(f"{self._kea.url} tells no configuration of DHCPv4: {shown(sorted(answer.arguments))}")
        read = configuration.read(content)
        number = str(answer.arguments.get("hash") or "")
        if before is not None and without_hosts(content) == without_hosts(before.configuration.content):
            # Libraries bring commands, and stand there; another release tells more than the one before.
            return replace(before, configuration=read, hash=number)
        return InForce(read, await self._commands(), await self._version(), number)

    async def _hash(self) -> str:
        try:
            return str((await self._kea.ask("config-hash-get")).arguments.get("hash") or "")
        except Unsupported:
            return ""

    async def _commands(self) -> frozenset[str]:
        found = (await self._kea.ask("list-commands")).content
        return frozenset(str(one) for one in found or ())

    async def _version(self) -> tuple[int, int]:
        text = (await self._kea.ask("version-get")).text
        numbers = [int(n) for n in text.split(".")[:2] if n.isascii() and n.isdigit() and len(n) < 6]
        if len(numbers) != 2:
            raise Unavailable(f"{self._kea.url} says that its version is {shown(text)}")
        return numbers[0], numbers[1]
