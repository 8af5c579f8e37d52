"""``muster netboot status``: how far each member is with the boot files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.netboot.opened import opened
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text

_MOST_LACKS = 5


@click.command()
@cluster_option
@json_option
def status(cluster_path: Path, as_json: bool) -> int:
    """Show how far each member is with the boot files, and what is being fetched; exit 1 when one is behind.

    A member that is fenced takes no clients until it has what was acknowledged. Asks the store alone.
    """
    found = asyncio.run(collected(cluster_path))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))
    return WRONG if any(m["is_wrong"] for m in found["members"]) else 0


async def collected(cluster_path: Path) -> dict[str, Any]:
    """Return everything ``muster netboot status`` shows, as one JSON object."""
    async with opened(cluster_path) as (cluster, ledger):
        tree = await ledger.tree("")
        standings = {s.member: s for s in await ledger.standings()}
        files = await ledger.below("")
    members = []
    for name in [str(m.name) for m in cluster.members if m.kind == "muster"]:
        one = standings.get(name)
        version = one.version if one is not None else 0
        fenced = one is not None and one.fenced > version
        said: dict[str, Any] = {
            "name": name, "version": version, "takes_clients": one is not None and one.counts, "fenced": fenced,
            "lacks": sorted(one.lacks) if one is not None else [], "trouble": one.trouble if one is not None else "",
        }  # fmt: skip
        members.append({**said, "is_wrong": fenced or version < tree.version or bool(said["lacks"])})
    return {
        "cluster": cluster.cluster,
        "version": tree.version,
        "files": len(files),
        "bytes": sum(f.size for f in files),
        "members": members,
    }


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees."""
    from muster.content.sizes import size

    count = found["files"]
    parts = [
        line(
            f"{count} boot file{'s' if count != 1 else ''}, {size(found['bytes'])}, version {found['version']}", "bold"
        )
    ]
    for one in found["members"]:
        if one["version"] >= found["version"]:
            said, style = "has them all" if not one["lacks"] else "has them", "yellow" if one["lacks"] else "green"
        else:
            said, style = f"is at version {one['version']}", "red" if one["fenced"] else "yellow"
        out = ", takes no clients until it has" if one["fenced"] else "" if one["takes_clients"] else ", is not ready"
        parts.append(line(f"  {one['name']} {said}{out}", style))
        if one["lacks"]:
            more = f" and {len(one['lacks']) - _MOST_LACKS} more" if len(one["lacks"]) > _MOST_LACKS else ""
            parts.append(line(f"    on their way: {', '.join(one['lacks'][:_MOST_LACKS])}{more}", "yellow"))
        if one["trouble"]:
            parts.append(line(f"    {one['trouble']}", "yellow"))
    return parts
