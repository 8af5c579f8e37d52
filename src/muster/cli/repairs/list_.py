"""``muster repairs list``: what providers have not had, oldest first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.options import cluster_option, json_option, one_line, print_json
from muster.cli.repairs.told import read, sentence


@click.command("list")
@cluster_option
@json_option
def list_(cluster_path: Path, as_json: bool) -> None:
    """List what providers of groups have not had: at which one, since when, and why."""
    found = asyncio.run(read(cluster_path))
    if as_json:
        print_json({"repairs": [r.as_json() for r in found]})
        return
    if not found:
        click.echo("Every provider of every group has had every change.")
    for repair in found:
        click.echo(one_line(sentence(repair)))
