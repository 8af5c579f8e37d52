"""``muster netboot``: what machines boot from the network with."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "status": (
        "status",
        "Show how far each member is with the boot files, and what is being fetched; exit 1 when one is behind.",
    ),
    "files": ("files", "Show the boot files, or those below DIRECTORY."),
    "boots": ("boots", "Show the machines of which members saw something last, and how far each came."),
    "import": ("import_", "Have what stands below a directory of this host stand in the cluster's tree of boot files."),
    "remove": ("remove", "Remove PATHs from the cluster's tree of boot files."),
    "tftp": ("tftp", "Serve the files below a directory over TFTP, to read, until it is stopped."),
}


@click.group(cls=CommandFiles, package="muster.cli.netboot", files=_COMMANDS)
def netboot() -> None:
    """What machines boot from the network with."""
