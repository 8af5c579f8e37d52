"""``muster config``: write a first cluster file, check it, show it as understood, print its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from muster.cli import INVALID_SETTINGS
from muster.cli.options import Commands, Host, cluster_option, dry_run_option, json_option, print_json
from muster.cli.options import store_url as store_url_option
from muster.kernel.names import shown as shown_name


@click.group(cls=Commands)
def config() -> None:
    """Write, check and show the cluster file."""


@config.command()
@cluster_option
@json_option
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
def check(cluster_path: Path, as_json: bool, file: Path | None) -> int:
    """Print every problem of the cluster file with its line; exit 3 when there is one.

    A warning is about what the file may not mean, or names and this host lacks; with nothing but warnings it is valid.
    """
    from muster.app.settings import checked, warnings

    path = file or cluster_path
    cluster, problems = checked(path)
    warned = warnings(path, cluster) if cluster is not None else []
    if as_json:
        print_json(
            {
                "file": str(path),
                "valid": cluster is not None,
                "problems": [p.as_json() for p in problems],
                "warnings": [p.as_json() for p in warned],
            }
        )
    else:
        for problem in problems:
            click.echo(f"{path}: {problem}")
        for problem in warned:
            click.echo(f"{path}: warning: {problem}")
        if cluster is not None:
            also = f"; {_counted(len(warned), 'warning')}" if warned else ""
            click.echo(f"{path}: valid; {_counted(len(cluster.members), 'member')}, profile {cluster.profile}{also}")
        else:
            click.echo(_counted(len(problems), "problem"), err=True)
    return 0 if cluster is not None else INVALID_SETTINGS


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


@config.command()
@cluster_option
@json_option
def show(cluster_path: Path, as_json: bool) -> None:
    """Print the cluster file as Muster understands it: the profile's services and all defaults filled in.

    Secrets are hidden; of the store's URL only its password.
    """
    import yaml

    from muster.app.settings import loaded

    content = understood(loaded(cluster_path))
    if as_json:
        print_json(content)
    else:
        click.echo(yaml.safe_dump(content, sort_keys=False), nl=False)


def understood(cluster: Any) -> dict[str, Any]:
    """Return a cluster file's whole meaning: what the profile has stands where a change to it would."""
    from muster.app.offers import modelled
    from muster.store.place import Place

    content: dict[str, Any] = cluster.model_dump(mode="json", by_alias=True)
    offered = {s.name: s for s in modelled(cluster).services}
    names = dict.fromkeys([*offered, *content["services"]])
    content["services"] = {
        name: {
            **content["services"].get(name, {}),
            "enabled": name in offered,
            **(
                {
                    "listen_port": s.listen_port,
                    "member_port": s.member_port,
                    "traffic": s.traffic,
                    "balance": s.balance,
                    "destinations": s.destinations,
                }
                if (s := offered.get(name)) is not None
                else {}
            ),
        }
        for name in names
    }
    content["store"]["url"] = Place.parsed(cluster.store.url).shown_url
    return content


_FIRST = """\
# A first cluster: {shape}.
# muster config check says what is wrong with it, and docs/reference/settings.md what else may stand here.
schema: 1
cluster: {cluster}
# The DNS name clients use; it leads to the balancer.
address: {address}
store:
{store}
{foreman}members:
{members}
balancers:
- {{name: {balancer}, address: {balancer_address}}}
# What the members do not serve: take a line away when they do.
services:
{services}
"""


