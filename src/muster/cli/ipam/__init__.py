"""``muster ipam``: addresses of the feature External IPAM."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("list_", "List the addresses that the cluster keeps, and those that are promised to new hosts."),
    "release": (
        "release",
        "Free ADDRESSes that the cluster keeps, and those that are promised, so that they are offered again.",
    ),
}


@click.group(cls=CommandFiles, package="muster.cli.ipam", files=_COMMANDS)
def ipam() -> None:
    """Addresses that Foreman's External IPAM gives to new hosts."""
