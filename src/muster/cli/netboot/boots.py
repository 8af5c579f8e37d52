"""``muster netboot boots``: the machines that booted last, and how far each came."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@cluster_option
@json_option
def boots(cluster_path: Path, as_json: bool) -> None:
    """Show the machines of which members saw something last, and how far each came.

    At most twenty, the newest first; ``muster explain MAC`` tells the whole story of one. Asks the store alone.
    """
    found = asyncio.run(collected(cluster_path))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))


async def collected(cluster_path: Path) -> list[dict[str, Any]]:
    """Return everything ``muster netboot boots`` shows, each as ``muster explain --json`` does."""
    from muster.cli.netboot.opened import opened_stories
    from muster.netboot.story import ledger, told

    async with opened_stories(cluster_path) as store, store.read() as uow:
        return [s.as_json() for s in told.recent(await ledger.newest(uow))]


def shown(found: list[dict[str, Any]]) -> list[Text]:
    """Return what a person sees: two lines a machine."""
    if not found:
        return [line("No machine has booted lately.", "dim")]
    parts = []
    for one in found:
        last = one["happenings"][-1]
        known = ", ".join([*one["names"][-1:], *one["addresses"][-1:]])
        style = "green" if one["stage"] == "built" else "yellow"
        parts.append(line(f"{one['mac']}  {known}  {last['at'][:19].replace('T', ' ')}  {one['stage']}", style))
        parts.append(line(f"    {one['stops']}", "dim"))
    return parts