@config.command()
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
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a first cluster file, checked, with comments; it is yours to edit from then on."""
    from muster.cli.members import checked
    from muster.kernel.errors import Conflict
    from muster.kernel.files import write_atomically

    if not (members or rubies):
        raise click.UsageError("Name at least one --member or --ruby")
    text = first_file(cluster, address, members, rubies, balancer, foreman, store_url)
    checked(cluster_path, text)
    if cluster_path.exists() and not force:
        raise Conflict(f"{cluster_path} is there already and stays as it is (--force replaces it)")
    following = [
        f"muster certs init --cluster {cluster_path}",
        f"muster certs issue --all --balancer{f' --client {foreman}' if foreman else ''} --cluster {cluster_path}",
        f"muster config check {cluster_path}",
    ]
    if not dry_run:
        # Muster's account reads it, whoever writes it.
        write_atomically(cluster_path, text, mode=0o644)
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


# As docs/admin/first-cluster.md has it: what members share is nobody else's to read or change on the way.
_VERIFIED = "?sslmode=verify-full&sslrootcert=/etc/muster/db-ca.pem"


def first_file(
    cluster: str,
    address: str,
    members: tuple[str, ...],
    rubies: tuple[str, ...],
    balancer: str,
    foreman: str | None,
    store_url: str | None,
) -> str:
    """Return the text of a first cluster file.

    Raises:
        UsageError: a member or the balancer is no NAME=IP.
    """
    import yaml

    ours, theirs = [_place(m) for m in members], [_place(m) for m in rubies]
    (name, at), hosts = _place(balancer), {a for _, a in ours}
    alone = len(hosts) < 2
    url = store_url or (
        "sqlite:////var/lib/muster/muster.db" if alone else f"postgresql://muster@{at}/muster{_VERIFIED}"
    )
    secret = "  # password_file: /etc/muster/store.password" if url.startswith("sqlite") else (
        "  password_file: /etc/muster/store.password"
    )  # fmt: skip
    rows = [(n, a, "") for n, a in ours] + [(n, a, ", kind: foreman") for n, a in theirs]
    # Apache and Pulp run beside Ruby proxies as a rule; who signs Puppet certificates has to be said first.
    off = [*(["http", "https"] if ours else []), "puppet", "puppetca"]
    trusted = f"foreman:\n  trusted_hosts: [{_scalar(yaml, foreman)}]\n" if foreman else ""
    return _FIRST.format(
        shape=f"{len(rows)} member{'s' if len(rows) != 1 else ''} behind one balancer",
        # Quoted where YAML asks for it.
        cluster=_scalar(yaml, cluster),
        address=_scalar(yaml, address),
        store=f"  url: {_scalar(yaml, url)}\n{secret}",
        foreman=trusted,
        members="\n".join(
            f"- {{id: {i}, name: {_scalar(yaml, n)}, address: {_scalar(yaml, a)}{kind}}}"
            for i, (n, a, kind) in enumerate(rows, 1)
        ),
        balancer=_scalar(yaml, name),
        balancer_address=_scalar(yaml, at),
        services="\n".join(f"  {s}: {{enabled: false}}" for s in off),
    )


def _place(text: str) -> tuple[str, str]:
    name, sign, at = text.partition("=")
    if not sign:
        raise click.UsageError(f"{shown_name(text)} is no NAME=IP")
    return Host().convert(name, None, None), Host().convert(at, None, None)


def _scalar(yaml: Any, text: str) -> str:
    quoted: str = yaml.safe_dump(text, default_flow_style=True, width=4096).removesuffix("...\n").strip()
    return quoted if not set(quoted) & set(",{}[]") else json.dumps(text)


@config.command()
def schema() -> None:
    """Print the cluster file's JSON Schema, for editors; features' own settings included."""
    from muster.cluster.file import SCHEMA_VERSION, ClusterFile
    from muster.features import settings_models

    content = ClusterFile.model_json_schema(by_alias=True)
    content["$id"] = f"muster-cluster-{SCHEMA_VERSION}"
    models = {
        n: m.model_json_schema(ref_template=f"#/$defs/feature-{n}/$defs/{{model}}")
        for n, m in settings_models().items()
    }
    content["$defs"].update({f"feature-{n}": m for n, m in models.items()})
    content["properties"]["features"] = {
        "type": "object",
        "description": "Settings of each feature.",
        "properties": {n: {"$ref": f"#/$defs/feature-{n}"} for n in models},
        "additionalProperties": False,
    }
    print_json(content)
