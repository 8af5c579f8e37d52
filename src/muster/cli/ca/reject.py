"""``muster ca reject``: requests are thrown away."""

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
async def reject(place: Place, certnames: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Throw the requests of CERTNAMES away."""
    async with place.opened(
        "On {signer}: remove requests/NAME.pem from its CA directory, or in Foreman.", changes=not dry_run
    ) as authority:
        do = None if dry_run else lambda n: authority.requests.reject(n, actor=actor())
        return await each(authority, certnames, "reject", do, as_json=as_json)
