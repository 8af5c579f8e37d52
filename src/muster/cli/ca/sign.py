"""``muster ca sign``: requests become certificates."""

from __future__ import annotations

import click

from muster.cli.ca.actor import actor
from muster.cli.ca.certname import Certname
from muster.cli.ca.each import each
from muster.cli.ca.place import Place, placed
from muster.cli.options import dry_run_option, json_option


@click.command()
@click.argument("certnames", nargs=-1, type=Certname())
@click.option("--all", "every", is_flag=True, help="Every request that waits.")
@click.option("--ttl-days", type=click.IntRange(1, 18_250), help="How long. [default: authority.cert_ttl_days]")
@dry_run_option
@json_option
@placed
async def sign(
    place: Place, certnames: tuple[str, ...], every: bool, ttl_days: int | None, dry_run: bool, as_json: bool
) -> int:
    """Sign the requests of CERTNAMES."""
    import json

    if bool(certnames) == every:
        raise click.UsageError("Name who is signed, or use --all")
    async with place.opened("On {signer}: puppetserver ca sign --certname NAME", changes=not dry_run) as authority:
        names = (
            [json.loads(s)["name"] for s in await authority.certificates.statuses("requested")] if every else certnames
        )
        ttl_s = ttl_days * 86_400 if ttl_days else None
        do = None if dry_run else lambda n: authority.requests.sign(n, actor=actor(), ttl_s=ttl_s)
        return await each(authority, names, "sign", do, as_json=as_json)
