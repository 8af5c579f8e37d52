"""``muster certs archive``: what Ruby members are installed with."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "create": (
        "create",
        "Make an archive for MEMBER from the cluster's CA, with the cluster's names in every certificate.",
    ),
    "inspect": (
        "inspect",
        "Say what an archive holds, and what it lacks for this cluster; exit 1 when something is wrong.",
    ),
    "install": ("install", "Put an archive's files where the member they are for reads them."),
}


@click.group(cls=CommandFiles, package="muster.cli.certs.archive", files=_COMMANDS)
def archive() -> None:
    """Archives of certificates for Ruby members, as Foreman's installers make and read them."""
