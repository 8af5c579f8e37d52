"""``muster certs archive inspect``: what an archive holds, and lacks."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli import WRONG
from muster.cli.certs.options import FILE
from muster.cli.certs.place import Place, placed
from muster.cli.options import json_option, print_json
from muster.kernel.errors import Misconfigured, NotFound, Rejected
from muster.kernel.names import shown
from muster.pki.archive.judged import judged
from muster.pki.archive.read import Archive, opened
from muster.pki.facts import CertificateFacts


@click.command()
@click.argument("file", type=FILE)
@click.option("--member", help="For whom it is. [default: whom its files name]")
@json_option
@placed
def inspect(place: Place, file: Path, member: str | None, as_json: bool) -> None:
    """Say what an archive holds, and what it lacks for this cluster; exit 1 when something is wrong.

    Nothing is unpacked, and no key is shown.
    """
    archive = opened(file)
    name = str(_member(place, archive, member)).lower()
    found = judged(archive, name, [str(n) for n in place.cluster.names], place.now)
    wrong = any(c.severity == "error" for c in found)
    facts = {
        p.certificate: known for p in archive.layout.pairs if (known := _facts(archive, p.certificate)) is not None
    }
    if as_json:
        print_json(
            {
                "archive": str(file),
                "format": archive.format,
                "member": archive.member,
                "good": not wrong,
                "certificates": {n: f.as_json() for n, f in facts.items()},
                "missing": list(archive.missing),
                "more": [shown(n) for n in archive.more],
                "complaints": [c.as_json() for c in found],
            }
        )
        _leave(wrong)
        return
    click.echo(f"{file}: an archive of {archive.format} for {archive.member}")
    for pair in archive.layout.pairs:
        if (known := facts.get(pair.certificate)) is not None:
            names = ", ".join(shown(n) for n in known.names)
            click.echo(f"  {pair.certificate}")
            click.echo(f"    for {pair.used_for}; names {names}; until {known.not_after:%Y-%m-%d}")
    if archive.more:
        click.echo(f"  and, of no use here, {', '.join(shown(n) for n in archive.more)}")
    for one in found:
        click.echo(f"{one.severity}: {one.sentence}\n  why: {one.cause}\n  do:  {one.remedy}")
    if not found:
        click.echo(f"It is good for {name} behind {place.cluster.address}.")
    _leave(wrong)


def _leave(wrong: bool) -> None:
    if wrong:
        raise click.exceptions.Exit(WRONG)


def _member(place: Place, archive: Archive, named: str | None) -> str:
    try:
        return str(place.cluster.member(named or archive.member).name)
    except Rejected as e:
        if named is not None:
            raise
        raise NotFound(
            f"The archive is for {archive.member}, which is no member ({e}); --member says for whom it shall be"
        ) from e


def _facts(archive: Archive, name: str) -> CertificateFacts | None:
    try:
        return CertificateFacts.from_pem(archive.files.get(name, b""), name)
    except Misconfigured:
        # What is wrong with it is complained of.
        return None
