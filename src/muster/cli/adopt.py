"""``muster adopt``: the cluster file of a cluster that was made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import DEFAULT_CLUSTER, Host, dry_run_option, json_option, named_place, one_line, print_json
from muster.cli.options import store_url as store_url_option

if TYPE_CHECKING:
    from muster.kernel.findings import Finding
    from muster.observed.adoption.content import Adoption
    from muster.pki.context import Credentials

_PATH = click.Path(path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--haproxy",
    "haproxy_path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The configuration of the HAProxy that balances now.",
)
@click.option(
    "--settings",
    "settings_paths",
    multiple=True,
    metavar="NAME=PATH",
    help="A member's /etc/foreman-proxy, as a directory or as .tar or .tar.gz. Only read.",
)
@click.option(
    "--member", "members", multiple=True, metavar="NAME=IP", help="The name of a member that the file names by address."
)
@click.option("--address", type=Host(), help="The DNS name clients use. [default: that of registration_url]")
@click.option("--balancer", metavar="NAME=IP", help="Its host. [default: where HAProxy listens, if on one address]")
@click.option("--name", "cluster", default="proxies", show_default=True, help="The cluster's name.")
@click.option(
    "--generation",
    type=click.Choice(["installer", "foremanctl", "seed"]),
    help="Whose layout the members have. [default: what the ports say]",
)
@click.option(
    "--store",
    "store_url",
    callback=store_url_option("store.password_file in the cluster file"),
    help="Store URL. [default: SQLite on the balancer's host]",
)
@click.option("--live", is_flag=True, help="Ask what answers on members' ports, too, and at the balancer. Needs --ca.")
@click.option(
    "--ca",
    "ca_file",
    type=_FILE,
    help="With --live: who issued the members' certificates, several CAs in one file where there are several.",
)
@click.option(
    "--certificate", type=_FILE, help="With --live: shown to members, such as Foreman's; features are then told whole."
)
@click.option("--key", type=_FILE, help="Its key. [default: in the same file]")
@click.option(
    "--output", type=_PATH, help=f"Write the cluster file there, such as {DEFAULT_CLUSTER}. [default: print it]"
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@dry_run_option
@json_option
def adopt(
    haproxy_path: Path,
    settings_paths: tuple[str, ...],
    members: tuple[str, ...],
    address: str | None,
    balancer: str | None,
    cluster: str,
    generation: str | None,
    store_url: str | None,
    live: bool,
    ca_file: Path | None,
    certificate: Path | None,
    key: Path | None,
    output: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make the cluster file of a cluster of Ruby Smart Proxies that stands already, and say what is wrong with it.

    Reads HAProxy's configuration and, if they are named, members' settings; with --live it asks members and the balancer as
    muster doctor does, else nobody. Changes nothing but --output. Exit 1 when something found is an error: the file is
    written all the same.
    """
    from muster.balancer.haproxy import found
    from muster.cli import WRONG
    from muster.cli.candidate import checked_first, write_first
    from muster.foreman import ruby_settings
    from muster.kernel.files import read_bounded
    from muster.observed.adoption.content import DEFAULT_STORE, Told, adopted
    from muster.pki.context import Credentials

    if live != (ca_file is not None):
        raise click.UsageError(
            "--live needs --ca FILE: whoever issued the members' certificates"
            if live
            else "--ca counts with --live only"
        )
    if (certificate is not None or key is not None) and not (live and certificate is not None):
        raise click.UsageError("--key belongs to --certificate, and both count with --live only")
    text = read_bounded(haproxy_path, what="HAProxy's configuration", limit_bytes=1 << 20)
    told = Told(
        address=address,
        members=dict(named_place(m) for m in members),
        balancer=named_place(balancer) if balancer else None,
        generation=generation,
        cluster=cluster,
        store=store_url or DEFAULT_STORE,
    )
    settings = {name: ruby_settings.read(Path(at)) for name, at in map(_settings_of, settings_paths)}
    adoption = adopted(
        found.found(text.decode("utf-8", "replace"), haproxy_path.name), settings, told, haproxy_path.name
    )
    if ca_file is not None:
        adoption = _with_answers(adoption, _text(adoption, haproxy_path), Credentials(ca_file, certificate, key))
    written = _text(adoption, haproxy_path)
    if output is None:
        checked_first(Path("cluster.yaml"), written)
    else:
        write_first(output, written, force=force, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "file": str(output) if output is not None else None,
                "dry_run": dry_run,
                "content": adoption.content,
                "text": written,
                "findings": [f.as_json() for f in adoption.findings],
            }
        )
    elif output is None or dry_run:
        click.echo(written, nl=False)
    else:
        for finding in adoption.findings:
            click.echo(_line(finding))
        click.echo(f"Wrote {output}. Next: docs/admin/adopting.md, from muster certs on")
    if dry_run and output is not None:
        click.echo(f"Would write {output}", err=True)
    return WRONG if any(f.severity == "error" for f in adoption.findings) else 0


