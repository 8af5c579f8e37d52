"""Where the commands of the Puppet CA work: the cluster file, its store, the key that this host has."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.ca.actor import here
from muster.cli.options import cluster_option, pki_directory, pki_option

if TYPE_CHECKING:
    from muster.authority.authority import PuppetCA
    from muster.cluster.file import Authority, ClusterFile
    from muster.store.engine import Store


@dataclass(frozen=True)
class Place:
    cluster_path: Path
    pki: Path

    @property
    def home(self) -> Path:
        return self.pki / "puppet-ca"

    @functools.cached_property
    def cluster(self) -> ClusterFile:
        from muster.app.settings import loaded

        return loaded(self.cluster_path)

    @property
    def settings(self) -> Authority:
        from muster.kernel.errors import Misconfigured

        found = self.cluster.authority
        if found is None:
            raise Misconfigured(f"{self.cluster_path} has no authority: section; add one (authority: {{}} will do)")
        return found

    @property
    def key_file(self) -> Path:
        """Where the key is when the settings name no file."""
        return self.home / "ca_key.pem"

    @property
    def elsewhere(self) -> str:
        """The one member whose puppetserver signs; empty when the members do."""
        signer = self.cluster.signer
        return "" if signer == "any" else str(signer)

    def signing(self, there: str) -> Authority:
        """Return the settings of a CA that the members are; ``there`` says what is done where they are not.

        Raises:
            Conflict: a change would stand in a ledger that nobody serves: a revocation above all would be lost.
            Misconfigured: there is no CA in the cluster file.
        """
        from muster.balancer.model import signs_itself
        from muster.kernel.errors import Conflict

        if self.elsewhere and not signs_itself(self.cluster):
            raise Conflict(
                f"{self.elsewhere} signs Puppet certificates (signer: in {self.cluster_path}), and nobody would see a "
                f"change in the members' own ledger; nothing was changed. {there.format(signer=self.elsewhere)}"
            )
        return self.settings

    def note_elsewhere(self) -> None:
        """Say that what is shown is not in force, where that is so."""
        if self.elsewhere:
            click.echo(f"Not in force: {self.elsewhere} signs. This is what the members' own ledger says.", err=True)

    @asynccontextmanager
    async def store(self, *, changes: bool = False) -> AsyncIterator[Store]:
        """Hold the store open; ``changes``: as of :func:`~muster.app.settings.cluster_store`."""
        from muster.app.settings import cluster_store
        from muster.kernel import log

        log.configure(level="ERROR")
        async with cluster_store(self.cluster, changes=changes) as store:
            yield store

    @asynccontextmanager
    async def opened(self, there: str, *, changes: bool) -> AsyncIterator[PuppetCA]:
        """Hold the CA open for a change, key included, or to see what it would be; ``there`` as in :meth:`signing`."""
        from muster.authority.authority import opened

        settings = self.signing(there)
        async with self.store(changes=changes) as store, opened(store, settings, member=here(), home=self.home) as ca:
            yield ca


def placed(command: Callable[..., Awaitable[int | None]]) -> Callable[..., int]:
    """Give a command its place instead of the two options that name it, and run it to its end."""

    @functools.wraps(command)
    def with_place(*arguments: object, cluster_path: Path, pki_path: Path | None, **named: object) -> int:
        place = Place(cluster_path, pki_directory(cluster_path, pki_path))
        return asyncio.run(_awaited(command(place, *arguments, **named))) or 0

    return cluster_option(pki_option(with_place))


async def _awaited(work: Awaitable[int | None]) -> int | None:
    return await work
