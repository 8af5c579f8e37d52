"""``muster openscap retry``: reports are sent to Foreman again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli.openscap.opened import ReportId, meant, opened
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json

_STATES = ("waiting", "refused")
_MOST = 100_000
_AT_ONCE = 500


@click.command()
@click.argument("reports", nargs=-1, type=ReportId(), metavar="[REPORT]...")
@cluster_option
@dry_run_option
@json_option
def retry(reports: tuple[str, ...], cluster_path: Path, dry_run: bool, as_json: bool) -> None:
    """Have reports sent to Foreman again at once: all that wait or were refused, or REPORTs.

    Members send them within seconds; muster openscap spool tells what came of it.
    """
    found = asyncio.run(_retried(reports, cluster_path, dry=dry_run))
    if as_json:
        print_json(found)
    else:
        click.echo(one_line(found["sentence"]))


async def _retried(given: tuple[str, ...], cluster_path: Path, *, dry: bool) -> dict[str, Any]:
    from muster.features.openscap.ledger import listed

    async with opened(cluster_path, changes=not dry) as (_, ledger, store):
        found = await meant(store, given, _STATES) if given else await listed(store, _STATES, _MOST)
        ids = [u.id for u in found]
        count = len(ids)
        if not dry:
            # Each unit of the store ends in time, however many there are.
            count = sum([await ledger.retry(ids[at : at + _AT_ONCE]) for at in range(0, len(ids), _AT_ONCE)])
    what = f"{count} report{'' if count == 1 else 's'}"
    left = f"; {len(ids) - count} are being sent just now" if count < len(ids) else ""
    sentence = f"Would have {what} sent again." if dry else f"{what} will be sent again{left}."
    return {"dry_run": dry, "reports": ids, "sentence": sentence}
