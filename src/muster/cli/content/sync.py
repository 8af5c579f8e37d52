"""``muster content sync``: members, or the Pulps that they steer, fetch what an origin has now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from muster.cli.content.mirrored import Place
from muster.cli.content.work import Asked, Work, asks
from muster.cli.offered import repositories
from muster.kernel.errors import NotFound


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=repositories)
@click.option("--all", "is_all", is_flag=True, help="Every repository of the cluster file.")
@asks
def sync(names: tuple[str, ...], is_all: bool, cluster_path: Path, is_left: bool, dry_run: bool, as_json: bool) -> int:
    """Fetch what the origins of NAMEs have now, and let the first environment have it; exit 1 when one failed.

    A member does it, and goes on when this command is interrupted. What the origin has not changed stays as it is. Of a
    repository of content.steered the Pulps fetch it, and are turned to it all at once.
    """
    if bool(names) == is_all:
        raise click.UsageError("Name repositories, or say --all" + (", not both." if is_all else "."))
    place = Place.of(cluster_path)
    if not place.names:
        raise NotFound(f"{cluster_path} names no repository to mirror (content.mirror.repositories)")
    wanted = place.names if is_all else list(dict.fromkeys(names))
    for name in wanted:
        place.is_steered(name)

    def targets(_there: Sequence[str]) -> list[Asked]:
        return [Asked(name) for name in wanted]

    return Work(place, "sync", targets, is_left, dry_run, as_json).carried_out()
