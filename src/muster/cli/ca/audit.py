"""``muster ca audit``: what was done to certificates."""

from __future__ import annotations

import click

from muster.cli.ca.actor import here
from muster.cli.ca.certname import Certname
from muster.cli.ca.event import event_line
from muster.cli.ca.place import Place, placed
from muster.cli.options import json_option, one_line, print_json


@click.command()
@click.option(
    "--most", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many, the newest first."
)
@click.option("--certname", type=Certname(), help="Only what was done to this one.")
@json_option
@placed
async def audit(place: Place, most: int, certname: str | None, as_json: bool) -> int:
    """Show what was done to certificates, by whom, on which member."""
    from muster.authority.ledger.ledger import Ledger

    place.note_elsewhere()
    async with place.store() as store:
        events = await Ledger(store, here()).history(certname, most=most)
    if as_json:
        print_json(events)
    else:
        for event in events:
            click.echo(one_line(event_line(event)))
    return 0
