"""``muster content publications``: the states of mirrored repositories that are remembered."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.content.mirrored import DIGITS, UNNAMED, Place, clock, counted
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts
from muster.content.sizes import size

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@click.argument("name", required=False)
@cluster_option
@json_option
def publications(name: str | None, cluster_path: Path, as_json: bool) -> None:
    """Show the publications of mirrored repositories, the newest first, and which environments have each.

    With NAME: of that one. content.mirror.publications says how many are remembered beside those that environments have.
    """
    found = asyncio.run(collected(cluster_path, name))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))


async def collected(cluster_path: Path, name: str | None = None) -> dict[str, Any]:
    """Return everything ``muster content publications`` shows, as one JSON object."""
    place = Place.of(cluster_path)
    if name is not None:
        place.repository(name)
    async with place.recorded() as (recorded, store):
        now = await clock(store)
        known, given = await recorded.publications(name), await recorded.given()
    order = {e: n for n, e in enumerate(place.settings.environments)}
    by_name: dict[str, list[dict[str, Any]]] = {n: [] for n in ([name] if name else place.settings.repositories)}
    for one in known:
        has = {d.environment for d in given.values() if (d.repository, d.publication) == (one.repository, one.digest)}
        environments = sorted(has, key=lambda e: (order.get(e, len(order)), e))
        said = {**asdict(one), "digest": one.digest, "age_s": now - one.made_at, "environments": environments}
        by_name.setdefault(one.repository, []).append(said)
    unnamed = sorted(by_name.keys() - place.settings.repositories.keys())
    return {"cluster": place.cluster.cluster, "repositories": by_name, "unnamed": unnamed}


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees: of each repository its publications."""
    from muster.content.states import ago

    parts = []
    for name, known in found["repositories"].items():
        title = f"{name}{UNNAMED if name in found.get('unnamed', ()) else ''}"
        parts.append(line(title if known else f"{title}: nothing is published yet"))
        for one in known:
            what = f"{counted(one['packages'], 'package')}, {size(one['size_bytes'])}"
            of = f", content of {one['of'][:DIGITS]}" if one["of"] else ""
            parts.append(line(f"    {one['digest'][:DIGITS]}  made {ago(one['age_s'])} ago, {what}{of}"))
            if one["environments"]:
                parts.append(line(f"        {', '.join(one['environments'])}", "green"))
    return parts or [line("The cluster file names no repository to mirror.", "dim")]
