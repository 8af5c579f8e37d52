"""``muster ca list``: certificates and requests."""

from __future__ import annotations

import click

from muster.cli.ca.actor import here
from muster.cli.ca.place import Place, placed
from muster.cli.options import json_option, one_line, print_json

_STATES = ("requested", "signed", "revoked")


@click.command(name="list")
@click.option("--state", type=click.Choice(_STATES), help="Only these. [default: all]")
@json_option
@placed
async def list_(place: Place, state: str | None, as_json: bool) -> int:
    """List certificates and requests."""
    import json

    from muster.authority.ledger.ledger import Ledger

    place.note_elsewhere()
    async with place.store() as store:
        rows = [json.loads(s) for s in await Ledger(store, here()).statuses(state)]
    if as_json:
        print_json(rows)
        return 0
    for row in rows:
        ends = row.get("not_after", "").replace("UTC", "Z")
        names = ", ".join(n for n in row["subject_alt_names"] if n != f"DNS:{row['name']}")
        # Alternative names are what a host asked for.
        click.echo(one_line(f"{row['state']:9} {row['name']}  {ends}{'  ' + names if names else ''}"))
    if not rows:
        click.echo("There are none.")
    return 0
