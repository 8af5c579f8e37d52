"""``muster repairs``: changes that a provider of a group has not had. Works on the store; members carry them out."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("list_", "List what providers of groups have not had: at which one, since when, and why."),
    "retry": ("retry", "Have members carry repairs out at once, also those that a provider refused."),
    "drop": ("drop", "Take repairs out: the provider never has those changes, and differs from the others by them."),
}


@click.group(cls=CommandFiles, package="muster.cli.repairs", files=_COMMANDS)
def repairs() -> None:
    """What providers of groups have yet to have: changes that others of the group have had."""
