"""``muster repairs retry``: what a provider has not had is tried again at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.options import cluster_option, dry_run_option, json_option
from muster.cli.repairs.told import chosen, decide, report


@click.command()
@chosen
@cluster_option
@dry_run_option
@json_option
def retry(
    ids: tuple[int, ...],
    all_: bool,
    group: str | None,
    provider: str | None,
    cluster_path: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Have members carry repairs out at once, also those that a provider refused.

    What is earlier of the same name at the same provider goes with it, and first.
    """
    deciding = decide(cluster_path, ids, all_=all_, group=group, provider=provider, drop=False, dry=dry_run)
    report(asyncio.run(deciding), "set to be tried at once", dry=dry_run, as_json=as_json)
