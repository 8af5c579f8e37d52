"""``muster services list``: the register, an entry a row."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.options import cluster_option, json_option, one_line, print_json, print_parts
from muster.cli.services.place import read

if TYPE_CHECKING:
    from rich.table import Table

    from muster.cluster.service import Register


@click.command("list")
@cluster_option
@json_option
def list_(cluster_path: Path, as_json: bool) -> None:
    """List the services behind the cluster: where each is, how much depends on it, and who says so."""
    found = asyncio.run(read(cluster_path))
    if as_json:
        print_json({"services": [one.as_json() for one in found.services.values()]})
    else:
        print_parts(lambda _: [_table(found)])


def _table(found: Register) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("service", "control URL", "for clients", "weight", "source"):
        table.add_column(column, overflow="fold")
    for one in found.services.values():
        clients = "\n".join(one_line(f"{network}: {url}") for network, url in one.client_urls.items())
        cells = (one.name, one.control_url or "–", clients or "–", one.weight, one.source)
        table.add_row(*(Text(one_line(c) if c is not clients else c) for c in cells))
    return table
