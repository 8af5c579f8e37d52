"""``muster services remove``: what was typed in is taken out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.change import who
from muster.cli.options import cluster_option, dry_run_option, json_option
from muster.cli.services.place import expected_option, opened, reported, where


@click.command()
@click.argument("service")
@expected_option
@cluster_option
@dry_run_option
@json_option
def remove(service: str, expected: int | None, cluster_path: Path, dry_run: bool, as_json: bool) -> int:
    """Take out what was typed in for SERVICE; what settings say counts again."""

    async def removed() -> int:
        async with opened(cluster_path, changes=not dry_run) as (services, base, _):
            left = await services.remove(service, by=who(), base=base, expected=expected, dry=dry_run)
        there = f"{service} is {where(left)}, by {left.source}." if left is not None else f"{service} is gone."
        return reported(left, service, there, dry=dry_run, as_json=as_json)

    return asyncio.run(removed())
