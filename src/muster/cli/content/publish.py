"""``muster content publish``: older content of a repository, published again as something newer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from muster.cli.content.mirrored import Place
from muster.cli.content.work import Asked, Work, asks
from muster.cli.offered import repositories


@click.command()
@click.argument("name", shell_complete=repositories)
@click.option("--of", "prefix", metavar="PUBLICATION", required=True, help="Eight digits of it at least.")
@asks
def publish(name: str, prefix: str, cluster_path: Path, is_left: bool, dry_run: bool, as_json: bool) -> int:
    """Publish the content of an older publication of NAME again, as something newer; exit 1 when that failed.

    For clients that would not go back to something older, which promote is for. The first environment gets it; of a
    repository of content.steered the Pulps publish it, and are turned to it all at once. What is signed cannot be
    published again, for no signature would fit.
    """
    place = Place.of(cluster_path)
    place.is_steered(name)
    publication = asyncio.run(_named(place, name, prefix))

    def targets(_there: Sequence[str]) -> list[Asked]:
        return [Asked(name, publication=publication)]

    return Work(place, "publish", targets, is_left, dry_run, as_json).carried_out()


async def _named(place: Place, name: str, prefix: str) -> str:
    if place.is_steered(name):
        from muster.content.steered.ledger import chosen

        async with place.flips() as (flips, _):
            return chosen(await flips.flips(name), name, prefix).digest
    async with place.ledger(dry=True) as (ledger, _):
        return (await ledger.publication(name, prefix)).digest
