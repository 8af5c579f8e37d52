"""``muster doctor``: every service on every member, directly and through the balancer; finding, cause, remedy."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.options import (
    DEFAULT_RUN,
    Host,
    cluster_option,
    json_option,
    line,
    one_line,
    pki_directory,
    pki_option,
    print_json,
    print_parts,
    run_option,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rich.table import Table
    from rich.text import Text

    from muster.cluster.file import ClusterFile
    from muster.store.reading import Readable

# Where systemd's unit lets a member keep what it writes itself.
_STATE = Path("/var/lib/muster")


@click.command()
@cluster_option
@pki_option
@run_option
@json_option
@click.option(
    "--balancer", "balancer_host", type=Host(), help="Where the balancer listens. [default: from the cluster file]"
)
@click.option(
    "--outside", type=Host(), help="Address at which clients of another network reach the balancer; asked, too."
)
@click.option("--client", help="Client bundle to show, by name. [default: the first trusted host's, if it is here]")
@click.option(
    "--record", "is_recorded", is_flag=True, help="Have the store keep what was found, which the cluster's page shows."
)
def doctor(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    as_json: bool,
    balancer_host: str | None,
    outside: str | None,
    client: str | None,
    is_recorded: bool,
) -> int:
    """Examine the cluster; exit 1 when something is wrong. Changes nothing; --record keeps what it found.

    What has one cause is said once, first causes first; --json has every single finding.
    """
    pki = pki_directory(cluster_path, pki_path)
    found = asyncio.run(examination(cluster_path, pki, balancer_host, client, run=run_path, outside=outside))
    if is_recorded and (why := asyncio.run(_recorded(cluster_path, found))):
        click.echo(one_line(f"Not recorded for the cluster's page: {why}"), err=True)
    if as_json:
        print_json(found)
    else:
        print_parts(lambda width: shown(found, width))
    return 0 if found["healthy"] else WRONG


async def _puppet_ca(cluster: ClusterFile, pki: Path, directory: Path) -> Path | None:
    """Return a file with the bundle of the Puppet CA that members are, written into the directory; None: nobody knows it.

    The store has it, and every host opens that; a member keeps a copy for times without.
    """
    from muster.authority.ledger.lookup import chain_in
    from muster.kernel.errors import MusterError

    try:
        async with _store(cluster) as store, store.read() as uow:
            chain = await chain_in(uow)
    except MusterError:
        # The store's own check names it.
        return _kept(pki)
    if chain is None:
        return None
    bundle = directory / "puppet-ca.pem"
    bundle.write_bytes(chain.encode())
    return bundle


def _kept(pki: Path) -> Path | None:
    """Return the bundle that a member of this host keeps: in its state directory, else among the certificates."""
    places = [*([Path(state)] if (state := os.environ.get("MUSTER_STATE")) else []), pki, _STATE]
    found = (place / "puppet-ca" / "ca_crt.pem" for place in places)
    return next((f for f in found if os.access(f, os.R_OK)), None)


async def examination(
    cluster_path: Path,
    pki: Path,
    balancer_host: str | None = None,
    client: str | None = None,
    *,
    run: Path = DEFAULT_RUN,
    outside: str | None = None,
) -> dict[str, Any]:
    """Return everything ``muster doctor`` shows, as one JSON object."""
    with tempfile.TemporaryDirectory(prefix="muster-doctor-") as scratch:
        return await _examined(cluster_path, pki, balancer_host, client, run, outside, Path(scratch))


async def _examined(
    cluster_path: Path,
    pki: Path,
    balancer_host: str | None,
    client: str | None,
    run: Path,
    outside: str | None,
    scratch: Path,
) -> dict[str, Any]:
    from muster.app.offers import modelled
    from muster.app.settings import doubts, loaded
    from muster.balancer.model import signs_itself
    from muster.cli.credentials import client_bundle, credentials_here
    from muster.cluster.checks import known_lives
    from muster.cluster.life import in_maintenance
    from muster.doctor.causes import dead, grouped
    from muster.doctor.checks import Patient, of_settings
    from muster.doctor.examine import examined, in_order
    from muster.doctor.matrix import THROUGH_BALANCER, Prober, entrances, versions
    from muster.kernel import log
    from muster.kernel.clock import SystemClock
    from muster.pki.context import Credentials

    # What would be logged is a finding; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    balancing = modelled(cluster)
    clock = SystemClock()
    lives = await known_lives(lambda: _store(cluster))
    certificate, key = client_bundle(pki, cluster.trusted_names, client)
    itself = signs_itself(cluster)
    puppet_ca = await _puppet_ca(cluster, pki, scratch) if itself else None
    prober = Prober(
        balancing,
        pki / "ca.pem",
        certificate,
        key,
        clock.now(),
        puppet_ca=puppet_ca,
        lacks_bundle=itself and puppet_ca is None,
        resting=in_maintenance(lives or {}),
        site_ca_file=cluster.foreman.ca_file,
        ruby=frozenset(str(m.name).lower() for m in cluster.members if m.kind == "foreman"),
        aliases=tuple(str(a) for a in cluster.aliases),
    )
    ways_in = entrances(cluster, balancer_host, outside)
    patient = Patient(
        cluster,
        modelled,
        pki,
        run,
        lambda: _store(cluster),
        credentials_here(pki, cluster),
        clock,
        (file.parent,) if (file := _store_file(cluster)) else (),
        lives=lives,
        trusted=Credentials(pki / "ca.pem", certificate, key, cluster.foreman.ca_file),
    )
    cells, findings = await asyncio.gather(prober.cells(ways_in), examined(patient.checks()))
    settings = of_settings(cluster_path, doubts(cluster_path, cluster))
    names = [str(m.name) for m in cluster.members]
    is_here_down = any(f.code == "BALANCER-DOWN" for f in findings)
    ruby = {str(m.name) for m in cluster.members if m.kind == "foreman"}
    gone = dead(names, ways_in, cells, is_here_down=is_here_down, ruby=ruby)
    findings = [
        *gone,
        *in_order([*(f for c in cells for f in c.findings), *versions(cluster, cells), *findings, *settings]),
    ]
    causes = grouped(findings, names, ways_in)
    return {
        "cluster": cluster.cluster,
        "address": cluster.address,
        "balancer": next((e.host for e in ways_in if e.path == THROUGH_BALANCER), None),
        "outside": outside,
        "entrances": [e.as_json() for e in ways_in],
        "members": [str(m.name) for m in cluster.members],
        "healthy": all(c.ok for c in cells) and not any(f.severity == "error" for f in findings),
        "services": [{"name": s.name, "listen_port": s.listen_port} for s in balancing.services],
        "cells": [c.as_json() for c in cells],
        "causes": [{"code": c.finding.code, "place": c.finding.place, "findings": len(c.findings)} for c in causes],
        "findings": [
            {**f.as_json(), "because": c.finding.code if f in c.follows else None} for c in causes for f in c.findings
        ],
    }


async def _recorded(cluster_path: Path, found: dict[str, Any]) -> str:
    """Keep what was found in the store, for the page; return why not, empty when it was.

    Where there is no store, or an older one, none is made: whoever examines changes no schema.
    """
    import socket

    from muster.app.settings import cluster_store, loaded
    from muster.kernel.errors import MusterError
    from muster.observed.recorded import record

    cluster = loaded(cluster_path)
    try:
        async with _store(cluster) as store, store.read():
            pass
        async with cluster_store(cluster) as written:
            kept = {k: v for k, v in found.items() if k not in ("cells", "entrances")}
            await record(written, "doctor", kept, by=socket.gethostname())
    except MusterError as e:
        # What is wrong with the store is a finding already.
        return str(e)
    return ""


def _store(cluster: ClusterFile) -> AbstractAsyncContextManager[Readable]:
    """Open the store to read, and never make it: the doctor changes nothing."""
    import contextlib

    from muster.app.settings import store_password
    from muster.kernel.errors import Unavailable
    from muster.store.glance import glanced

    file = _store_file(cluster)
    if file is not None and not file.exists():
        # SQLite would make it.
        raise Unavailable(f"There is no store {file}; a member makes it when it first starts")
    return contextlib.nullcontext(
        glanced(
            cluster.store.url,
            password=store_password(cluster),
            connect_timeout_s=cluster.store.connect_timeout_s,
            statement_timeout_s=cluster.store.statement_timeout_s,
        )
    )


def _store_file(cluster: ClusterFile) -> Path | None:
    from muster.kernel.errors import Misconfigured
    from muster.store.place import Place

    try:
        return Place.parsed(cluster.store.url).file
    except Misconfigured:
        return None


def shown(found: dict[str, Any], width: int = 200) -> list[Table | Text]:
    """Return what a person sees: the table for a terminal of that width, then findings with cause and remedy."""
    from rich.text import Text

    fits = _SERVICE_COLUMN + _PATH_COLUMN * len(_paths(found)) <= width
    parts: list[Table | Text] = [_table(found) if fits else _by_path(found)]
    causes = _causes(found)
    for first, alike, follows in causes:
        style = "red" if "error" in (f["severity"] for f in (first, *alike)) else "yellow"
        # A finding may quote a member, a server or a file.
        parts.append(line(f"{first['code']}: {first['sentence']}", style))
        for label in ("cause", "remedy"):
            if first[label]:
                parts.append(line(f"    {label}: {first[label]}"))
        more = [
            s
            for s in dict.fromkeys(f["sentence"] for f in alike if f["place"] == first["place"])
            if s != first["sentence"]
        ]
        parts.extend(line(f"    also: {sentence}") for sentence in more[:_MOST_LISTED])
        if len(more) > _MOST_LISTED:
            parts.append(line(f"    and {len(more) - _MOST_LISTED} more of that place: muster doctor --json"))
        if places := [p for p in dict.fromkeys(f["place"] for f in alike) if p != first["place"]]:
            parts.append(line(f"    the same of: {_listed(places)}"))
        if follows:
            codes = Counter(f["code"] for f in follows)
            told = [code + (f" ({count})" if count > 1 else "") for code, count in codes.items()]
            parts.append(line(f"    from it follows: {_listed(told)}", "dim"))
    errors = [c for c in causes if "error" in (f["severity"] for f in (c[0], *c[1]))]
    count = sum(f["severity"] == "error" for f in found["findings"])
    said = f"{_counted(count, 'error')}" + (f" of {_counted(len(errors), 'cause')}" if len(errors) < count else "")
    parts.append(Text("Healthy." if found["healthy"] else f"{said}.", style="bold"))
    return parts


_MOST_LISTED = 8
# Cells wrap between words; narrower than that they would be cut within one.
_SERVICE_COLUMN, _PATH_COLUMN = 20, 13


def _head(name: str) -> str:
    return name.split(".")[0]


def _paths(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every path a service is asked over, and what it is called."""
    direct = [(m.lower(), f"{_head(m)} direct") for m in found["members"]]
    return [
        *direct,
        *((e["path"], e["words"] + (f", {e['host']}" if e["path"] == "outside" else "")) for e in found["entrances"]),
    ]


