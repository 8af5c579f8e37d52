"""``muster services set``: somebody says where a service is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.change import who
from muster.cli.options import cluster_option, dry_run_option, json_option
from muster.cli.services.place import changed, expected_option, fields, followed, opened, reported, where


@click.command("set")
@click.argument("service")
@fields
@expected_option
@cluster_option
@dry_run_option
@json_option
def set_(
    service: str,
    control_url: str | None,
    client_urls: tuple[tuple[str, str], ...],
    weight: str | None,
    credentials: str | None,
    expected: int | None,
    cluster_path: Path,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Type in where SERVICE is, whatever settings say.

    What is not named stays as it is. Where a Pulp is members tell from then on, with the feature pulpcore; Foreman
    hears it at its next refresh of the proxy. Of all else members go by the cluster file.
    """
    change = changed(control_url, client_urls, weight, credentials)

    async def done() -> int:
        async with opened(cluster_path, changes=not dry_run) as (services, base, cluster):
            one = await services.set(service, change, by=who(), base=base, expected=expected, dry=dry_run)
        sentence = " ".join(filter(None, (f"{service} is {where(one)}.", followed(service, cluster))))
        return reported(one, service, sentence, dry=dry_run, as_json=as_json)

    return asyncio.run(done())
