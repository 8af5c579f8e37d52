"""``muster services list``: the register, each URL on a line of its own, whole however narrow the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.options import cluster_option, json_option, one_line, print_json
from muster.cli.services.place import read

if TYPE_CHECKING:
    from muster.cluster.service import Service


@click.command("list")
@cluster_option
@json_option
def list_(cluster_path: Path, as_json: bool) -> None:
    """List the services behind the cluster: where each is, how much depends on it, and who says so."""
    found = asyncio.run(read(cluster_path))
    if as_json:
        print_json({"services": [one.as_json() for one in found.services.values()]})
        return
    for one in found.services.values():
        for text in _lines(one):
            click.echo(one_line(text))


def _lines(one: Service) -> Iterator[str]:
    yield f"{one.name}: {one.weight}, by {one.source}"
    yield f"    {'control URL':12} {one.control_url or 'nobody said'}"
    for network, url in one.client_urls.items():
        yield f"    {'for ' + network:12} {url}"
