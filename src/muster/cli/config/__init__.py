"""``muster config``: the cluster file."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "check": ("check", "Print every problem of the cluster file with its line; exit 3 when there is one."),
    "init": ("init", "Write a first cluster file, checked, with comments; it is yours to edit from then on."),
    "schema": ("schema", "Print the cluster file's JSON Schema, for editors; features' own settings included."),
    "show": (
        "show",
        "Print the cluster file as Muster understands it: the generation's services and all defaults filled in.",
    ),
}


@click.group(cls=CommandFiles, package="muster.cli.config", files=_COMMANDS)
def config() -> None:
    """Write, check and show the cluster file."""
