"""``muster content publications``: the states of mirrored and steered repositories that are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.content.mirrored import DIGITS, UNNAMED, Place, clock, counted
from muster.cli.offered import repositories
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts
from muster.content.sizes import size

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@click.argument("name", required=False, shell_complete=repositories)
@cluster_option
@json_option
def publications(name: str | None, cluster_path: Path, as_json: bool) -> None:
    """Show the publications of repositories, the newest first, and which environments, or which Pulps, have each.

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
    is_steered = name is not None and place.is_steered(name)
    steered = place.steered.repositories if place.steered is not None else {}
    by_pulps = await _steered(place, [name] if name is not None and is_steered else [] if name else list(steered))
    if is_steered:
        return {"cluster": place.cluster.cluster, "repositories": {}, "unnamed": [], "steered": by_pulps}
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
    return {"cluster": place.cluster.cluster, "repositories": by_name, "unnamed": unnamed, "steered": by_pulps}


async def _steered(place: Place, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what the Pulps were turned to, the newest first, and which are by now."""
    if not names:
        return {}
    async with place.flips() as (flips, store):
        now = await clock(store)
        pulps = place.steered.pulps if place.steered is not None else ()
        followers = [f for f in await flips.followers() if f.pulp in pulps]
        known = {name: await flips.flips(name) for name in names}
    return {
        name: [
            {
                **asdict(one), "age_s": now - one.at,
                "turned": sorted(f.pulp for f in followers if (f.repository, f.generation) == (name, one.generation)),
                "behind": {f.pulp: f.why for f in followers if f.repository == name and f.why} if not n else {},
            }
            for n, one in enumerate(found)
        ]
        for name, found in known.items()
    }  # fmt: skip


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
    for name, turned in found.get("steered", {}).items():
        parts.append(line(name if turned else f"{name}: nothing is published yet"))
        for one in turned:
            of = ", published again" if one["of"] else ""
            what = counted(one["packages"], "package")
            parts.append(line(f"    {one['digest'][:DIGITS]}  turned to {ago(one['age_s'])} ago, {what}{of}"))
            if one["turned"]:
                parts.append(line(f"        {', '.join(one['turned'])}", "green"))
            parts += [line(f"        {pulp} does not follow: {why}", "red") for pulp, why in one["behind"].items()]
    return parts or [line("The cluster file names no repository to mirror.", "dim")]
