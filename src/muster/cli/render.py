"""``muster render``: what follows from the cluster file, shown or written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.cli.options import (
    Commands,
    cluster_option,
    dry_run_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)


@click.group(cls=Commands)
def render() -> None:
    """Show or write the configuration of other programs."""


balancer_option = click.option(
    "--balancer", metavar="NAME", help="Whose configuration; needed when the file names several."
)
output_option = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there instead of showing it."
)


def _refuse_both(as_json: bool, output: Path | None) -> None:
    if as_json and output is not None:
        raise click.UsageError("--json shows and --output writes: use one of them")


def _delivered(text: str, output: Path | None, *, dry_run: bool, mode: int, makes_directory: bool = False) -> None:
    """Show the text, write it, or say what writing would change."""
    from muster.kernel.errors import Unavailable
    from muster.kernel.files import write_atomically

    if output is None:
        click.echo(text, nl=False)
    elif dry_run:
        if not makes_directory and not output.parent.is_dir():
            raise Unavailable(f"Writing {output} would fail: {output.parent} is no directory")
        same = output.exists() and output.read_text("utf-8", "replace") == text
        click.echo(f"Would write {output}: {'nothing would change' if same else f'{len(text)} bytes'}")
    else:
        write_atomically(output, text, mode=mode)
        click.echo(f"Wrote {output}")


@render.command()
@cluster_option
@pki_option
@run_option
@balancer_option
@output_option
@click.option(
    "--check",
    is_flag=True,
    help="Ask haproxy -c what it thinks of it, and count the descriptors it may open from here.",
)
@dry_run_option
@json_option
def haproxy(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    balancer: str | None,
    output: Path | None,
    check: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Render HAProxy's configuration for one balancer; --json shows the model of services and servers instead."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.balancer.haproxy import binary as binaries
    from muster.balancer.haproxy import descriptors
    from muster.balancer.haproxy.layout import Layout
    from muster.balancer.haproxy.render import RuntimePaths, rendered

    _refuse_both(as_json, output)
    cluster = loaded(cluster_path)
    model = modelled(cluster)
    if as_json and not check:
        print_json(model.as_json())
        return
    paths = RuntimePaths(run_path.absolute(), (pki_directory(cluster_path, pki_path) / "balancer").absolute())

    async def made() -> str:
        binary = await binaries.probed(binaries.found())
        which = cluster.balancer(balancer)
        text = rendered(model, which=which, runtime=paths, version=binary.version, dual_stack=binaries.has_ipv6())
        if check:
            # haproxy -c calls valid what then dies for want of descriptors.
            complaint = descriptors.complaint_of(Layout.of(text), descriptors.limit())
            if complaint is not None:
                raise complaint
            await binaries.checked_text(binary, text)
        return text

    text = asyncio.run(made())
    if as_json:
        print_json(model.as_json())
        return
    _delivered(text, output, dry_run=dry_run, mode=0o600)


@render.command(name="puppet-conf")
@cluster_option
@output_option
@dry_run_option
@json_option
def puppet_conf(cluster_path: Path, output: Path | None, dry_run: bool, as_json: bool) -> None:
    """Render the lines of puppet.conf for agents: the cluster's name as server and CA, and the CA's port."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.derived.puppet_conf import rendered

    _refuse_both(as_json, output)
    text = rendered(modelled(loaded(cluster_path)))
    if as_json:
        _section, *lines = text.splitlines()
        print_json({"main": dict(line.split(" = ", 1) for line in lines), "configuration": text})
        return
    _delivered(text, output, dry_run=dry_run, mode=0o644)


