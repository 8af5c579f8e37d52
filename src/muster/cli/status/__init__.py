"""``muster status``: members × services, with reasons."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli import WRONG
from muster.cli.options import (
    cluster_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
    print_parts,
    run_option,
)


@click.command()
@cluster_option
@pki_option
@run_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C; for people, so without --json.")
@click.option(
    "--serve", is_flag=True, help="Show it as a page to a browser of this host until Ctrl-C, and print where."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Where to serve it. [default: any free port]")
def status(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    as_json: bool,
    watch: bool,
    serve: bool,
    port: int | None,
) -> int:
    """Show which member is ready for which service, and why not; exit 1 when something needs you.

    That is a member that is not ready or does not report though nobody wants it out, or a service that nobody serves;
    planned maintenance is none. Asks every member as the balancer does, the store for what members last said, and, on a
    balancer's host, HAProxy.
    """
    if watch and as_json:
        raise click.UsageError("--watch is for people; programs ask with --json as often as they like")
    if serve and (watch or as_json):
        raise click.UsageError("--serve is a page of its own, without --json and --watch")
    if port is not None and not serve:
        raise click.UsageError("--port goes with --serve")
    pki = pki_directory(cluster_path, pki_path)
    if serve:
        from muster.cli.status.served import served

        return asyncio.run(served(cluster_path, pki, run_path, port or 0))
    if watch:
        return _watched(cluster_path, pki, run_path)
    found = asyncio.run(collected(cluster_path, pki, run_path))
    if as_json:
        print_json(found)
    else:
        from muster.cli.status.shown import shown

        print_parts(lambda width: shown(found, width))
    return 0 if found["ready"] else WRONG


def _watched(cluster_path: Path, pki: Path, run: Path) -> int:
    import time

    from rich.console import Group
    from rich.live import Live

    from muster.cli.status.shown import shown

    with Live(auto_refresh=False) as live:
        while True:
            found = asyncio.run(collected(cluster_path, pki, run))
            live.update(Group(*shown(found, live.console.width)), refresh=True)
            time.sleep(1)


async def collected(cluster_path: Path, pki: Path, run: Path) -> dict[str, Any]:
    """Return everything ``muster status`` shows, as one JSON object."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded, store_to_read
    from muster.cli.credentials import credentials
    from muster.cli.status.here import balancer_here
    from muster.kernel import log
    from muster.kernel.errors import MusterError
    from muster.observed.status import StoreSays, said_in, status_of
    from muster.observed.survey import surveyed

    # What would be logged stands in the answer; unconfigured, it would also stand between its lines.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    balancing = modelled(cluster)
    answers = await surveyed(balancing, credentials(pki, cluster))
    try:
        async with store_to_read(cluster) as store, store.read() as uow:
            says = await said_in(uow, cluster)
    except MusterError as e:
        says = StoreSays(trouble=str(e))
    return status_of(cluster, balancing, answers, says, await balancer_here(run))
