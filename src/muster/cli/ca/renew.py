"""``muster ca renew``: certificates for the keys that hosts have."""

from __future__ import annotations

import click

from muster.cli.ca.actor import actor
from muster.cli.ca.certname import Certname
from muster.cli.ca.each import each
from muster.cli.ca.place import Place, placed
from muster.cli.options import dry_run_option, json_option


@click.command()
@click.argument("certnames", nargs=-1, required=True, type=Certname())
@click.option("--ttl-days", type=click.IntRange(1, 18_250), help="How long. [default: authority.cert_ttl_days]")
@dry_run_option
@json_option
@placed
async def renew(place: Place, certnames: tuple[str, ...], ttl_days: int | None, dry_run: bool, as_json: bool) -> int:
    """Issue the certificates of CERTNAMES anew, for the keys they have; the old ones stay valid until they end.

    Hosts fetch theirs with puppet ssl download_cert. Agents of version 8 renew by themselves (allow_auto_renewal).
    """
    ttl_s = ttl_days * 86_400 if ttl_days else None
    async with place.opened(
        "There: clean the host's certificate, and let it ask anew.", changes=not dry_run
    ) as authority:
        do = None if dry_run else lambda n: authority.certificates.renew_name(n, actor=actor(), ttl_s=ttl_s)
        return await each(authority, certnames, "renew", do, as_json=as_json)
