"""``muster netboot remove``: boot files that are there no more, on any member."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli.netboot.opened import opened
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--recursive", is_flag=True, help="Also everything below them.")
@cluster_option
@dry_run_option
@json_option
def remove(paths: tuple[str, ...], recursive: bool, cluster_path: Path, dry_run: bool, as_json: bool) -> None:
    """Remove PATHs from the cluster's tree of boot files.

    All of them, or none when one is not there.
    """
    found = asyncio.run(_removed(paths, cluster_path, recursive=recursive, dry=dry_run))
    if as_json:
        print_json(found)
    else:
        click.echo(one_line(found["sentence"]))


async def _removed(paths: tuple[str, ...], cluster_path: Path, *, recursive: bool, dry: bool) -> dict[str, Any]:
    from muster.kernel.errors import NotFound
    from muster.netboot.confirmed import confirmed
    from muster.netboot.contract import BootPath, Change, Remove, RemoveBelow

    changes: list[Change] = []
    gone: list[str] = []
    async with opened(cluster_path, changes=not dry) as (cluster, ledger):
        for text in paths:
            path = BootPath.parse(text.strip("/"))
            below = await ledger.below(path.text) if recursive else []
            if await ledger.at(path) is not None:
                changes.append(Remove(path))
                gone.append(path.text)
            elif below:
                changes.append(RemoveBelow(path))
                gone += [str(e.path) for e in below]
            else:
                hint = (
                    "" if recursive or not await ledger.below(path.text) else "; with --recursive what is below it goes"
                )
                raise NotFound(f"There is no boot file {path}{hint}; nothing was changed")
        out: list[str] = []
        if not dry:
            version = await ledger.change(changes)
            out = list(await confirmed(ledger, version, within_s=cluster.netboot.confirm_s))
    held = f"; {', '.join(out)} did not confirm it and takes no clients until it has" if out else ""
    count = f"{len(gone)} boot file{'s' if len(gone) != 1 else ''}"
    done = f"Would remove {count}" if dry else f"Removed {count}"
    return {"dry_run": dry, "removed": gone, "taken_out": out, "sentence": f"{done}{held}."}
