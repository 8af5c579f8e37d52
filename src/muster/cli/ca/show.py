"""``muster ca show``: what there is under a name."""

from __future__ import annotations

import click

from muster.cli.ca.actor import here
from muster.cli.ca.certname import Certname
from muster.cli.ca.event import event_line
from muster.cli.ca.place import Place, placed
from muster.cli.options import json_option, one_line, print_json


@click.command()
@click.argument("certname", type=Certname())
@json_option
@placed
async def show(place: Place, certname: str, as_json: bool) -> int:
    """Show what there is under CERTNAME, and what was done to it."""
    import json

    from muster.authority.ledger.ledger import Ledger
    from muster.kernel.errors import NotFound

    place.note_elsewhere()
    async with place.store() as store:
        ledger = Ledger(store, here())
        known = await ledger.known(certname)
        history = await ledger.history(certname, most=100)
    if known is None and not history:
        raise NotFound(f"Nothing is known of {certname}")
    content = {**(json.loads(known.as_json) if known else {"state": "none", "name": certname}), "history": history}
    if as_json:
        print_json(content)
        return 0
    for key, value in content.items():
        if key not in ("history", "fingerprints"):
            click.echo(one_line(f"{key:25} {', '.join(value) if isinstance(value, list) else value}"))
    for event in history:
        click.echo(one_line(event_line(event)))
    return 0
