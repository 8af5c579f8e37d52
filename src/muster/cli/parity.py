"""``muster parity``: are all members the same? Field by field, as Foreman sees them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import NOT_DONE, WRONG
from muster.cli.options import cluster_option, json_option, line, pki_directory, pki_option, print_json, print_parts

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# A table of more members is wider than a screen; the sentences below it say the same.
_WIDEST_TABLE = 8

_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.command()
@cluster_option
@pki_option
@json_option
@click.option(
    "--client", help="Trusted client bundle to show, by name. [default: the first trusted host's that is here]"
)
@click.option("--certificate", type=_FILE, help="Trusted client certificate to show, in PEM, instead of a bundle.")
@click.option("--key", type=_FILE, help="Its key. [default: in the same file]")
def parity(
    cluster_path: Path,
    pki_path: Path | None,
    as_json: bool,
    client: str | None,
    certificate: Path | None,
    key: Path | None,
) -> int:
    """Compare the members field by field; exit 1 when they drifted apart. Changes nothing.

    Features, settings, capabilities, versions, URLs and certificates are asked of every member, Ruby ones included, as
    Foreman asks. Exit 4: a member could not be asked. Differences that are meant stand in the cluster file
    (expected_differences).
    """
    if client and certificate:
        raise click.UsageError("--client and --certificate exclude each other.")
    if key and not certificate:
        raise click.UsageError("--key goes with --certificate.")
    pki = pki_directory(cluster_path, pki_path)
    found = asyncio.run(examination(cluster_path, pki, client, (certificate, key) if certificate else None))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))
    if found["unasked"]:
        return NOT_DONE
    return 0 if found["alike"] else WRONG


async def examination(
    cluster_path: Path,
    pki: Path,
    client: str | None = None,
    pair: tuple[Path, Path | None] | None = None,
) -> dict[str, Any]:
    """Return everything ``muster parity`` shows, as one JSON object."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded, store_to_read
    from muster.cli.credentials import ca_file, client_bundle
    from muster.content import drifts
    from muster.kernel import log
    from muster.kernel.clock import SystemClock
    from muster.observed.census import Census

    # What would be logged stands in the answer; unconfigured, it would also stand between its lines.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    certificate, key = pair or client_bundle(pki, cluster.trusted_names, client)
    now = SystemClock().now()
    census = Census(cluster, modelled(cluster), ca_file(pki), certificate, key, now, also=drifts.reading(cluster))
    async with store_to_read(cluster) as store:
        found = await census.parity(store)
    return found.as_json(cluster)


def shown(found: dict[str, Any]) -> list[Table | Text]:
    """Return what a person sees: fields × members where they differ, then sentences."""
    from muster.observed.parity import lasting

    count = sum(bool(d["differing"]) for d in found["drifts"])
    fits = len(found["members"]) <= _WIDEST_TABLE
    parts: list[Table | Text] = [_table(found)] if found["drifts"] and fits else []
    parts += [line(d["sentence"] + lasting(d["lasted_s"]), "red" if d["differing"] else "dim") for d in found["drifts"]]
    parts += [line(f"Not asked: {member}: {why}", "red") for member, why in found["unasked"].items()]
    parts += [line(note, "yellow") for note in found["notes"]]
    parts += [line(f"Declared and not found: {e['field']} ({e['reason']})", "yellow") for e in found["unneeded"]]
    asked = len(found["members"]) - len(found["unasked"])
    where = f"in {found['fields']} fields of {asked} member{'s' if asked != 1 else ''}"
    verdict = "No drift" if not count else f"{count} field{'s' if count != 1 else ''} drifted"
    return [*parts, line(f"{verdict} {where}.", "bold")]


def _table(found: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from muster.observed.parity import spoken

    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("field", overflow="fold")
    names = [m["name"] for m in found["members"]]
    for name in names:
        table.add_column(name.split(".")[0], overflow="fold")
    for drift in found["drifts"]:
        cells = [
            Text(
                spoken(drift["values"][name]) if name in drift["values"] else "–",
                style="red" if name in drift["differing"] else "yellow" if name in drift["expected"] else "",
            )
            for name in names
        ]
        table.add_row(Text(drift["field"]), *cells)
    return table
