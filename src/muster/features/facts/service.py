"""Facter asked, once for all who come meanwhile, and what it said kept for a while."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from muster.edge.feature import Surroundings
from muster.features.facts.settings import FactsSettings
from muster.kernel import process
from muster.kernel.errors import Misconfigured, NotFound, Unavailable
from muster.kernel.names import shown
from muster.kernel.tasks import ended

Ask = Callable[[], Awaitable[Mapping[str, Any]]]

# Where Puppet's own packages have it, of which no unit's path knows.
_PACKAGED = "/opt/puppetlabs/bin/facter"
_DEEPEST = 16


class Facts:
    """The feature's service. Use :func:`opened`.

    Concurrency: any number of tasks of one loop; Facter runs once at a time.
    """

    def __init__(self, ask: Ask, *, kept_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._kept_s = kept_s
        self._monotonic = monotonic
        self._kept: tuple[Mapping[str, Any], float] | None = None
        self._asking: asyncio.Task[Mapping[str, Any]] | None = None

    async def every(self) -> Mapping[str, Any]:
        """Return all facts, by name.

        Raises:
            Unavailable: Facter did not end in time, or ended without facts.
            Misconfigured: it cannot be run any more.
        """
        if self._kept is not None and self._monotonic() < self._kept[1]:
            return self._kept[0]
        asking = self._asking
        if asking is None:
            asking = self._asking = asyncio.create_task(self._asked(), name="facter")
            asking.add_done_callback(self._answered)
        return await asyncio.shield(asking)

    async def one(self, name: str) -> Any:
        """Return one fact's value; ``os.family`` is what ``os`` has under ``family``, as Facter reads it.

        Raises:
            NotFound: there is none of that name.
            Unavailable, Misconfigured: as :meth:`every`.
        """
        found = _below(await self.every(), name)
        if found is None:
            raise NotFound(f"Fact {shown(name)} not found")
        return found

    async def aclose(self) -> None:
        """End the question that is under way."""
        await ended([self._asking] if self._asking is not None else [])

    async def _asked(self) -> Mapping[str, Any]:
        facts = await self._ask()
        self._kept = facts, self._monotonic() + self._kept_s
        return facts

    def _answered(self, task: asyncio.Task[Mapping[str, Any]]) -> None:
        self._asking = None
        # One that nobody waits for any more may fail unheard.
        if not task.cancelled():
            task.exception()


def _below(facts: Mapping[str, Any], name: str) -> Any:
    if name in facts:
        return facts[name]
    found: Any = facts
    # A name of custom facts may hold dots itself; whoever has so many is none.
    for part in name.split(".", _DEEPEST):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list) and part.isascii() and part.isdigit() and len(part) < 6:
            found = found[int(part)] if int(part) < len(found) else None
        else:
            return None
    return found


def program(settings: FactsSettings) -> str:
    """Return the path of Facter.

    Raises:
        Misconfigured: it is not on this host.
    """
    if settings.facter is not None:
        if not os.access(settings.facter, os.X_OK) or os.path.isdir(settings.facter):  # noqa: PTH112 - no path is made
            raise Misconfigured(f"{settings.facter}, which facter names, is no program that may be run on this host")
        return settings.facter
    found = shutil.which("facter") or shutil.which(_PACKAGED)
    if found is None:
        raise Misconfigured(
            f"Facter is not on this host: no facter on the path and no {_PACKAGED}. Install it (Debian: facter, "
            "Puppet's packages: puppet-agent), or say where it is with facter"
        )
    return found


async def _of_facter(command: str, *, legacy: bool, timeout_s: float) -> Mapping[str, Any]:
    arguments = [command, "--no-color", "--json", *(["--show-legacy"] if legacy else [])]
    done = await process.run(arguments, timeout_s=timeout_s)
    try:
        found = json.loads(done.stdout)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        # It ends with 1 as well where it could not find out one thing and printed all others, as in a container.
        return found
    last = shown(done.stderr.strip().rpartition("\n")[2], 200)
    raise Unavailable(
        f"{command} printed no facts, or more than 1 MiB of them, and ended with status {done.status}"
        f"{f': {last}' if last else ''}"
    )


@asynccontextmanager
async def opened(settings: FactsSettings, _around: Surroundings) -> AsyncIterator[Facts]:
    """Yield the service; Facter is asked when somebody asks.

    Raises:
        Misconfigured: Facter is not on this host.
    """
    command = program(settings)

    async def ask() -> Mapping[str, Any]:
        return await _of_facter(command, legacy=settings.legacy, timeout_s=settings.timeout_s)

    facts = Facts(ask, kept_s=settings.kept_s)
    try:
        yield facts
    finally:
        await facts.aclose()
