"""``muster content cancel``: nothing more shall come of a job."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

import click

from muster.cli.ca.actor import actor
from muster.cli.content.mirrored import Place
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json


@click.command()
@click.argument("job", type=click.IntRange(1, (1 << 63) - 1))
@cluster_option
@dry_run_option
@json_option
def cancel(job: int, cluster_path: Path, dry_run: bool, as_json: bool) -> int:
    """Cancel JOB, by its number; what of it is done stays, and clients get what they got before."""
    return asyncio.run(_cancelled(job, cluster_path, dry_run=dry_run, as_json=as_json))


async def _cancelled(number: int, cluster_path: Path, *, dry_run: bool, as_json: bool) -> int:
    place = Place.of(cluster_path)
    async with place.ledger(dry=dry_run) as (ledger, _):
        job = await ledger.job(number) if dry_run else await ledger.cancel(number, by=actor())
    what = f"Job {number} ({' '.join(p for p in (job.kind, job.repository) if p)})"
    if dry_run:
        is_no_use = job.is_over or job.is_unwanted
        sentence = f"Nothing was changed; {what} {f'is {job.state} already' if is_no_use else 'would be cancelled'}."
    elif job.is_over:
        sentence = f"{what} is cancelled."
    else:
        sentence = f"{what} is being cancelled: {job.holder} is told at its next step."
    if as_json:
        print_json({"dry_run": dry_run, "sentence": sentence, "job": asdict(job)})
    else:
        click.echo(one_line(sentence))
    return 0
