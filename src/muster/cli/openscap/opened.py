"""Compliance reports, as commands reach them: in the store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.types import StringParamType

from muster.kernel.errors import Misconfigured, NotFound
from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.features.openscap.ledger import Ledger, Upload
    from muster.store.engine import Store

_DIGITS = frozenset("0123456789abcdef")


class ReportId(StringParamType):
    """A report's id, or how it begins."""

    name = "report"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not 4 <= len(text) <= 32 or not _DIGITS.issuperset(text):
            self.fail(
                f"{shown(text)} is no id of a report: 4 to 32 hexadecimal digits, as muster openscap spool shows",
                param,
                ctx,
            )
        return text


@contextlib.asynccontextmanager
async def opened(cluster_path: Path, *, changes: bool = False) -> AsyncIterator[tuple[ClusterFile, Ledger, Store]]:
    """Yield the cluster file, the reports and their store; ``changes``: as of :func:`~muster.app.settings.cluster_store`.

    Raises:
        Misconfigured: the cluster has no such feature.
        Unavailable: the store did not answer.
    """
    from muster.app.settings import cluster_store, loaded
    from muster.features.openscap.ledger import Ledger
    from muster.kernel import log

    # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    if "openscap" not in cluster.features:
        raise Misconfigured(f"{cluster_path} does not name feature openscap: its members take no compliance reports")
    async with cluster_store(cluster, changes=changes) as store:
        yield cluster, Ledger(store), store


async def meant(store: Store, given: Sequence[str], states: Sequence[str], most: int = 100_000) -> list[Upload]:
    """Return the reports in these states that ids, or their beginnings, name, each once, in their order.

    Raises:
        NotFound: one names none, or several; nothing was changed.
    """
    from muster.features.openscap.ledger import listed

    known = await listed(store, states, most)
    found: dict[str, Upload] = {}
    for id in given:
        named = [u for u in known if u.id.startswith(id)]
        if len(named) != 1:
            which = "no report" if not named else f"{len(named)} reports"
            raise NotFound(f"{id} names {which}; nothing was changed. muster openscap spool shows them")
        found[named[0].id] = named[0]
    return list(found.values())
