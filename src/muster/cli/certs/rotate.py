"""``muster certs rotate``: certificates that end soon, and the CA itself."""

from __future__ import annotations

import contextlib
import functools
from datetime import timedelta
from pathlib import Path

import click

from muster.cli.certs.expected import member_request
from muster.cli.certs.options import FILE
from muster.cli.certs.place import Place, placed
from muster.cli.options import Days, Seconds, dry_run_option, json_option
from muster.kernel.clock import SystemClock
from muster.kernel.files import read_bounded
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, kind_of_key
from muster.pki.carry_out import Workshop, alone, viewed
from muster.pki.facts import CertificateFacts
from muster.pki.rotation import SETTLE, STEPS, Step, decided, expiring


@click.command()
@click.option(
    "--within",
    "within_days",
    type=Days(0),
    default="30d",
    show_default=True,
    help="Those that end within so many days.",
)
@click.option("--all", "every", is_flag=True, help="All, whenever they end.")
@click.option("--ca", "of_ca", is_flag=True, help="Replace the CA: say where that stands and do its next step.")
@click.option("--step", type=click.Choice(STEPS), help="With --ca: do this step and no other.")
@click.option("--ca-cert", type=click.Path(path_type=Path), help="With --ca: adopt this as the new CA.")
@click.option("--ca-key", type=click.Path(path_type=Path), help="The key of that CA.")
@click.option("--ca-passphrase-file", type=FILE, help="File whose first line opens --ca-key; the key stays encrypted.")
@click.option("--ca-days", type=Days(), default=3650, show_default=True, help="How long a new CA is valid.")
@click.option("--days", type=Days(), default=825, show_default=True, help="How long the certificates are valid.")
@click.option(
    "--settle",
    "settle_s",
    type=Seconds(0, 3600),
    default=SETTLE.total_seconds(),
    show_default=True,
    help="With --ca: seconds that members and balancers get to take up a step before the next one.",
)
@click.option("--no-look", is_flag=True, help="With --ca: do not ask the members whether they have the files.")
@json_option
@dry_run_option
@placed
def rotate(
    place: Place,
    within_days: int,
    every: bool,
    of_ca: bool,
    step: Step | None,
    ca_cert: Path | None,
    ca_key: Path | None,
    ca_passphrase_file: Path | None,
    ca_days: int,
    days: int,
    settle_s: float,
    no_look: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Issue again what ends soon, keeping all names; or replace the CA without a dropped call.

    The CA is replaced in three steps: trust-both, reissue, drop-old. An interrupted step is done again. Between two steps
    the files it names must reach their hosts.
    """
    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError("--ca-cert and --ca-key belong together")
    if not of_ca and (step or ca_cert):
        raise click.UsageError("--step, --ca-cert and --ca-key belong to --ca")
    if of_ca and every:
        raise click.UsageError("--all does not go with --ca, which issues everything again")

    def make(directory: Path, common_name: str, *, dry: bool) -> ClusterCA:
        # Only an interruption can have left something there, and nobody has seen that CA.
        if ca_cert is not None and ca_key is not None:
            pem, key_pem = read_bounded(ca_cert, what="CA certificate"), read_bounded(ca_key, what="CA key")
            return ClusterCA.adopt(
                directory, pem, key_pem, now=place.now, overwrite=True, dry=dry, passphrase_file=ca_passphrase_file
            )
        name = place.cluster.cluster
        return ClusterCA.create(
            directory, name, now=place.now, valid_days=ca_days, common_name=common_name, overwrite=True, dry=dry
        )

    workshop = Workshop(place.pki, SystemClock(), days, make)
    # Only looking needs nobody to wait.
    with contextlib.nullcontext() if dry_run else alone(place.pki):
        view = viewed(place.pki, place.now, functools.partial(_requested, place))
        if of_ca:
            from muster.cli.certs.replacement import replace_ca

            decision = decided(view, step, settle=timedelta(seconds=settle_s))
            replace_ca(place, view, decision, workshop, look=not no_look, dry_run=dry_run, as_json=as_json)
        else:
            from muster.cli.certs.renewal import renew

            chosen = expiring(view.bundles, place.now, None if every else timedelta(days=within_days))
            soon = "" if every else f" within {within_days} days"
            renew(view, chosen, workshop, soon, dry_run=dry_run, as_json=as_json)


def _requested(place: Place, at: BundlePaths, facts: CertificateFacts | None) -> BundleRequest:
    """Return what a reissue must carry: what the cluster file says now, and every name the certificate has."""
    key_kind = kind_of_key(facts) if facts else "ec-p256"
    known = place.cluster.members if at.kind == "member" and place.cluster_file.exists() else ()
    member = next((m for m in known if m.name == at.name), None)
    request = (
        member_request(place.cluster, member, key_kind) if member else BundleRequest(at.kind, at.name, (), (), key_kind)
    )
    return request.keeping(facts) if facts else request
