"""``muster content counts``: what each environment has of mirrored repositories."""

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
@cluster_option
@json_option
def counts(cluster_path: Path, as_json: bool) -> None:
    """Show how many packages, and of what size, each environment has of each mirrored repository.

    That is what clients of it can get; what of it lies on which member's disk depends on the repository's policy.
    """
    found = asyncio.run(collected(cluster_path))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))


async def collected(cluster_path: Path) -> dict[str, Any]:
    """Return everything ``muster content counts`` shows, as one JSON object."""
    place = Place.of(cluster_path)
    async with place.recorded() as (recorded, store):
        now = await clock(store)
        known = await recorded.counts()
    by_name: dict[str, list[dict[str, Any]]] = {e: [] for e in place.settings.environments}
    for one in known:
        by_name.setdefault(one.environment, []).append(
            {**asdict(one), "since_s": now - one.since, "is_named": one.repository in place.settings.repositories}
        )
    return {
        "cluster": place.cluster.cluster,
        "environments": [
            {
                "name": name, "packages": sum(r["packages"] for r in has), "size_bytes": sum(r["size_bytes"] for r in has),
                "repositories": has, "is_named": name in place.settings.environments,
            }
            for name, has in by_name.items()
        ],
    }  # fmt: skip


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees: of each environment its repositories."""
    from muster.content.states import ago

    parts = []
    for one in found["environments"]:
        has = one["repositories"]
        count = f"{len(has)} repositor{'y' if len(has) == 1 else 'ies'}"
        total = f"{count}, {counted(one['packages'], 'package')}, {size(one['size_bytes'])}"
        unnamed = "" if one["is_named"] else UNNAMED
        parts.append(line(f"{one['name']}{unnamed}: {total if has else 'nothing'}", "bold"))
        for r in has:
            what = f"{counted(r['packages'], 'package')}, {size(r['size_bytes'])}"
            parts.append(line(f"    {r['repository']}{'' if r['is_named'] else UNNAMED}"))
            parts.append(line(f"        {r['publication'][:DIGITS]} for {ago(r['since_s'])}, {what}"))
    return parts
