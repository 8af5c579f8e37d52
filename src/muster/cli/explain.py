"""``muster explain``: who served which connection, when it was cut and why."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.explain_feature import WithFeature
from muster.cli.options import json_option, one_line, print_json, run_option


@click.command(cls=WithFeature)
@run_option
@click.argument("client", metavar="CLIENT|CONNECTION")
@click.option(
    "--most", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many, the newest first."
)
@click.option("--failed", "only_failed", is_flag=True, help="Only those that the balancer or a member ended early.")
@json_option
def explain(run_path: Path, client: str, most: int, only_failed: bool, as_json: bool) -> int:
    """Say what became of the finished connections of CLIENT (an address), or of one CONNECTION (ADDRESS:PORT).

    Runs on a balancer's host; what HAProxy said of connections is kept there, about the last 200,000 of them.

    `muster explain feature NAME` says something else: what a feature calls its providers through, and how each is now.
    """
    from muster.balancer.haproxy.journal import files, found
    from muster.kernel.errors import NotFound

    kept = found(run_path, client, most=100_000 if only_failed else most)
    chosen = [c for c in kept if c.failed][:most] if only_failed else kept
    if as_json:
        print_json([c.as_json() for c in chosen])
        return 0
    if not chosen:
        if not any(f.exists() for f in files(run_path)):
            raise NotFound(
                f"No connection was ever recorded in {run_path}: muster balance writes there on a balancer's host"
            )
        click.echo(f"No finished connection of {client} is on record.")
    for connection in chosen:
        click.echo(one_line(connection.sentence))
    return 0
