"""``muster content reclaim``: members remove what they keep of mirrored repositories and nobody needs."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.content.work import asks, on_members


@click.command()
@click.option("--member", help="Only this one. [default: all that are there]")
@asks
def reclaim(member: str | None, cluster_path: Path, is_left: bool, dry_run: bool, as_json: bool) -> int:
    """Have members remove from their disks what no publication that is remembered needs.

    Packages of an on_demand repository that are removed are fetched again when somebody asks for one.
    """
    return on_members("reclaim", member, cluster_path, is_left=is_left, dry_run=dry_run, as_json=as_json)
