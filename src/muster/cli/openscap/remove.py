"""``muster openscap remove``: reports that nobody needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli.openscap.opened import ReportId, meant, opened
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json


@click.command()
@click.argument("reports", nargs=-1, required=True, type=ReportId(), metavar="REPORT...")
@cluster_option
@dry_run_option
@json_option
def remove(reports: tuple[str, ...], cluster_path: Path, dry_run: bool, as_json: bool) -> None:
    """Remove REPORTs, by their ids; Foreman keeps what it has of them.

    All of them, or none when one is not there. One that waits never reaches Foreman then.
    """
    found = asyncio.run(_removed(reports, cluster_path, dry=dry_run))
    if as_json:
        print_json(found)
    else:
        click.echo(one_line(found["sentence"]))


async def _removed(given: tuple[str, ...], cluster_path: Path, *, dry: bool) -> dict[str, Any]:
    async with opened(cluster_path, changes=not dry) as (_, ledger, store):
        found = await meant(store, given, ("waiting", "refused", "sent"))
        if not dry:
            await ledger.remove([u.id for u in found])
    what = ", ".join(f"{u.id[:8]} of {u.cname}" for u in found)
    return {
        "dry_run": dry,
        "removed": [u.id for u in found],
        "sentence": f"{'Would remove' if dry else 'Removed'} {what}.",
    }
