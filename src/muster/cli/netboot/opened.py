"""The cluster's boot files, as commands reach them: in the store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from muster.kernel.errors import Misconfigured

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.netboot.ledger import Ledger
    from muster.store.reading import Readable


@contextlib.asynccontextmanager
async def opened(cluster_path: Path, *, changes: bool = False) -> AsyncIterator[tuple[ClusterFile, Ledger]]:
    """Yield the cluster file and the tree's rows; ``changes``: as of :func:`~muster.app.settings.cluster_store`.

    Raises:
        Misconfigured: no feature of the cluster has boot files.
        Unavailable: the store did not answer.
    """
    from muster.app.settings import cluster_store, loaded
    from muster.features import have_boot_files
    from muster.kernel import log
    from muster.netboot.ledger import Ledger

    # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    if not have_boot_files(cluster):
        raise Misconfigured(f"{cluster_path} names neither feature tftp nor httpboot: its members have no boot files")
    async with cluster_store(cluster, changes=changes) as store:
        yield cluster, Ledger(store)


@contextlib.asynccontextmanager
async def opened_stories(cluster_path: Path) -> AsyncIterator[Readable]:
    """Yield the store, of a cluster whose members see something of machines that boot.

    Raises:
        Misconfigured: they see nothing.
        Unavailable: the store did not answer.
    """
    from muster.app.settings import loaded, store_to_read
    from muster.app.stories import are_told
    from muster.kernel import log

    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    if not are_told(cluster):
        raise Misconfigured(
            f"{cluster_path} names none of dhcp, tftp, httpboot, templates and netboot.proxy_dhcp: its members see nothing "
            "of machines that boot"
        )
    async with store_to_read(cluster) as store:
        yield store
