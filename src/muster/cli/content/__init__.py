"""``muster content``: the repositories that clients ask for, and those that members mirror."""

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
    "sync": (
        "sync",
        "Fetch what the origins of NAMEs have now, and let the first environment have it; exit 1 when one failed.",
    ),
    "publications": (
        "publications",
        "Show the publications of repositories, the newest first, and which environments, or which Pulps, have each.",
    ),
    "publish": (
        "publish",
        "Publish the content of an older publication of NAME again, as something newer; exit 1 when that failed.",
    ),
    "promote": (
        "promote",
        "Let an environment have what another one has of NAMEs, or one publication of a NAME; also to go back.",
    ),
    "counts": (
        "counts",
        "Show how many packages, and of what size, each environment has of each mirrored repository.",
    ),
    "jobs": (
        "jobs",
        "Show work on repositories: what is asked for, how far it is, and what came of it; and which Pulps do not follow.",
    ),
    "cancel": ("cancel", "Cancel JOB, by its number; what of it is done stays, and clients get what they got before."),
    "verify": (
        "verify",
        "Have members look whether what lies on their disks is what it should be; what is not is fetched again.",
    ),
    "reclaim": (
        "reclaim",
        "Have members remove from their disks what no publication that is remembered needs.",
    ),
}


@click.group(cls=CommandFiles, package="muster.cli.content", files=_COMMANDS)
def content() -> None:
    """The repositories that clients ask for, and those that members mirror."""
