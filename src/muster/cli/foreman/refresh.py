"""``muster foreman refresh``: features anew where Foreman is mistaken."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.foreman.status import CLIENT
from muster.cli.options import cluster_option, dry_run_option, json_option, pki_directory, pki_option

if TYPE_CHECKING:
    from muster.observed.registered import Verdict


@click.command()
@cluster_option
@pki_option
@CLIENT
@click.option("--all", "every", is_flag=True, help="Also where Foreman is not mistaken, as far as can be seen.")
@dry_run_option
@json_option
def refresh(
    cluster_path: Path, pki_path: Path | None, client: str | None, every: bool, dry_run: bool, as_json: bool
) -> None:
    """Have Foreman ask for features anew where it is mistaken; exit 1 when one could not be refreshed.

    Foreman keeps features, capabilities and settings from its last refresh. Which settings it keeps it tells nobody: what
    was refreshed from here is remembered by its digest in the store, and another digest is refreshed.
    """
    from muster.cli.foreman.known import Act, Done, Looked, carried_out, tell

    async def refreshing(found: Looked) -> Act:
        async def refreshed(one: Verdict) -> Done:
            # Nobody knows what Foreman has of one that was never refreshed from here.
            first = bool(found.digest_of(one)) and one.wanted.url not in found.refreshed
            due = one.standing == "outdated" or (one.standing == "well" and (every or first))
            if not due or one.record is None:
                return Done.left(one, failed=one.standing not in ("well", "outdated"))
            if dry_run:
                return Done(f"would be refreshed: {one.sentence}")
            record = await found.records.refresh(one.record)
            return Done(f"refreshed: {', '.join(sorted(record.features)) or 'no features'}", was_asked=True)

        return refreshed

    said = asyncio.run(carried_out(cluster_path, pki_directory(cluster_path, pki_path), client, refreshing))
    tell(said, dry_run=dry_run, as_json=as_json)
