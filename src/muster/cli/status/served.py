"""``muster status --serve``: the cluster's page, from this host."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

import click

from muster.app import stories
from muster.app.listed import Listed
from muster.app.settings import cluster_store, loaded
from muster.app.watched import Modelled, puppet_ca_of
from muster.cli.credentials import credentials
from muster.cli.status.here import balancer_here
from muster.cluster.timeline import Timeline as SharedTimeline
from muster.edge.logs import Timeline
from muster.kernel import log
from muster.kernel.rings import LogRings
from muster.observed.survey import Survey
from muster.web import served as page
from muster.web.watch import Sources
from muster.web.watch import opened as watch_opened


async def served(cluster_path: Path, pki: Path, run: Path, port: int) -> int:
    """Serve the page until INT or TERM; asks members with what this host has, as ``muster status`` does."""
    # The address that is printed must not stand in a log.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    listed = Listed(cluster_path, cluster)
    balancing = Modelled(listed)
    shown = credentials(pki, cluster)
    async with cluster_store(cluster, changes=False) as store:
        story = Timeline(LogRings(1, 0, ""), SharedTimeline(store, "", cluster.log.buffer))
        sources = Sources(
            by=socket.gethostname(),
            cluster=lambda: listed.cluster,
            balancing=balancing,
            survey=lambda: Survey(balancing(), shown),
            store=lambda: contextlib.nullcontext(store),
            pki=pki,
            records=story,
            puppet_ca=puppet_ca_of(cluster),
            boots=stories.read_by(cluster),
            here=lambda: balancer_here(run),
        )
        async with watch_opened(sources) as watch, page.opened(watch, port) as address:
            click.echo(f"{cluster.cluster} is shown at\n\n    {address}\n")
            click.echo("It lets one browser of this host in, once. Ctrl-C ends it.", err=True)
            await _interrupted()
    return 0


async def _interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
