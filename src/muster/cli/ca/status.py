"""``muster ca status``: how the Puppet CA stands."""

from __future__ import annotations

import click

from muster.cli.ca.place import Place, placed
from muster.cli.options import json_option, one_line, print_json


@click.command()
@json_option
@placed
async def status(place: Place, as_json: bool) -> int:
    """Show who signs, until when the CA and its revocation list last, and how many requests wait."""
    from muster.authority.standing import standing_in

    place.note_elsewhere()
    async with place.store() as store, store.read() as uow:
        found = await standing_in(uow, place.elsewhere or "any")
    if as_json:
        print_json(found)
        return 0
    ca, crl = found["ca"], found["list"]
    signer = "every member" if found["signer"] == "any" else found["signer"]
    rows = {
        "signs": signer,
        "CA": f"{ca['name']}, until {ca['not_after']}" if ca else "there is none yet",
        "revocation list": f"number {crl['number']}, until {crl['not_after']}" if crl else "there is none yet",
        "valid": found["live"],
        "revoked": found["revoked"],
        "waiting": found["waiting"],
    }
    for key, value in rows.items():
        click.echo(one_line(f"{key:16} {value}"))
    return 0
