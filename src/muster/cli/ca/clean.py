"""``muster ca clean``: certificates revoked and forgotten."""

from __future__ import annotations

import click

from muster.cli.ca.actor import actor
from muster.cli.ca.certname import Certname
from muster.cli.ca.each import each, each_told
from muster.cli.ca.place import Place, placed
from muster.cli.options import dry_run_option, json_option


@click.command()
@click.argument("certnames", nargs=-1, required=True, type=Certname())
@dry_run_option
@json_option
@placed
async def clean(place: Place, certnames: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Revoke and forget the certificates of CERTNAMES, so that the hosts can ask anew."""
    async with place.opened("On {signer}: puppetserver ca clean --certname NAME", changes=not dry_run) as authority:
        if dry_run:
            return await each(authority, certnames, "clean", None, as_json=as_json)
        missing = await authority.certificates.clean(certnames, actor=actor())
    results = [
        {"name": n, "done": n not in missing, "sentence": "has no certificate" if n in missing else "cleaned"}
        for n in certnames
    ]
    return each_told(results, "clean", dry_run=False, as_json=as_json)
