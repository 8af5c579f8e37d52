"""``muster ready``: a member takes clients again."""

from __future__ import annotations

import click

from muster.cli.change import Change, Result, changes_member


@click.command()
@changes_member("ready")
async def ready(change: Change) -> Result:
    """Let MEMBER take clients again, once every balancer's checks of it have passed; wait until it is ready."""
    return await change.carried_out()
