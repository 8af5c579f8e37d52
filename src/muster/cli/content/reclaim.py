"""``muster content reclaim``: members remove what they keep of mirrored repositories and nobody needs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.ca.actor import actor
from muster.cli.content.mirrored import Place
from muster.cli.content.work import asks, on_members
from muster.cli.offered import members
from muster.cli.options import one_line


@click.command()
@click.option("--member", shell_complete=members, help="Only this one. [default: all that are there]")
@asks
def reclaim(member: str | None, cluster_path: Path, is_left: bool, dry_run: bool, as_json: bool) -> int:
    """Have members remove from their disks what no publication that is remembered needs.

    Packages of an on_demand repository that are removed are fetched again when somebody asks for one. Without --member, what
    the store has of repositories and environments goes first that the cluster file names no more, unless that changed within
    a day.
    """
    if member is None:
        for line in asyncio.run(_dropped(Place.of(cluster_path), dry=dry_run)):
            click.echo(one_line(line), err=True)
    return on_members("reclaim", member, cluster_path, is_left=is_left, dry_run=dry_run, as_json=as_json)


async def _dropped(place: Place, *, dry: bool) -> list[str]:
    """Drop what the cluster file names no more, and return what that was, in lines."""
    repositories, environments = place.settings.repositories, place.settings.environments
    async with place.ledger(dry=dry) as (ledger, _):
        if not dry:
            found = await ledger.drop(repositories, environments, by=actor())
            paths, publications = list(found.distributions), list(found.publications)
        else:
            given = (await ledger.given()).values()
            paths = [d.path for d in given if d.repository not in repositories or d.environment not in environments]
            published = await ledger.publications()
            publications = [(p.repository, p.digest) for p in published if p.repository not in repositories]
    would = "would be, unless that changed within a day," if dry else ""
    names = sorted({repository for repository, _ in publications})
    said = [f"{path} {would or 'is'} given no more." for path in paths]
    return [*said, *(f"Publications of {name} {would or 'are'} forgotten." for name in names)]
