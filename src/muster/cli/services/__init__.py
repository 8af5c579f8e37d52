"""``muster services``: the register of what lies behind the members. Works on the store; members follow by themselves."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("list_", "List the services behind the cluster: where each is, how much depends on it, and who says so."),
    "show": (
        "show",
        "Show what the register knows of SERVICE: every field with its source, facts with their age, changes.",
    ),
    "add": ("add", "Type in a service that no setting and no member names: KIND or KIND@WORD."),
    "set": ("set_", "Type in where SERVICE is, whatever settings say; members follow at once."),
    "remove": ("remove", "Take out what was typed in for SERVICE; what settings say counts again."),
}


@click.group(cls=CommandFiles, package="muster.cli.services", files=_COMMANDS)
def services() -> None:
    """Where everything lives that members serve with: Pulps, registries, Foreman, DNS servers."""
