"""``muster ca export``: the CA as a directory from which a puppetserver starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.ca.actor import here
from muster.cli.ca.key import about_key
from muster.cli.ca.place import Place, placed
from muster.cli.ca.progress import progress
from muster.cli.options import dry_run_option, json_option, print_json


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--without-key", is_flag=True, help="Leave the private key out.")
@dry_run_option
@json_option
@placed
async def export(place: Place, directory: Path, without_key: bool, dry_run: bool, as_json: bool) -> int:
    """Write the CA as a DIRECTORY from which a real puppetserver starts; the way back.

    Members must not sign any more once that puppetserver does: set signer to its host first. An encrypted key is written
    without its passphrase, which a puppetserver does not know, mode 0600; one that a signer or a token holds is not written.
    """
    from muster.authority.keys import custody
    from muster.authority.ledger.ledger import Ledger
    from muster.authority.moves import transfer
    from muster.authority.x509.profile import Issuer
    from muster.kernel.errors import Misconfigured

    settings = place.settings
    async with place.store() as store:
        chain = await Ledger(store, here()).chain()
        if chain is None:
            raise Misconfigured("The store holds no Puppet CA; there is nothing to export")
        transfer.refuse_unless_free(directory)
        key_pem = None
        if not without_key:
            holder = custody.named(settings.key, place.key_file)
            key_pem = await asyncio.to_thread(holder.exported, Issuer.read(chain))
        result = {"directory": str(directory), "key": key_pem is not None, "dry_run": dry_run, "done": True}
        told = about_key(settings.key, place.key_file, without_key=without_key)
        if dry_run:
            sentence = f"Would write the CA to {directory}{'' if key_pem else ', without its key'}."
        else:
            counts = await transfer.write_directory(
                store, directory, key_pem=key_pem, infra_hosts=settings.infra_hosts, progress=progress(quiet=as_json)
            )
            result |= counts
            sentence = (
                f"Wrote {counts['certificates']} certificates, {counts['requests']} requests and {counts['revocations']} "
                f"revocations to {directory}. Give it to puppetserver's account: chown -R puppet:puppet {directory}"
            )
    if told:
        sentence += f"\n{told}"
    if settings.infra_hosts:
        sentence += (
            "\nAgents get the short list of infra_hosts there with enable-infra-crl: true in puppetserver's ca.conf."
        )
    if as_json:
        print_json({**result, "sentence": sentence})
    else:
        click.echo(sentence)
    return 0
