"""``muster ca revoke``: certificates that every member refuses."""

from __future__ import annotations

import click

from muster.cli.ca.actor import actor
from muster.cli.ca.certname import Certname
from muster.cli.ca.each import each
from muster.cli.ca.place import Place, placed
from muster.cli.options import dry_run_option, json_option


@click.command()
@click.argument("certnames", nargs=-1, required=True, type=Certname())
@dry_run_option
@json_option
@placed
async def revoke(place: Place, certnames: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Revoke the certificates of CERTNAMES; every member refuses them from now on."""
    async with place.opened("On {signer}: puppetserver ca revoke --certname NAME", changes=not dry_run) as authority:
        do = None if dry_run else lambda n: authority.certificates.revoke(n, actor=actor())
        return await each(authority, certnames, "revoke", do, as_json=as_json)
