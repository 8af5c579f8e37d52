"""``muster netboot files``: the boot files of the cluster."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.netboot.opened import opened
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@click.argument("directory", required=False, default="")
@cluster_option
@json_option
def files(directory: str, cluster_path: Path, as_json: bool) -> None:
    """Show the boot files, or those below DIRECTORY.

    Each with its size, or where a link leads, and where it was fetched from. Files that members have beside them, in the
    same directory, are none of the cluster's.
    """
    found = asyncio.run(collected(cluster_path, directory.strip("/")))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))


async def collected(cluster_path: Path, directory: str = "") -> dict[str, Any]:
    """Return everything ``muster netboot files`` shows, as one JSON object."""
    async with opened(cluster_path) as (cluster, ledger):
        found = await ledger.below(directory)
    return {
        "cluster": cluster.cluster,
        "directory": directory,
        "files": [{**asdict(e), "path": str(e.path)} for e in found],
    }


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees: a line a file."""
    from muster.content.sizes import size

    below = f" below {found['directory']}" if found["directory"] else ""
    if not found["files"]:
        return [line(f"There are no boot files{below}.", "dim")]
    return [
        line(
            f"{f['path']} -> {f['target']}"
            if f["kind"] == "link"
            else f"{f['path']}  {size(f['size'])}{', from ' + f['origin'] if f['origin'] else ''}"
        )
        for f in found["files"]
    ]
