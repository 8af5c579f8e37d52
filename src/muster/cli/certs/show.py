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
from muster.kernel.errors import MusterError, NotFound
from muster.kernel.files import read_bounded
from muster.kernel.names import shown
from muster.pki.bundles import present
from muster.pki.facts import CertificateFacts

_Row = tuple[str, str, Path, CertificateFacts | dict[str, str]]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@placed
def show(place: Place, file: Path | None, as_json: bool) -> None:
    """Show the CA and all bundles, or the first certificate of FILE."""
    rows = _rows([("file", "", file)] if file is not None else _all(place.pki))
    if as_json:
        print_json(_as_json(rows))
    else:
        _print_facts(rows, place.now)


def told(pki: Path) -> list[dict[str, Any]]:
    """Return everything ``muster certs show`` shows of that directory, as JSON.

    Raises:
        NotFound: there is nothing.
    """
    return _as_json(_rows(_all(pki)))


def _all(pki: Path) -> list[tuple[str, str, Path]]:
    from muster.pki.authority import ca_paths

    ca_file = ca_paths(pki)[0]
    found: list[tuple[str, str, Path]] = [("ca", "", ca_file)] if ca_file.exists() else []
    found += [(b.kind, b.name, b.certificate) for b in present(pki)]
    if not found:
        raise NotFound(f"There are no certificates in {pki}; make the CA with: muster certs init")
    return found


def _rows(wanted: Iterable[tuple[str, str, Path]]) -> list[_Row]:
    return [(kind, name, path, _facts_of(path)) for kind, name, path in wanted]


def _as_json(rows: Iterable[_Row]) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "name": name, "path": str(path)} | (f.as_json() if isinstance(f, CertificateFacts) else f)
        for kind, name, path, f in rows
    ]


def _facts_of(path: Path) -> CertificateFacts | dict[str, str]:
    try:
        return CertificateFacts.from_pem(read_bounded(path, what="certificate"), str(path))
    except MusterError as e:
        return {"problem": str(e)}


def _print_facts(rows: Iterable[_Row], now: datetime) -> None:
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
