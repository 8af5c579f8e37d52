"""``muster config init``: write a first cluster file."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.options import Host, cluster_option, dry_run_option, json_option, print_json
from muster.cli.options import store_url as store_url_option


@click.command()
@cluster_option
@click.option("--address", type=Host(), required=True, help="The DNS name clients use.")
@click.option("--name", "cluster", default="proxies", show_default=True, help="The cluster's name.")
@click.option("--member", "members", multiple=True, metavar="NAME=IP", help="A member and where balancers reach it.")
@click.option("--ruby", "rubies", multiple=True, metavar="NAME=IP", help="The same for a Ruby Smart Proxy.")
@click.option("--balancer", required=True, metavar="NAME=IP", help="The host that runs the balancer.")
@click.option(
    "--foreman",
    type=Host(),
    help="Foreman's name: it may use protected routes. [default: who has a certificate of the cluster's CA]",
)
@click.option(
    "--store",
    "store_url",
    callback=store_url_option("store.password_file in the cluster file"),
    help="Store URL. [default: SQLite where that can be, else PostgreSQL on the balancer]",
)
@click.option(
    "--generation",
    type=click.Choice(["installer", "foremanctl", "seed"]),
    default="installer",
    show_default=True,
    help="Whose layout the members have: of packages, of containers, or of 2018.",
)
@click.option("--force", is_flag=True, help="Replace a cluster file that is there.")
@dry_run_option
@json_option
def init(
    cluster_path: Path,
    address: str,
    cluster: str,
    members: tuple[str, ...],
    rubies: tuple[str, ...],
    balancer: str,
    foreman: str | None,
    store_url: str | None,
    generation: str,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a first cluster file, checked, with comments; it is yours to edit from then on."""
    from muster.cli.candidate import write_first
    from muster.cli.config.first_file import first_file

    if not (members or rubies):
        raise click.UsageError("Name at least one --member or --ruby")
    text = first_file(cluster, address, members, rubies, balancer, foreman, store_url, generation)
    write_first(cluster_path, text, force=force, dry_run=dry_run)
    following = [
        f"muster certs init --cluster {cluster_path}",
        f"muster certs issue --all --balancer{f' --client {foreman}' if foreman else ''} --cluster {cluster_path}",
        f"muster config check {cluster_path}",
    ]
    if as_json:
        print_json({"file": str(cluster_path), "dry_run": dry_run, "content": text, "next": following})
        return
    if dry_run:
        click.echo(text, nl=False)
        click.echo(f"Would write {cluster_path}", err=True)
        return
    click.echo(f"Wrote {cluster_path}. Next:")
    for command in following:
        click.echo(f"  {command}")
