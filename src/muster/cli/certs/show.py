"""``muster certs show``: the CA and all bundles."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from muster.cli.certs.place import Place, placed
from muster.cli.options import json_option, print_json
from muster.kernel.errors import NotFound
from muster.kernel.names import shown
from muster.pki.listed import Listed, listed


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@placed
def show(place: Place, file: Path | None, as_json: bool) -> None:
    """Show the CA and all bundles, or the first certificate of FILE."""
    found = [Listed.of("file", "", file)] if file is not None else _all(place.pki)
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        _print_facts(found, place.now)


def told(pki: Path) -> list[dict[str, Any]]:
    """Return everything ``muster certs show`` shows of that directory, as JSON.

    Raises:
        NotFound: there is nothing.
    """
    return [one.as_json() for one in _all(pki)]


def _all(pki: Path) -> list[Listed]:
    found = listed(pki)
    if not found:
        raise NotFound(f"There are no certificates in {pki}; make the CA with: muster certs init")
    return found


def _print_facts(found: Iterable[Listed], now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("Kind", "Name", "Names", "Issuer", "Key", "Until", "Days"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Kind", "Name", "Until", "Days"))
    for one in found:
        kind, name, path, facts = one.kind, one.name, one.path, one.facts
        if facts is None:
            table.add_row(kind, Text(name or str(path)), Text(shown(one.problem), style="red"))
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
    for one in found:
        # Hosts that join, and people, compare that of a CA; of bundles nobody does.
        if one.kind in ("ca", "file") and one.facts is not None:
            digits = one.facts.fingerprint_sha256.upper()
            pairs = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
            label = one.name or shown(str(one.path))
            console.print(Text(f"Fingerprint of {one.kind} {label}: SHA-256 {pairs}"), soft_wrap=True)
