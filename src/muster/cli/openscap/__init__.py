"""``muster openscap``: compliance reports of hosts."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "spool": (
        "spool",
        "Show the reports that Foreman does not have, and why; exit 1 when some were refused, or wait for long.",
    ),
    "retry": ("retry", "Have reports sent to Foreman again at once: all that wait or were refused, or REPORTs."),
    "remove": ("remove", "Remove REPORTs, by their ids; Foreman keeps what it has of them."),
}


@click.group(cls=CommandFiles, package="muster.cli.openscap", files=_COMMANDS)
def openscap() -> None:
    """Compliance reports of hosts: those on their way to Foreman, and those it refused."""
