"""``muster maintenance``: a member is out, and nobody asks after it."""

from __future__ import annotations

import click

from muster.cli.change import Change, Result, changes_member


@click.command()
@changes_member("maintenance")
async def maintenance(change: Change) -> Result:
    """Drain MEMBER, then stop asking after it: balancers check it no more and nothing complains of it.

    muster ready MEMBER ends it; so does nothing else.
    """
    return await change.carried_out()
