"""``muster services add``: somebody says where a service is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.change import who
from muster.cli.options import cluster_option, dry_run_option, json_option
from muster.cli.services.place import changed, fields, opened, reported, where


@click.command()
@click.argument("service")
@fields
@cluster_option
@dry_run_option
@json_option
def add(
    service: str,
    control_url: str | None,
    client_urls: tuple[tuple[str, str], ...],
    weight: str | None,
    credentials: str | None,
    cluster_path: Path,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Type in a service that no setting and no member names: KIND or KIND@WORD.

    pulp@MEMBER is that member's own Pulp. The same once more changes nothing.
    """
    change = changed(control_url, client_urls, weight, credentials)

    async def added() -> int:
        async with opened(cluster_path, changes=not dry_run, new=service) as (services, base, _):
            one = await services.add(service, change, by=who(), base=base, dry=dry_run)
        return reported(one, service, f"{service} is {where(one)}.", dry=dry_run, as_json=as_json)

    return asyncio.run(added())
