"""``muster netboot``: what machines boot from the network with."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "tftp": ("tftp", "Serve the files below a directory over TFTP, to read, until it is stopped."),
}


@click.group(cls=CommandFiles, package="muster.cli.netboot", files=_COMMANDS)
def netboot() -> None:
    """What machines boot from the network with."""
