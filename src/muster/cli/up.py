"""``muster up``: a whole cluster on this host, to try out and to test."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import directory_option, dry_run_option
from muster.cli.options import store_url as store_url_option
from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.cli.local.cluster import LocalCluster
    from muster.cli.local.plan import Plan

_SERVICES = ("smartproxy", "anaconda", "metrics", "puppetca")
_SERVICE_AND_PORT = re.compile(rf"({'|'.join(_SERVICES)})=([0-9]{{1,5}})")


def _ports(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, int]:
    """Read SERVICE=PORT, each service and each port once."""
    found: dict[str, int] = {}
    for text in given:
        named = _SERVICE_AND_PORT.fullmatch(text)
        if named is None or not 0 < int(named[2]) < 65536:
            raise click.BadParameter(f"{shown(text)} is not SERVICE=PORT with one of {', '.join(_SERVICES)}")
        service, port = named[1], int(named[2])
        if service in found:
            raise click.BadParameter(f"{service} is given twice")
        if port in found.values():
            raise click.BadParameter(f"{port} is given to two services")
        found[service] = port
    return found


@click.command()
@directory_option
@click.option("--members", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option(
    "--port",
    "ports",
    multiple=True,
    callback=_ports,
    metavar="SERVICE=PORT",
    help=f"Fix a port: {', '.join(_SERVICES)} (with --puppet-ca).",
)
@click.option(
    "--store",
    "store_url",
    callback=store_url_option("--store-password-file"),
    help="Store URL. [default: SQLite in the directory]",
)
@click.option(
    "--store-password-file",
    "store_password_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the password of the --store URL's user.",
)
@click.option(
    "--features",
    "features_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML: features section.",
)
@click.option("--puppet-ca", is_flag=True, help="The members are a Puppet CA, too.")
@click.option("--detach", is_flag=True, help="Return when it is ready and leave it running; muster down stops it.")
@click.option("--plain", is_flag=True, help="Print lines instead of the live view.")
@dry_run_option
def up(
    directory: Path,
    members: int,
    ports: dict[str, int],
    store_url: str | None,
    store_password_file: Path | None,
    features_file: Path | None,
    puppet_ca: bool,
    detach: bool,
    plain: bool,
    dry_run: bool,
) -> None:
    """Run a local cluster: CA, store, members and a real HAProxy on loopback. Ctrl-C stops it."""
    from muster.cli.local.files import prepare
    from muster.cli.local.only_one import only_one, refuse_second
    from muster.cli.local.plan import planned

    if "puppetca" in ports and not puppet_ca:
        raise click.UsageError("--port puppetca=... belongs to --puppet-ca")
    if store_password_file is not None and store_url is None:
        raise click.UsageError("--store-password-file belongs to --store")
    plan = planned(
        directory,
        members=members,
        ports=ports,
        features=_features(features_file) if features_file else None,
        store_url=store_url,
        store_password_file=store_password_file,
        puppet_ca=puppet_ca,
    )
    _refuse_unusable(plan)
    if dry_run:
        refuse_second(directory)
        click.echo("Would run a local cluster:")
        for line in plan.describe():
            click.echo(f"  {line}")
        return
    if detach:
        _detached(
            directory,
            members,
            ports,
            _store_options(store_url, store_password_file),
            features_file,
            puppet_ca=puppet_ca,
        )
        return
    with only_one(directory):
        prepare(plan)
        asyncio.run(_foreground(plan, live=sys.stdout.isatty() and not plain))


def _features(file: Path) -> dict[str, Any]:
    """Return the ``features`` section that a file holds.

    Raises:
        InvalidSettings: it holds something else; with the lines the problems have in that file.
    """
    from muster import features
    from muster.kernel.settings import Document, InvalidSettings, Problem, read

    found = read(file)
    if not isinstance(found.content, dict):
        raise InvalidSettings(str(file), [*found.problems, Problem(1, "", "is not a mapping of features")])
    section = "features"
    whole = Document(str(file), {section: found.content}, {(section, *at): line for at, line in found.lines.items()})
    if problems := [*found.problems, *features.problems(whole)]:
        raise InvalidSettings(str(file), problems)
    return found.content


def _refuse_unusable(plan: Plan) -> None:
    """Refuse what the members would refuse when they start, dry run or not.

    Raises:
        InvalidSettings: the cluster file that would be written has problems.
        UsageError: two services would have one port.
    """
    import yaml

    from muster.cli.candidate import checked

    by_port: dict[int, str] = {}
    for service, port in plan.ports.items():
        if port in by_port:
            raise click.UsageError(f"{by_port[port]} and {service} would both have port {port}; fix both with --port")
        by_port[port] = service
    checked(plan.cluster_file, yaml.safe_dump(plan.document(), sort_keys=False))


def _store_options(url: str | None, password_file: Path | None) -> list[str]:
    file = ["--store-password-file", str(password_file)] if password_file is not None else []
    return ["--store", url, *file] if url else []


def _detached(
    directory: Path,
    members: int,
    ports: dict[str, int],
    store: Sequence[str],
    features_file: Path | None,
    *,
    puppet_ca: bool,
) -> None:
    from muster.cli.local.only_one import refuse_second
    from muster.cli.local.plan import run_directory
    from muster.kernel.errors import Unavailable
    from muster.kernel.files import make_directory

    refuse_second(directory)
    arguments = [sys.executable, "-m", "muster", "up", "--plain", "--dir", str(directory), "--members", str(members)]
    for service, port in ports.items():
        arguments += ["--port", f"{service}={port}"]
    arguments += store
    if features_file:
        arguments += ["--features", str(features_file)]
    if puppet_ca:
        arguments.append("--puppet-ca")
    make_directory(directory / "log", mode=0o700)
    ready = run_directory(directory) / "ready"
    ready.unlink(missing_ok=True)
    with (directory / "log" / "up.log").open("wb") as log:
        child = subprocess.Popen(  # noqa: S603 - our own arguments
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 45
    while not ready.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            said = (directory / "log" / "up.log").read_text("utf-8", "replace").strip()[-1500:]
            raise Unavailable(f"The local cluster did not come up: {said}")
        time.sleep(0.05)
    click.echo(ready.read_text(), nl=False)


async def _foreground(plan: Plan, *, live: bool) -> None:
    from muster.cli.local.cluster import running

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ready = plan.run / "ready"
    try:
        async with running(plan) as cluster:
            greeting = greeted(cluster)
            announce(ready, greeting)
            click.echo(greeting, nl=False)
            await (_live(cluster, stop) if live else _spoken(cluster, stop))
            click.echo("Stopping: members drain, then the balancer ends.")
    finally:
        ready.unlink(missing_ok=True)


def announce(ready: Path, greeting: str) -> None:
    """Let whoever started this in the background know: the file is there with all of its text, or not at all."""
    from muster.kernel.files import write_atomically

    write_atomically(ready, greeting, mode=0o600)


def greeted(cluster: LocalCluster) -> str:
    """Return how to talk to the cluster."""
    from muster.cli.local.plan import PUPPET_ADMIN

    plan = cluster.plan
    bundle = plan.pki / "clients" / "foreman.muster.test"
    port = plan.ports["smartproxy"]
    puppet = ""
    if plan.puppet_ca:
        puppet = (
            f"  puppet ssl bootstrap --ca_server smartproxy.muster.test --ca_port {plan.ports['puppetca']} \\\n"
            "       --certname NAME   (smartproxy.muster.test must lead to 127.0.0.1); then: muster ca list\n"
            f"  {plan.administrator} has the certificate of {PUPPET_ADMIN}, the CA's administrator\n"
        )
    count = len(cluster.members)
    return (
        f"The cluster runs: {count} member{'s' * (count != 1)} behind HAProxy at {cluster.url}\n"
        f"  curl --cacert {plan.pki}/ca.pem --cert {bundle}/cert.pem --key {bundle}/key.pem \\\n"
        f"       --resolve smartproxy.muster.test:{port}:127.0.0.1 https://smartproxy.muster.test:{port}/v2/features\n"
        f"{puppet}  export MUSTER_CLUSTER={plan.cluster_file} MUSTER_RUN={plan.run}\n"
    )


async def _spoken(cluster: LocalCluster, stop: asyncio.Event) -> None:
    said = 0
    while not stop.is_set():
        for sentence in cluster.sayings[said:]:
            click.echo(sentence)
        said = len(cluster.sayings)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stop.wait()


async def _live(cluster: LocalCluster, stop: asyncio.Event) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from muster.cli.status import collected
    from muster.cli.status.shown import shown

    plan = cluster.plan
    with Live(auto_refresh=False) as view:
        while not stop.is_set():
            found = await collected(plan.cluster_file, plan.pki, plan.run)
            sayings = [Text(s, style="dim") for s in cluster.sayings[-5:]]
            end = Text("Ctrl-C stops it.", style="dim")
            view.update(Group(*shown(found, view.console.width), *sayings, end), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()
