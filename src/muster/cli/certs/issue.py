"""``muster certs issue``: bundles with new keys."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli import offered
from muster.cli.certs.expected import BALANCER, member_request
from muster.cli.certs.options import FILE, first_line, key_kind_option
from muster.cli.certs.place import Place, placed
from muster.cli.options import Days, dry_run_option, json_option, print_json
from muster.kernel.errors import Misconfigured
from muster.kernel.files import write_atomically
from muster.kernel.secrets import Secret
from muster.pki.authority import ClusterCA
from muster.pki.bundles import (
    BundlePaths,
    BundleRequest,
    KeyKind,
    certificate_facts,
    for_browsers,
    paths,
    refuse_unless_ours,
    write,
)


@click.command()
@click.argument("members", nargs=-1, shell_complete=offered.members)
@click.option("--all", "every", is_flag=True, help="Every member of the cluster file.")
@click.option("--client", "clients", multiple=True, help="A client of that name: Foreman, an administrator.")
@click.option("--balancer", is_flag=True, help="What the balancer shows in its checks.")
@click.option("--days", type=Days(), default=825, show_default=True, help="How long the certificates are valid.")
@click.option("--drop-names", is_flag=True, help="Forget names that only the present certificate has.")
@click.option("--p12", is_flag=True, help="Of clients: also one file for a browser, NAME.p12, under a password.")
@click.option(
    "--p12-password-file", type=FILE, help="File whose first line is that password. [default: it is asked for]"
)
@key_kind_option
@json_option
@dry_run_option
@placed
def issue(
    place: Place,
    members: tuple[str, ...],
    every: bool,
    clients: tuple[str, ...],
    balancer: bool,
    days: int,
    drop_names: bool,
    p12: bool,
    p12_password_file: Path | None,
    key_kind: KeyKind,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Issue a bundle with a new key: for MEMBERS by name, for clients, for the balancer."""
    if not (members or every or clients or balancer):
        raise click.UsageError("Nothing to issue: name members, or use --all, --client or --balancer")
    if p12_password_file is not None and not p12:
        raise click.UsageError("--p12-password-file is of --p12")
    if p12 and not clients:
        raise click.UsageError("--p12 is for browsers, so it goes with --client")
    password = _password(p12_password_file) if p12 and clients and not dry_run else None
    chosen = place.cluster.members if every else tuple(place.cluster.member(m) for m in members)
    requests = [member_request(place.cluster, m, key_kind) for m in chosen]
    requests += [BundleRequest("client", c, key_kind=key_kind) for c in clients]
    requests += [BundleRequest("balancer", BALANCER, key_kind=key_kind)] if balancer else []
    ca = ClusterCA.open(place.pki)
    # Before anything is written: the second that is refused must not find the first already replaced.
    ca.refuse_unless_able(now=place.now, valid_days=days)
    placed = [(request, paths(place.pki, request.kind, request.common_name)) for request in requests]
    for _, at in placed:
        refuse_unless_ours(at)
    issued = []
    for request, at in placed:
        wanted = request if drop_names else _keeping(request, at)
        if not dry_run:
            bundle = ca.issue(wanted, now=place.now, valid_days=days)
            write(bundle, place.pki)
            if password is not None and request.kind == "client":
                write_atomically(_browsers(at), for_browsers(bundle, password), mode=0o600)
        until = None if dry_run else certificate_facts(at).not_after
        issued.append((wanted, at, until))
        if not as_json:
            names = ", ".join((*wanted.dns_names, *wanted.addresses))
            ends = f"; until {until:%Y-%m-%d}" if until else ""
            click.echo(f"{'Would write' if dry_run else 'Wrote'} {at.directory}: {names}{ends}")
            if p12 and request.kind == "client":
                click.echo(f"{'Would write' if dry_run else 'Wrote'} {_browsers(at)}")
    if as_json:
        rows = [
            {
                "kind": w.kind,
                "name": w.common_name,
                "directory": str(at.directory),
                "names": list(w.dns_names),
                "addresses": list(w.addresses),
                **({"p12": str(_browsers(at))} if p12 and w.kind == "client" else {}),
                **({"not_after": until.isoformat()} if until else {}),
            }
            for w, at, until in issued
        ]
        print_json({"dry_run": dry_run, "issued": rows})


def _browsers(at: BundlePaths) -> Path:
    return at.directory / f"{at.name}.p12"


def _password(file: Path | None) -> Secret:
    if file is None:
        return Secret(
            click.prompt("Password of the file for browsers", hide_input=True, confirmation_prompt=True, err=True)
        )
    return Secret(first_line(file, "password"))


def _keeping(request: BundleRequest, at: BundlePaths) -> BundleRequest:
    if not at.certificate.exists():
        return request
    try:
        return request.keeping(certificate_facts(at))
    except Misconfigured as e:
        # Issuing is how a damaged certificate is repaired, so it must not need an undamaged one.
        click.echo(f"{e}; names that only it had are not kept", err=True)
        return request
