"""``muster content verify``: members look through what they keep of mirrored repositories."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.content.work import asks, on_members
from muster.cli.offered import members


@click.command()
@click.option("--member", shell_complete=members, help="Only this one. [default: all that are there]")
@asks
def verify(member: str | None, cluster_path: Path, is_left: bool, dry_run: bool, as_json: bool) -> int:
    """Have members look whether what lies on their disks is what it should be; what is not is fetched again.

    Each member reads what it keeps of mirrored repositories and compares digests. That takes a while, and much of the disk.
    """
    return on_members("verify", member, cluster_path, is_left=is_left, dry_run=dry_run, as_json=as_json)
