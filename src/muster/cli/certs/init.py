"""``muster certs init``: the cluster's CA."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.certs.options import FILE, key_kind_option
from muster.cli.certs.place import Place, placed
from muster.cli.options import Days, dry_run_option, json_option, print_json
from muster.kernel.files import read_bounded
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.bundles import KeyKind
from muster.pki.facts import CertificateFacts


@click.command()
@click.option("--ca-cert", type=click.Path(path_type=Path), help="Adopt this CA; its issuers up to the root follow it.")
@click.option("--ca-key", type=click.Path(path_type=Path), help="The key of that CA.")
@click.option("--ca-passphrase-file", type=FILE, help="File whose first line opens --ca-key; the key stays encrypted.")
@click.option("--days", type=Days(), default=3650, show_default=True, help="How long a new CA is valid.")
@click.option("--replace", is_flag=True, help="Replace the CA that is there; a copy is kept.")
@key_kind_option
@json_option
@dry_run_option
@placed
def init(
    place: Place,
    ca_cert: Path | None,
    ca_key: Path | None,
    ca_passphrase_file: Path | None,
    days: int,
    replace: bool,
    key_kind: KeyKind,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the cluster's CA, or adopt one the site has."""
    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError("--ca-cert and --ca-key belong together")
    if ca_passphrase_file is not None and ca_key is None:
        raise click.UsageError("--ca-passphrase-file opens --ca-key")
    certificate, key = ca_paths(place.pki)
    if ca_cert is not None and ca_key is not None:
        pem, key_pem = read_bounded(ca_cert, what="CA certificate"), read_bounded(ca_key, what="CA key")
        ca = ClusterCA.adopt(
            place.pki, pem, key_pem, now=place.now, overwrite=replace, dry=dry_run, passphrase_file=ca_passphrase_file
        )
        source = f"adopting {ca_cert}"
    else:
        name = place.cluster.cluster
        ca = ClusterCA.create(
            place.pki, name, now=place.now, valid_days=days, key_kind=key_kind, overwrite=replace, dry=dry_run
        )
        source = f"a new CA for cluster {name}, {days} days"
    facts = CertificateFacts.of(ca.certificate)
    if as_json:
        written = {"certificate": str(certificate), "key": str(key)}
        print_json({"dry_run": dry_run, "source": source, **written, "ca": facts.as_json()})
        return
    if dry_run:
        click.echo(f"Would write {certificate} and {key} (0600): {source}")
        return
    click.echo(f"Wrote {certificate} and {key} (0600); valid until {facts.not_after:%Y-%m-%d}")
