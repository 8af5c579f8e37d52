"""``muster certs``: make the CA, issue bundles, look at them."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "archive": ("archive", "Archives of certificates for Ruby members, as Foreman's installers make and read them."),
    "import": (
        "import_",
        "Take over a bundle of MEMBER, a client or the balancer that was made elsewhere, such as by Foreman's installer.",
    ),
    "init": ("init", "Make the cluster's CA, or adopt one the site has."),
    "issue": ("issue", "Issue a bundle with a new key: for MEMBERS by name, for clients, for the balancer."),
    "rotate": (
        "rotate",
        "Issue again what ends soon, keeping all names; or replace the CA without a dropped call.",
    ),
    "show": ("show", "Show the CA and all bundles, or the first certificate of FILE."),
    "verify": (
        "verify",
        "Say what is wrong with a live port, a member's files, or all files; exit 1 when something is.",
    ),
}


@click.group(cls=CommandFiles, package="muster.cli.certs", files=_COMMANDS)
def certs() -> None:
    """The cluster's own TLS certificates."""
