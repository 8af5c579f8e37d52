"""``muster openscap spool``: the reports that Foreman does not have."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.openscap.opened import opened
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text

_DIGITS = 8


@click.command()
@click.option(
    "--state", type=click.Choice(["waiting", "refused", "sent"]), multiple=True,
    help="Only those in this state; by default waiting and refused.",
)  # fmt: skip
@click.option(
    "--most", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many, the newest first."
)
@cluster_option
@json_option
def spool(state: tuple[str, ...], most: int, cluster_path: Path, as_json: bool) -> int:
    """Show the reports that Foreman does not have, and why; exit 1 when some were refused, or wait for an hour.

    Those that it has are kept for it: --state sent.
    """
    found = asyncio.run(collected(cluster_path, state or ("waiting", "refused"), most))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))
    return WRONG if found["needs_somebody"] else 0


async def collected(cluster_path: Path, states: tuple[str, ...], most: int) -> dict[str, Any]:
    """Return everything ``muster openscap spool`` shows, as one JSON object."""
    from muster.features.openscap.checks import STUCK_S
    from muster.features.openscap.ledger import counted, listed

    async with opened(cluster_path) as (cluster, _, store):
        counts, now = await counted(store)
        found = await listed(store, states, most)
    oldest_at = counts["waiting"].oldest_at
    return {
        "cluster": cluster.cluster,
        "now": now,
        "counts": {state: asdict(count) for state, count in counts.items()},
        "needs_somebody": bool(counts["refused"].reports or (oldest_at is not None and now - oldest_at > STUCK_S)),
        "reports": [asdict(u) for u in found],
    }


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees: how many there are, and each with what Foreman said."""
    from muster.content.sizes import size
    from muster.content.states import ago

    counts = found["counts"]
    parts = [
        line(
            ", ".join(
                f"{counts[s]['reports']} {word} ({size(counts[s]['bytes'])})"
                for s, word in (("waiting", "wait"), ("refused", "refused"), ("sent", "kept for Foreman"))
            ),
            "red" if found["needs_somebody"] else "dim",
        )
    ]
    for one in found["reports"]:
        stands = f"{one['state']}, for {ago(found['now'] - one['accepted_at'])}"
        tried = f", tried {one['attempts']} times" if one["attempts"] > 1 else ""
        parts.append(line(f"{one['id'][:_DIGITS]}  {one['cname']}, policy {one['policy']}, {size(one['size'])}"))
        known = f", Foreman's {one['foreman_id']}" if one["foreman_id"] else ""
        parts.append(line(f"    {stands}{tried}{known}", "red" if one["state"] == "refused" else ""))
        if one["why"]:
            parts.append(line(f"    {one['why']}"))
    return parts