def _table(found: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("service")
    for _, words in _paths(found):
        table.add_column(words)
    by_place = {(c["service"], c["path"]): c for c in found["cells"]}
    for service in found["services"]:
        row = [_cell(by_place.get((service["name"], path))) for path, _ in _paths(found)]
        table.add_row(f"{service['name']} {service['listen_port']}", *row)
    return table


def _by_path(found: dict[str, Any]) -> Table:
    """Return the table with a row per path, for more of them than stand beside each other."""
    from rich.table import Table

    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("path")
    table.add_column("services", overflow="fold")
    for path, words in _paths(found):
        cells = [c for c in found["cells"] if c["path"] == path]
        fails = [c["service"] for c in cells if c["asked"] and not c["ok"]]
        if not any(c["asked"] for c in cells):
            table.add_row(words, line(cells[0]["words"], "yellow") if cells else line("–", "dim"))
        elif not fails:
            table.add_row(words, line(f"all {len(cells)} ok", "green"))
        else:
            what = f"all {len(fails)}" if len(fails) == len(cells) else ", ".join(fails)
            table.add_row(words, line(f"{what} fail{'s' if len(fails) == 1 else ''}", "red"))
    return table


def _causes(found: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return each cause's finding, the same of other places, and what follows from them; in the order they stand in."""
    findings, out = list(found["findings"]), []
    for cause in found.get("causes") or [{"findings": 1}] * len(findings):
        mine, findings = findings[: cause["findings"]], findings[cause["findings"] :]
        follows = [f for f in mine if f.get("because")]
        first, *alike = [f for f in mine if not f.get("because")]
        out.append((first, alike, follows))
    return out


def _listed(words: list[str]) -> str:
    more = len(words) - _MOST_LISTED
    return ", ".join(words[:_MOST_LISTED]) + (f" and {more} more (--json has all)" if more > 0 else "")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def _cell(cell: dict[str, Any] | None) -> Text:
    from rich.text import Text

    if cell is None:
        return Text("–", style="dim")
    if not cell["asked"]:
        return line(cell["words"], "yellow")
    # What answered said so itself; brackets in it are no markup.
    return Text.assemble(("ok", "green"), f" {one_line(cell['words'])}") if cell["ok"] else Text("fails", style="red")
