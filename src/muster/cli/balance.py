"""``muster balance``: render, supervise and reload HAProxy on this host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.options import cluster_option, pki_directory, pki_option, run_option


@click.command()
@cluster_option
@pki_option
@run_option
@click.option("--name", envvar="MUSTER_BALANCER", help="Which balancer of the cluster file. [default: its only one]")
@click.option("--haproxy", "haproxy_path", type=click.Path(dir_okay=False, path_type=Path), help="The executable.")
@click.option(
    "--take-over",
    type=click.Path(path_type=Path),
    envvar="MUSTER_TAKE_OVER",
    show_envvar=True,
    metavar="SOCKET",
    help="Take the ports of another HAProxy, whose command socket this is, without refusing a connection.",
)
@click.option("--log", "log_form", type=click.Choice(["text", "json"]), default="text", envvar="MUSTER_LOG")
def balance(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    name: str | None,
    haproxy_path: Path | None,
    take_over: Path | None,
    log_form: str,
) -> None:
    """Run the balancer: HAProxy with the configuration that follows from the cluster file.

    A changed cluster file is noticed and applied without losing a connection; a bad one is refused and the old one stays
    in force. HUP looks at once. TERM and INT stop it.
    """
    from muster.kernel.imports import importing

    with importing():
        from muster.app.balancer import BalancerOptions, balance
    from muster.kernel import log

    log.configure(form="json" if log_form == "json" else "text")
    pki = pki_directory(cluster_path, pki_path)
    asyncio.run(balance(BalancerOptions(cluster_path, pki, run_path.absolute(), name, haproxy_path, take_over)))
