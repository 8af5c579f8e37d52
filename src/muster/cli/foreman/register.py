"""``muster foreman register``: Smart Proxies that Foreman does not know yet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.foreman.status import CLIENT
from muster.cli.options import cluster_option, dry_run_option, json_option, pki_directory, pki_option

if TYPE_CHECKING:
    from muster.observed.registered import Verdict


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
    from muster.cli.foreman.known import Act, Done, Looked, carried_out, tell

    async def registering(found: Looked) -> Act:
        ids: dict[str, list[int]] = {}
        if any(v.standing == "absent" for v in found.verdicts):
            # Before anything is changed: a name that is mistyped leaves nothing half done.
            settings = found.cluster.foreman
            ids = {
                "organizations": await found.records.ids("organizations", settings.organizations),
                "locations": await found.records.ids("locations", settings.locations),
            }

        async def registered(one: Verdict) -> Done:
            url, record = one.wanted.url, one.record
            if one.standing == "absent":
                if dry_run:
                    return Done(f"would be registered at {url}")
                new = await found.records.register(one.wanted.name, url, **ids)
                features = ", ".join(sorted(new.features)) or "no features"
                return Done(f"registered at {url} as number {new.id}: {features}", was_asked=True)
            if one.standing != "elsewhere" or record is None:
                return Done.left(one)
            if not move:
                return Done(f"stays at {record.url}; --move has Foreman reach it at {url}", failed=True)
            if dry_run:
                return Done(f"would be moved from {record.url} to {url}")
            await found.records.move(record, url)
            return Done(f"moved from {record.url} to {url}", was_asked=True)

        return registered

    said = asyncio.run(carried_out(cluster_path, pki_directory(cluster_path, pki_path), client, registering))
    tell(said, dry_run=dry_run, as_json=as_json)
