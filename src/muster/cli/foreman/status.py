"""``muster foreman status``: is Foreman mistaken?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli import WRONG
from muster.cli.options import cluster_option, json_option, pki_directory, pki_option, print_json
from muster.kernel.names import shown

CLIENT = click.option(
    "--client", help="Trusted client bundle to show Smart Proxies. [default: the first trusted host's here]"
)


@click.command()
@cluster_option
@pki_option
@CLIENT
@json_option
def status(cluster_path: Path, pki_path: Path | None, client: str | None, as_json: bool) -> None:
    """Compare what Foreman knows with what is; exit 1 when it is mistaken. Changes nothing.

    Needs foreman.url, api_user and api_token_file in the cluster file.
    """
    from muster.cli.foreman.known import LONGEST, REMEDIES, looked

    async def told() -> dict[str, Any]:
        async with looked(cluster_path, pki_directory(cluster_path, pki_path), client) as found:
            return found.as_json()

    said = asyncio.run(told())
    if as_json:
        print_json(said)
    else:
        for one in said["smart_proxies"]:
            why = f" ({one['unasked']})" if one["unasked"] else ""
            click.echo(shown(f"{one['name']}: {one['standing']}: {one['sentence']}{why}", LONGEST))
            if remedy := REMEDIES.get(one["standing"]):
                click.echo(f"  {remedy}")
    if not said["well"]:
        raise click.exceptions.Exit(WRONG)
