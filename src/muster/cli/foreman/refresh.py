"""``muster foreman refresh``: features anew where Foreman is mistaken."""

from __future__ import annotations

import asyncio
import getpass
from pathlib import Path
from typing import Any

import click

from muster.cli import WRONG
from muster.cli.foreman.status import CLIENT, LONGEST
from muster.cli.options import cluster_option, dry_run_option, json_option, pki_directory, pki_option, print_json
from muster.kernel.names import shown


@click.command()
@cluster_option
@pki_option
@CLIENT
@click.option("--all", "every", is_flag=True, help="Also where Foreman is not mistaken, as far as can be seen.")
@dry_run_option
@json_option
def refresh(
    cluster_path: Path, pki_path: Path | None, client: str | None, every: bool, dry_run: bool, as_json: bool
) -> None:
    """Have Foreman ask for features anew where it is mistaken; exit 1 when one could not be refreshed.

    Foreman keeps features, capabilities and settings from its last refresh. Which settings it keeps it tells nobody: what
    was refreshed from here is remembered by its digest in the store, and another digest is refreshed.
    """
    said = asyncio.run(_carried_out(cluster_path, pki_directory(cluster_path, pki_path), client, every, dry_run))
    if as_json:
        print_json({"dry_run": dry_run, "smart_proxies": said})
    else:
        for one in said:
            click.echo(shown(f"{one['name']}: {one['did']}", LONGEST))
    if any(one["failed"] for one in said):
        raise click.exceptions.Exit(WRONG)


async def _carried_out(
    cluster_path: Path, pki: Path, client: str | None, every: bool, dry_run: bool
) -> list[dict[str, Any]]:
    from muster.cli.foreman.known import looked, refreshed, remember
    from muster.kernel.errors import MusterError

    said: list[dict[str, Any]] = []
    async with looked(cluster_path, pki, client) as found:
        known = await refreshed(found.cluster)
        digests: dict[str, str] = {}
        for one in found.verdicts:
            url, live = one.wanted.url, found.live.get(one.wanted.name)
            # Nobody knows what Foreman has of one that was never refreshed from here.
            first = live is not None and bool(live.digest) and url not in known
            due = one.standing == "outdated" or (one.standing == "well" and (every or first))
            did, failed = f"as it was: {one.sentence}", one.standing not in ("well", "outdated")
            try:
                if due and one.record is not None:
                    did = f"would be refreshed: {one.sentence}"
                    if not dry_run:
                        record = await found.records.refresh(one.record)
                        did = f"refreshed: {', '.join(sorted(record.features)) or 'no features'}"
                        if live is not None and live.digest:
                            digests[url] = live.digest
            except MusterError as e:
                did, failed = str(e), True
            said.append({"name": one.wanted.name, "url": url, "did": did, "failed": failed})
        if digests:
            await remember(found.cluster, digests, by=getpass.getuser())
    return said
