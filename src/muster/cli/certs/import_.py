"""``muster certs import``: bundles that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.certs.expected import BALANCER, carried_names, issuers
from muster.cli.certs.options import FILE
from muster.cli.certs.place import Place, placed
from muster.cli.offered import members
from muster.cli.options import dry_run_option, json_option, print_json
from muster.kernel.names import shown
from muster.pki.bundles import BundleRequest, paths, refuse_unless_ours, write
from muster.pki.facts import CertificateFacts
from muster.pki.verify import imported


@click.command(name="import")
@click.argument("member", required=False, shell_complete=members)
@click.option("--client", help="The bundle of a client: Foreman, an administrator.")
@click.option("--balancer", is_flag=True, help="What the balancer shows in its checks.")
@click.option(
    "--cert", "certificate", type=FILE, required=True, help="The certificate; its intermediate CAs follow it."
)
@click.option("--cert-key", "key", type=FILE, required=True, help="Its key, without a passphrase.")
@json_option
@dry_run_option
@placed
def import_(
    place: Place,
    member: str | None,
    client: str | None,
    balancer: bool,
    certificate: Path,
    key: Path,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Take over a bundle of MEMBER, a client or the balancer that was made elsewhere, such as by Foreman's installer.

    It must be good for what it is imported as: names, dates, purpose, and an issuer that its users trust: the cluster's
    CA, or foreman.ca_file for clients and Ruby members.
    """
    if sum((member is not None, client is not None, balancer)) != 1:
        raise click.UsageError("Give one of MEMBER, --client and --balancer")
    if member is not None:
        request = BundleRequest("member", place.cluster.member(member).name)
    else:
        request = BundleRequest("client", client) if client is not None else BundleRequest("balancer", BALANCER)
    at = paths(place.pki, request.kind, request.common_name)
    refuse_unless_ours(at)
    also = issuers(place, request.kind, request.common_name)
    bundle = imported(
        request, certificate, key, place.ca_file, names=carried_names(place, at), also=also, now=place.now
    )
    if not dry_run:
        write(bundle, place.pki)
    facts = CertificateFacts.from_pem(bundle.certificate_pem.encode(), str(certificate))
    if as_json:
        told = {"kind": request.kind, "name": request.common_name, "directory": str(at.directory)}
        print_json({"dry_run": dry_run, **told, "certificate": facts.as_json()})
        return
    carried = ", ".join(shown(n) for n in (*facts.names, *facts.addresses))
    click.echo(
        f"{'Would write' if dry_run else 'Wrote'} {at.directory}: {carried}; until {facts.not_after:%Y-%m-%d}, issued by "
        f"{shown(facts.issuer)}"
    )
