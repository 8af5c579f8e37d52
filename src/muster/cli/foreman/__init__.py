"""``muster foreman``: what Foreman knows of the cluster."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "refresh": (
        "refresh",
        "Have Foreman ask for features anew where it is mistaken; exit 1 when one could not be refreshed.",
    ),
    "register": ("register", "Have Foreman know the Smart Proxies that it does not know yet."),
    "status": ("status", "Compare what Foreman knows with what is; exit 1 when it is mistaken."),
}


@click.group(cls=CommandFiles, package="muster.cli.foreman", files=_COMMANDS)
def foreman() -> None:
    """What Foreman knows of the cluster's Smart Proxies: compared, registered, refreshed."""