def _with_answers(adoption: Adoption, text: str, credentials: Credentials) -> Adoption:
    """Ask what stands there, and return the adoption with what is wrong with the answers in front of the rest."""
    import asyncio
    from dataclasses import replace

    from muster.app.offers import modelled
    from muster.cli.candidate import checked_first
    from muster.doctor.adopted import answering
    from muster.kernel import log
    from muster.kernel.clock import SystemClock

    # What would be logged is a finding; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    cluster = checked_first(Path("cluster.yaml"), text)
    click.echo(f"Asking {len(cluster.members)} members and the balancer …", err=True)
    asked = asyncio.run(answering(cluster, modelled(cluster), credentials, now=SystemClock().now()))
    found = sorted((*asked, *adoption.findings), key=lambda f: f.severity != "error")
    return replace(adoption, findings=tuple(found))


def _settings_of(text: str) -> tuple[str, str]:
    from muster.kernel.names import shown

    name, sign, path = text.partition("=")
    if not (sign and path):
        raise click.UsageError(f"{shown(text)} is no NAME=PATH")
    return Host().convert(name, None, None), path


def _line(finding: Finding) -> str:
    return one_line(f"{finding.severity} {finding.code} {finding.place}: {finding.sentence}")


def _text(adoption: Adoption, haproxy_path: Path) -> str:
    """Return the cluster file: what was found as comments at its head, and where each service comes from beside it."""
    out = [f"# Made by muster adopt from {one_line(str(haproxy_path))}; it is yours to edit from now on."]
    if adoption.findings:
        out.append("# Found:")
    for finding in adoption.findings:
        out.append(f"# - {_line(finding)}")
        out += [
            f"#     {word}: {one_line(said)}"
            for word, said in (("cause", finding.cause), ("remedy", finding.remedy))
            if said
        ]
    for key, value in adoption.content.items():
        remark = adoption.remarks.get((key,))
        out += [f"# {one_line(remark)}"] if remark else []
        out += _section(key, value, adoption.remarks)
    return "\n".join(out) + "\n"


def _section(key: str, value: Any, remarks: Mapping[tuple[str, ...], str]) -> list[str]:
    if key == "services":
        listed = [(f"  {_flow(name)}: {_flow(change)}", remarks.get((key, name))) for name, change in value.items()]
        return ["services:", *(f"{line}  # {one_line(remark)}" if remark else line for line, remark in listed)]
    if isinstance(value, list):
        return [f"{key}:", *(f"- {_flow(item)}" for item in value)]
    if isinstance(value, dict):
        return [f"{key}:", *(f"  {name}: {_flow(item)}" for name, item in value.items())]
    return [f"{key}: {_flow(value)}"]


def _flow(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, sort_keys=False, allow_unicode=False)
    return text.removesuffix("...\n").strip()
