"""``muster certs issue``: bundles with new keys."""

from __future__ import annotations

import click

from muster.cli.certs.expected import BALANCER, member_request
from muster.cli.certs.options import key_kind_option
from muster.cli.certs.place import Place, placed
from muster.cli.options import Days, dry_run_option, json_option, print_json
from muster.kernel.errors import Misconfigured
from muster.pki.authority import ClusterCA
from muster.pki.bundles import (
    BundlePaths,
    BundleRequest,
    KeyKind,
    certificate_facts,
    paths,
    refuse_unless_ours,
    write,
)


@click.command()
@click.argument("members", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every member of the cluster file.")
@click.option("--client", "clients", multiple=True, help="A client of that name: Foreman, an administrator.")
@click.option("--balancer", is_flag=True, help="What the balancer shows in its checks.")
@click.option("--days", type=Days(), default=825, show_default=True, help="How long the certificates are valid.")
@click.option("--drop-names", is_flag=True, help="Forget names that only the present certificate has.")
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
    key_kind: KeyKind,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Issue a bundle with a new key: for MEMBERS by name, for clients, for the balancer."""
    if not (members or every or clients or balancer):
        raise click.UsageError("Nothing to issue: name members, or use --all, --client or --balancer")
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
            write(ca.issue(wanted, now=place.now, valid_days=days), place.pki)
        until = None if dry_run else certificate_facts(at).not_after
        issued.append((wanted, at, until))
        if not as_json:
            names = ", ".join((*wanted.dns_names, *wanted.addresses))
            ends = f"; until {until:%Y-%m-%d}" if until else ""
            click.echo(f"{'Would write' if dry_run else 'Wrote'} {at.directory}: {names}{ends}")
    if as_json:
        rows = [
            {
                "kind": w.kind,
                "name": w.common_name,
                "directory": str(at.directory),
                "names": list(w.dns_names),
                "addresses": list(w.addresses),
                **({"not_after": until.isoformat()} if until else {}),
            }
            for w, at, until in issued
        ]
        print_json({"dry_run": dry_run, "issued": rows})


def _keeping(request: BundleRequest, at: BundlePaths) -> BundleRequest:
    if not at.certificate.exists():
        return request
    try:
        return request.keeping(certificate_facts(at))
    except Misconfigured as e:
        # Issuing is how a damaged certificate is repaired, so it must not need an undamaged one.
        click.echo(f"{e}; names that only it had are not kept", err=True)
        return request
