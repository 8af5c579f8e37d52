"""``muster serve``: run one member in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from muster.cli.options import cluster_option, pki_directory, pki_option


@click.command()
@cluster_option
@pki_option
@click.option(
    "--state",
    "state_path",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MUSTER_STATE",
    show_envvar=True,
    help="Directory of what the member writes itself. [default: systemd's STATE_DIRECTORY, else the PKI directory]",
)
@click.option("--member", envvar="MUSTER_MEMBER", show_envvar=True, help="This member's name. [default: host name]")
@click.option("--bind", help="Address to listen on. [default: every address; a loopback member's own]")
@click.option("--log", "log_form", type=click.Choice(["text", "json"]), default="text", envvar="MUSTER_LOG")
def serve(
    cluster_path: Path,
    pki_path: Path | None,
    state_path: Path | None,
    member: str | None,
    bind: str | None,
    log_form: Literal["text", "json"],
) -> None:
    """Run one member.

    TERM and INT drain it and stop it, HUP reloads its certificates (it also notices new ones by itself).
    """
    import socket

    from muster.kernel.imports import importing

    with importing():
        from muster.app.member import MemberOptions, run_member

    name = member or socket.getfqdn()
    state = state_path or _state_of_systemd()
    run_member(MemberOptions(cluster_path, name, pki_directory(cluster_path, pki_path), bind, log_form, state))


def _state_of_systemd() -> Path | None:
    """Return the first directory that a unit's ``StateDirectory=`` names."""
    first = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None
