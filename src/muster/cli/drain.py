"""``muster drain``: a member finishes what it has and gets nothing new."""

from __future__ import annotations

import click

from muster.cli.change import Change, Result, changes_member


@click.command()
@changes_member("drain")
async def drain(change: Change) -> Result:
    """Let MEMBER finish what it has and get nothing new; wait until its connections are gone.

    The wish is kept in the store: the member stays drained over restarts until muster ready MEMBER.
    """
    return await change.carried_out()
