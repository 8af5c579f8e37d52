"""``muster repairs drop``: what a provider has not had is given up."""

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
def drop(
    ids: tuple[int, ...],
    all_: bool,
    group: str | None,
    provider: str | None,
    cluster_path: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take repairs out: the provider never has those changes, and differs from the others by them."""
    deciding = decide(cluster_path, ids, all_=all_, group=group, provider=provider, drop=True, dry=dry_run)
    report(asyncio.run(deciding), "dropped", dry=dry_run, as_json=as_json)
