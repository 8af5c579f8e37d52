"""``muster content jobs``: work on mirrored and steered repositories, and what environments got."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.content.mirrored import DIGITS, Place, clock
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {"failed": "red", "cancelled": "yellow", "running": "green"}


@click.command()
@click.option(
    "--promotions", "is_of_promotions", is_flag=True, help="What environments got, by whom, in place of jobs."
)
@click.option("--open", "is_open", is_flag=True, help="Only jobs that are not over.")
@click.option(
    "--most", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, the newest first."
)
@cluster_option
@json_option
def jobs(is_of_promotions: bool, is_open: bool, most: int, cluster_path: Path, as_json: bool) -> None:
    """Show work on repositories: what is asked for, how far it is, and what came of it; and which Pulps do not follow.

    Jobs are remembered for 30 days after their end, promotions for 400.
    """
    if is_of_promotions and is_open:
        raise click.UsageError("--open is of jobs, and not of --promotions")
    if is_of_promotions:
        found, told = asyncio.run(promoted(cluster_path, most)), shown_promotions
    else:
        found, told = asyncio.run(collected(cluster_path, most, is_open=is_open)), shown
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: told(found))


async def collected(cluster_path: Path, most: int, *, is_open: bool = False) -> dict[str, Any]:
    """Return the jobs that ``muster content jobs`` shows, as one JSON object."""
    place = Place.of(cluster_path)
    async with place.recorded() as (recorded, store):
        now = await clock(store)
        known = await recorded.jobs(most, is_open=True if is_open else None)
    behind = []
    if place.steered is not None:
        async with place.flips() as (flips, _):
            behind = [
                asdict(f) for f in await flips.followers()
                if f.why and f.repository in place.steered.repositories and f.pulp in place.steered.pulps
            ]  # fmt: skip
    return {"cluster": place.cluster.cluster, "now": now, "jobs": [asdict(j) for j in known], "behind": behind}


async def promoted(cluster_path: Path, most: int) -> dict[str, Any]:
    """Return what ``muster content jobs --promotions`` shows, as one JSON object."""
    place = Place.of(cluster_path)
    async with place.recorded() as (recorded, store):
        now = await clock(store)
        known = await recorded.history(limit=most)
    return {"cluster": place.cluster.cluster, "now": now, "promotions": [asdict(m) for m in known]}


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees of jobs: what each is, and under it how it stands."""
    from muster.content.states import ago

    parts = []
    for job in found["jobs"]:
        what = " ".join(p for p in (job["kind"], job["repository"], job["member"] and f"on {job['member']}") if p)
        parts.append(line(f"{job['id']}  {what}", _STYLES.get(job["state"], "")))
        at = job["ended_at"] or job["started_at"] or job["asked_at"]
        state = "being cancelled" if job["is_unwanted"] and job["state"] == "running" else job["state"]
        far = f", {percent(job)}" if job["state"] == "running" and percent(job) else ""
        stands = f"{state}{' for' if job['state'] in ('asked', 'running') else ''} {ago(found['now'] - at)}"
        stands += "" if job["state"] in ("asked", "running") else " ago"
        by = f", by {job['holder']}" if job["state"] == "running" and job["holder"] else ""
        parts.append(line(f"    {stands}{far}{by}; asked for by {job['asked_by']}"))
        if job["sentence"]:
            parts.append(line(f"    {job['sentence']}", "red" if job["state"] == "failed" else ""))
    for one in found.get("behind", ()):
        since = ago(found["now"] - one["since"])
        parts.append(line(f"{one['pulp']} does not follow with {one['repository']}, for {since}", "red"))
        parts.append(line(f"    {one['why']}"))
    return parts or [line("There are none.", "dim")]


def percent(job: dict[str, Any]) -> str:
    """Return how far a job is; empty: nobody knows."""
    return f"{100 * min(job['done'], job['of']) // job['of']} %" if job["of"] > 0 else ""


def shown_promotions(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees of promotions."""
    from datetime import UTC, datetime

    parts = []
    for one in found["promotions"]:
        at = datetime.fromtimestamp(one["at"], UTC)
        now, before = (one[k][:DIGITS] or "nothing" for k in ("publication", "previous"))
        parts.append(line(f"{at:%Y-%m-%d %H:%M:%SZ}  {one['environment']}  {one['repository']}"))
        parts.append(line(f"    {now}, was {before}, by {one['by']}"))
    return parts or [line("There are none.", "dim")]
