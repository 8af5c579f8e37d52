"""``muster ca issue-member``: the Puppet host certificate of a member."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.ca.place import Place, placed
from muster.cli.offered import members
from muster.cli.options import dry_run_option, json_option, print_json


@click.command(name="issue-member")
@click.argument("member", shell_complete=members)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the files go.")
@dry_run_option
@json_option
@placed
async def issue_member(place: Place, member: str, output: Path, dry_run: bool, as_json: bool) -> int:
    """Issue MEMBER's Puppet host certificate with the cluster's names, for its agent and its puppetserver.

    It replaces an earlier one under that name, which stays valid until it is revoked or ends.
    """
    from muster.authority.own import host_files, key_place, lay_out
    from muster.kernel.errors import Conflict

    cluster = place.cluster
    name = str(cluster.member(member).name).lower()
    names = [name, *(str(n).lower() for n in cluster.names)]
    if (key := key_place(output, name)).exists():
        raise Conflict(f"{key} exists; nothing was changed")
    async with place.opened(
        "On {signer}: puppetserver ca generate --certname NAME --subject-alt-names NAMES", changes=not dry_run
    ) as authority:
        if dry_run:
            sentence = f"Would issue {name} with {', '.join(names)} into {output}."
            if as_json:
                print_json({"name": name, "names": names, "files": [], "dry_run": True, "sentence": sentence})
            else:
                click.echo(sentence)
            return 0
        made = await host_files(authority, name, names)
        crl = (await authority.lists.served()).pem
    files = lay_out(output, name, made, bundle=authority.chain_pem, lists=crl)
    if not as_json:
        for file in files:
            click.echo(f"Wrote {file}")
    sentence = (
        "Copy them below the host's ssldir (puppet config print ssldir), then there: chown -R puppet:puppet SSLDIR; "
        "restorecon -R SSLDIR where SELinux is on."
    )
    if as_json:
        written = [str(f) for f in files]
        print_json({"name": name, "names": names, "files": written, "dry_run": False, "sentence": sentence})
    else:
        click.echo(sentence)
    return 0
