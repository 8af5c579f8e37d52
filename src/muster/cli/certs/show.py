"""``muster certs show``: the CA and all bundles."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import click

from muster.cli.certs.place import Place, placed
from muster.cli.options import json_option, print_json
from muster.kernel.errors import MusterError, NotFound
from muster.kernel.files import read_bounded
from muster.kernel.names import shown
from muster.pki.bundles import present
from muster.pki.facts import CertificateFacts


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@placed
def show(place: Place, file: Path | None, as_json: bool) -> None:
    """Show the CA and all bundles, or the first certificate of FILE."""
    if file is not None:
        wanted = [("file", "", file)]
    else:
        wanted = [("ca", "", place.ca_file)] if place.ca_file.exists() else []
        wanted += [(b.kind, b.name, b.certificate) for b in present(place.pki)]
    if not wanted:
        raise NotFound(f"There are no certificates in {place.pki}; make the CA with: muster certs init")
    rows = [(kind, name, path, _facts_of(path)) for kind, name, path in wanted]
    if as_json:
        found = [
            {"kind": kind, "name": name, "path": str(path)} | (f.as_json() if isinstance(f, CertificateFacts) else f)
            for kind, name, path, f in rows
        ]
        print_json(found)
    else:
        _print_facts(rows, place.now)


def _facts_of(path: Path) -> CertificateFacts | dict[str, str]:
    try:
        return CertificateFacts.from_pem(read_bounded(path, what="certificate"), str(path))
    except MusterError as e:
        return {"problem": str(e)}


def _print_facts(rows: Iterable[tuple[str, str, Path, CertificateFacts | dict[str, str]]], now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("Kind", "Name", "Names", "Issuer", "Key", "Until", "Days"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Kind", "Name", "Until", "Days"))
    for kind, name, path, facts in rows:
        if isinstance(facts, dict):
            table.add_row(kind, Text(name or str(path)), Text(shown(facts["problem"]), style="red"))
            continue
        days = (facts.not_after - now).days
        style = "red" if days < 7 else "yellow" if days < 30 else ""
        # Names come from the file as they are; a terminal must not obey them.
        names = "\n".join(shown(n) for n in (*facts.names, *facts.addresses))
        label = name or shown(facts.subject_cn or str(path))
        until = f"{facts.not_after:%Y-%m-%d}"
        texts = [Text(t) for t in (kind, label, names, facts.issuer, facts.key)]
        table.add_row(*texts, Text(until, style=style), Text(str(days), style=style))
    # What is piped is read by a program or stored: nothing of it may be cut to a terminal's width.
    console = Console(width=None if sys.stdout.isatty() else 400)
    console.print(table)
    for kind, name, path, facts in rows:
        # Hosts that join, and people, compare that of a CA; of bundles nobody does.
        if kind in ("ca", "file") and isinstance(facts, CertificateFacts):
            digits = facts.fingerprint_sha256.upper()
            pairs = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
            console.print(Text(f"Fingerprint of {kind} {name or shown(str(path))}: SHA-256 {pairs}"), soft_wrap=True)