@render.command()
@cluster_option
@run_option
@balancer_option
@click.option("--script", is_flag=True, help="Render the script by which keepalived asks HAProxy, instead.")
@click.option(
    "--script-path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where that script stands. [default: /usr/local/libexec/muster-balancer-answers]",
)
@output_option
@dry_run_option
@json_option
def keepalived(
    cluster_path: Path,
    run_path: Path,
    balancer: str | None,
    script: bool,
    script_path: Path | None,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Render keepalived's configuration, which moves the virtual address to a balancer whose HAProxy answers."""
    from muster.app.settings import loaded
    from muster.balancer.haproxy.render import RuntimePaths
    from muster.derived.keepalived import CHECK_SCRIPT, CHECK_SCRIPT_PATH, CheckPaths, rendered

    _refuse_both(as_json, output)
    cluster = loaded(cluster_path)
    at = script_path.absolute() if script_path is not None else CHECK_SCRIPT_PATH
    if script and not as_json:
        _delivered(CHECK_SCRIPT, output, dry_run=dry_run, mode=0o755)
        return
    socket = RuntimePaths(run_path.absolute(), run_path.absolute()).runtime_socket
    which = cluster.balancer(balancer)
    text = rendered(cluster, which=which, check=CheckPaths(socket, at))
    if as_json:
        print_json(
            {
                "balancer": which.name,
                "priority": cluster.priority(which),
                "configuration": text,
                "script": CHECK_SCRIPT,
                "script_path": at,
            }
        )
        return
    _delivered(text, output, dry_run=dry_run, mode=0o644)


@render.command()
@cluster_option
@run_option
@balancer_option
@output_option
@click.option("--check", is_flag=True, help="Ask nginx -t what it thinks of it.")
@dry_run_option
@json_option
def nginx(
    cluster_path: Path,
    run_path: Path,
    balancer: str | None,
    output: Path | None,
    check: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Render an nginx (stream) configuration for one balancer; its head and --json say what nginx does not do."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.balancer.haproxy.binary import has_ipv6
    from muster.derived.nginx import NginxPaths, checked, lacks, rendered

    _refuse_both(as_json, output)
    cluster = loaded(cluster_path)
    which = cluster.balancer(balancer)
    balancing, paths, dual_stack = modelled(cluster), NginxPaths(run_path.absolute()), has_ipv6()
    text = rendered(cluster, balancing, which=which, paths=paths, dual_stack=dual_stack)
    if check:
        asyncio.run(checked(cluster, balancing, which=which, paths=paths, dual_stack=dual_stack))
    if as_json:
        print_json({"balancer": which.name, "configuration": text, "lacks": lacks(cluster, which)})
        return
    _delivered(text, output, dry_run=dry_run, mode=0o644)


@render.command()
@cluster_option
@pki_option
@run_option
@balancer_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write the files into, as Envoy will see it; without it they are shown as one JSON object.",
)
@dry_run_option
@json_option
def envoy(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    balancer: str | None,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Render Envoy's bootstrap and the files it watches (LDS, CDS, EDS); what Envoy does not do goes to stderr."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.balancer.haproxy.binary import has_ipv6
    from muster.derived.envoy import EnvoyPaths, lacks, rendered

    cluster = loaded(cluster_path)
    which = cluster.balancer(balancer)
    pki = (pki_directory(cluster_path, pki_path) / "balancer").absolute()
    paths = EnvoyPaths((output or Path("/etc/muster/envoy")).absolute(), run_path.absolute(), pki)
    files = rendered(modelled(cluster), which=which, paths=paths, dual_stack=has_ipv6())
    for sentence in lacks(modelled(cluster), which):
        click.echo(sentence, err=True)
    if output is None or as_json:
        print_json(files)
    else:
        _written(files, output, dry_run=dry_run)


def _written(files: Mapping[str, Any], directory: Path, *, dry_run: bool) -> None:
    from muster.kernel.files import make_directory

    if not dry_run:
        make_directory(directory)
    # Endpoints first and listeners last: nothing names a file that is not there yet.
    order = {"clusters.json": 1, "bootstrap.json": 2, "listeners.json": 3}
    for name in sorted(files, key=lambda n: (order.get(n, 0), n)):
        text = json.dumps(files[name], indent=2) + "\n"
        _delivered(text, directory / name, dry_run=dry_run, mode=0o644, makes_directory=True)


@render.command()
@cluster_option
@json_option
def table(cluster_path: Path, as_json: bool) -> None:
    """Show what any other load balancer has to be told: ports, members, and what to ask them."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.derived.table import lines, tabled

    cluster = loaded(cluster_path)
    found = tabled(cluster, modelled(cluster))
    if as_json:
        print_json(found.as_json())
        return
    for line in lines(found):
        click.echo(line)
