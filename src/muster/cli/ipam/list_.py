"""``muster ipam list``: which addresses are in use, and which are promised."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.ipam.opened import read
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text


@click.command("list")
@click.option("--group", metavar="NAME", help="Only addresses of this group; with '' those of none.")
@cluster_option
@json_option
def list_(group: str | None, cluster_path: Path, as_json: bool) -> None:
    """List the addresses that the cluster keeps, and those that are promised to new hosts.

    Where an IPAM keeps the addresses it says which are in use; here stand the promises alone. Asks the store alone.
    """
    found = asyncio.run(collected(cluster_path, group))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))


async def collected(cluster_path: Path, group: str | None = None) -> dict[str, Any]:
    """Return everything ``muster ipam list`` shows, as one JSON object."""
    from muster.app.settings import store_to_read
    from muster.features.externalipam.promises import promised
    from muster.features.externalipam.providers import UNPROVEN
    from muster.features.externalipam.providers.claims import addresses

    cluster, settings = read(cluster_path)
    is_ours = settings.provider == "claims"
    async with store_to_read(cluster) as store:
        kept = await addresses(store) if is_ours else []
        promises, now = await promised(store)
    whose = f"{settings.provider}/"
    return {
        "cluster": cluster.cluster,
        "provider": settings.provider,
        "unproven": UNPROVEN.get(settings.provider),
        "addresses": [
            {
                "address": str(one.ip), "subnet": one.subnet, "group": one.group, "mac": one.mac,
                "since": datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds"),
            }
            for one in kept
            if group is None or one.group == group
        ],
        "promises": [
            {
                "address": str(one.ip), "subnet": one.subnet, "group": one.space.removeprefix(whose), "mac": one.mac,
                "ends_in_s": round(one.until - now),
            }
            for one in promises
            if one.space.startswith(whose) and (group is None or one.space.removeprefix(whose) == group)
        ],
    }  # fmt: skip


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees: a line an address."""
    parts = []
    if found["unproven"]:
        parts.append(line(f"Provider {found['provider']} is unproven: {found['unproven']}.", "yellow"))
    if not found["addresses"] and not found["promises"]:
        return [*parts, line("No address is in use or promised.", "dim")]
    for one in found["addresses"]:
        parts.append(line(f"{one['address']}  in use since {one['since']}{_of(one)}"))
    for one in found["promises"]:
        parts.append(line(f"{one['address']}  promised for {one['ends_in_s']} s more{_of(one)}", "yellow"))
    return parts


def _of(one: dict[str, Any]) -> str:
    whose = f" to {one['mac']}" if one["mac"] else ""
    group = f" of group {one['group']}" if one["group"] else ""
    return f"{whose}, subnet {one['subnet']}{group}"
