"""``muster content``: the repositories that clients ask for."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "status": (
        "status",
        "Show which version of each repository clients get, and what is the matter; exit 1 when something is.",
    ),
    "keepers": (
        "keepers",
        "Show what members keep of older versions in their Pulps; exit 1 when one could not be asked.",
    ),
}


@click.group(cls=CommandFiles, package="muster.cli.content", files=_COMMANDS)
def content() -> None:
    """The repositories that clients ask for."""
