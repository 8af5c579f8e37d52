"""``muster foreman register``: Smart Proxies that Foreman does not know yet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli.foreman.status import CLIENT
from muster.cli.options import cluster_option, dry_run_option, json_option, pki_directory, pki_option


@click.command()
@cluster_option
@pki_option
@CLIENT
@click.option("--move", is_flag=True, help="Also have Foreman reach those at their URL that it knows at another.")
@dry_run_option
@json_option
def register(
    cluster_path: Path, pki_path: Path | None, client: str | None, move: bool, dry_run: bool, as_json: bool
) -> None:
    """Have Foreman know the Smart Proxies that it does not know yet.

    The cluster as one, at its address, or each member: foreman.registration. They are put into foreman.organizations and
    foreman.locations. Foreman asks each for its features before it takes it. One that Foreman knows at another URL stays
    as it is without --move, and the exit code is 1.
    """
    from muster.cli.foreman.known import tell

    said = asyncio.run(_carried_out(cluster_path, pki_directory(cluster_path, pki_path), client, move, dry_run))
    tell(said, dry_run=dry_run, as_json=as_json)


async def _carried_out(
    cluster_path: Path, pki: Path, client: str | None, move: bool, dry_run: bool
) -> list[dict[str, Any]]:
    from muster.cli.foreman.known import REMEDIES, looked, remember
    from muster.kernel.errors import MusterError

    said: list[dict[str, Any]] = []
    async with looked(cluster_path, pki, client) as found:
        settings = found.cluster.foreman
        ids: dict[str, list[int]] = {}
        if any(v.standing == "absent" for v in found.verdicts):
            # Before anything is changed: a name that is mistyped leaves nothing half done.
            ids = {
                "organizations": await found.records.ids("organizations", settings.organizations),
                "locations": await found.records.ids("locations", settings.locations),
            }
        digests: dict[str, str] = {}
        for one in found.verdicts:
            url, did, failed = one.wanted.url, f"as it was: {one.sentence}", False
            try:
                if one.standing == "absent":
                    did = f"would be registered at {url}"
                    if not dry_run:
                        record = await found.records.register(one.wanted.name, url, **ids)
                        features = ", ".join(sorted(record.features)) or "no features"
                        did = f"registered at {url} as number {record.id}: {features}"
                elif one.standing == "elsewhere" and one.record is not None:
                    did = f"stays at {one.record.url}; --move has Foreman reach it at {url}"
                    if move:
                        did = f"would be moved from {one.record.url} to {url}"
                    if move and not dry_run:
                        await found.records.move(one.record, url)
                        did = f"moved from {one.record.url} to {url}"
                    failed = not move
                if (
                    not dry_run
                    and did.startswith(("registered", "moved"))
                    and (live := found.live.get(one.wanted.name))
                    # Who is told no settings knows no digest of them.
                    and live.digest
                ):
                    digests[url] = live.digest
            except MusterError as e:
                did, failed = str(e), True
            # Of what was left as it was, and is not well.
            remedy = REMEDIES.get(one.standing) if did.startswith("as it was") else None
            said.append({"name": one.wanted.name, "url": url, "did": did, "failed": failed, "remedy": remedy})
        await remember(found.cluster, digests)
    return said
