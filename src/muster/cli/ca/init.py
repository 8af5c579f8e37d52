"""``muster ca init``: a new CA."""

from __future__ import annotations

import click

from muster.cli.ca.actor import here
from muster.cli.ca.key import copied
from muster.cli.ca.place import Place, placed
from muster.cli.options import dry_run_option, json_option, print_json

_KINDS = ("rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384")


@click.command()
@click.option("--common-name", help="Of the new CA. [default: Puppet CA: and the cluster's address]")
@click.option("--key", "kind", type=click.Choice(_KINDS), help="Of a key in a file. [default: rsa-4096]")
@click.option("--days", type=click.IntRange(1, 36_500), default=5475, show_default=True, help="How long it is valid.")
@dry_run_option
@json_option
@placed
async def init(place: Place, common_name: str | None, kind: str | None, days: int, dry_run: bool, as_json: bool) -> int:
    """Make a new, self-signed CA: its key where authority.key says, everything else in the store.

    A key in a file is made; a signer or a token has its key already, and signs the CA's certificate with it. RSA is what
    every agent takes; EC keys need agents of version 6 or later.
    """
    from muster.authority.keys import custody
    from muster.authority.moves.founding import Founding, founded, refuse_unless_new
    from muster.authority.x509.profile import COMMON_NAME_LIMIT

    settings = place.signing("Set signer: any first.")
    holds = custody.named(settings.key, place.key_file).where
    in_file = settings.key.kind == "file"
    if kind and not in_file:
        raise click.UsageError(f"--key is for a key that is made in a file; {holds} has its key already")
    name = common_name or f"Puppet CA: {place.cluster.address}"
    if len(name) > COMMON_NAME_LIMIT or not name.isprintable():
        raise click.UsageError(
            f"--common-name must be at most {COMMON_NAME_LIMIT} characters that can be shown; {len(name)} are given"
        )
    founding = Founding(name, kind or "rsa-4096", days, settings.key.file or place.key_file)  # type: ignore[arg-type]
    async with place.store(changes=not dry_run) as store:
        if dry_run:
            await refuse_unless_new(store, settings, founding)
        else:
            await founded(store, settings, founding, member=here())
    if dry_run:
        what = f"{founding.kind}, {days} days, its key in" if in_file else f"{days} days, with the key of"
        sentence = f"Would make {name}, {what} {holds}."
    elif in_file:
        sentence = f"Made {name}; its key is in {holds}. {copied(settings.key)}"
    else:
        sentence = f"Made {name} with the key of {holds}. Every member needs one that holds this key."
    if as_json:
        print_json({"common_name": name, "key": holds, "days": days, "dry_run": dry_run, "sentence": sentence})
    else:
        click.echo(sentence)
    return 0
