"""``muster down``: end of a cluster on this host."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from muster.cli.options import directory_option, dry_run_option


@click.command()
@directory_option
@dry_run_option
def down(directory: Path, dry_run: bool) -> None:
    """Stop the local cluster that muster up runs."""
    from muster.cli.local.only_one import recorded
    from muster.kernel.errors import NotFound, Unavailable

    pid = recorded(directory)
    if pid is None:
        raise NotFound(f"No local cluster runs in {directory}")
    if dry_run:
        click.echo(f"Would stop the local cluster of process {pid}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while recorded(directory) == pid:
        if time.monotonic() > deadline:
            raise Unavailable(f"The local cluster of process {pid} did not stop within 30 s")
        time.sleep(0.1)
    click.echo("Stopped.")
