"""``muster backup``: store, keys and cluster file as one encrypted file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import (
    cluster_option,
    dry_run_option,
    json_option,
    one_line,
    pki_directory,
    pki_option,
    print_json,
)

if TYPE_CHECKING:
    from muster.app.backup.made import Made, Wanted

_FILE = click.Path(dir_okay=False, path_type=Path)
_STDOUT = Path("-")


@click.command()
@cluster_option
@pki_option
@click.option("--output", "at", type=_FILE, help="The backup, mode 0600; - is standard output.")
@click.option(
    "--recipient", "recipients", multiple=True, metavar="AGE1|SSH-KEY", help="Who can open it: age1… or ssh-ed25519 …"
)
@click.option("--recipients-file", "files", multiple=True, type=_FILE, help="The same, one a line.")
@click.option("--force", is_flag=True, help="Replace a backup that is there.")
@json_option
@dry_run_option
def backup(
    cluster_path: Path,
    pki_path: Path | None,
    at: Path | None,
    recipients: tuple[str, ...],
    files: tuple[Path, ...],
    force: bool,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Write the store, this host's keys and certificates and the cluster file into one file, encrypted with age.

    Whoever has the identity of a recipient opens it: muster restore, or age -d and tar. Nothing that opens it is needed to
    make it. Run it as root on the host that has the CA's key; members go on meanwhile. At the end it says what is not in it.
    """
    from muster.app.backup import made, sealed
    from muster.app.backup.files import collected
    from muster.cli.ca.actor import here
    from muster.kernel import log

    log.configure(level="ERROR")
    if at is None and not dry_run:
        raise click.UsageError("Name the file to write with --output (- is standard output)")
    if at == _STDOUT and as_json and not dry_run:
        raise click.UsageError("--json and --output - would both write to standard output")
    to = sealed.recipients(recipients, files) if recipients or files or not dry_run else ()
    if at is not None and at != _STDOUT:
        made.refuse_to_replace(at, force=force)
    pki = pki_directory(cluster_path, pki_path)
    wanted = made.Wanted(collected(cluster_path, pki), cluster_path, pki, here())
    done = asyncio.run(_made(wanted, to, at, force=force, quiet=as_json, dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, "output": None if at is None else str(at), **done.as_json()})
    else:
        _tell(done, at, dry_run=dry_run, to_stderr=at == _STDOUT)
    return 0


async def _made(wanted: Wanted, to: Any, at: Path | None, *, force: bool, quiet: bool, dry_run: bool) -> Made:
    from muster.app.backup import made
    from muster.app.settings import cluster_store
    from muster.cli.ca.progress import progress
    from muster.kernel.errors import Unavailable

    async with cluster_store(wanted.files.cluster, changes=False) as store:
        if dry_run or at is None:
            return await made.looked(store, wanted)
        say = progress(quiet=quiet)
        if at == _STDOUT:
            if sys.stdout.isatty():
                raise click.UsageError("A terminal is no place for a backup; send it to a file or a program")
            try:
                done = await made.write(store, wanted, sys.stdout.buffer, to, say)
                sys.stdout.buffer.flush()
            except OSError as e:
                # Who reads a list may stop when he has enough; of a backup nothing but all is enough.
                raise Unavailable(f"Writing to standard output failed: {e.strerror or e}; the backup is cut off") from e
            return done
        with made.to_file(at, force=force) as out:
            return await made.write(store, wanted, out, to, say)


def _tell(done: Made, at: Path | None, *, dry_run: bool, to_stderr: bool) -> None:
    said = done.manifest
    rows = sum(done.rows.values())
    what = f"{len(said.files)} files and {rows} rows of {len(done.rows)} tables of {said.store}, schema {said.schema_}"
    size = "" if dry_run else f", {done.size} bytes"
    verb = "Would write" if dry_run else "Wrote"
    click.echo(f"{verb} {at or 'a backup'}: cluster {said.cluster} at {said.moment}, {what}{size}.", err=to_stderr)
    if dry_run:
        for file in said.files:
            click.echo(f"  {file.mode:04o} {one_line(file.path)}", err=to_stderr)
        for name, count in done.rows.items():
            click.echo(f"  {count:>9} rows of {name}", err=to_stderr)
    tell_left([(one.what, one.why) for one in said.left], to_stderr=to_stderr)


def tell_left(left: list[tuple[str, str]], *, to_stderr: bool = False) -> None:
    """Say what is not in a backup, and why."""
    click.echo("Not in it:", err=to_stderr)
    for what, why in left:
        click.echo(f"  {one_line(what)}: {one_line(why)}", err=to_stderr)
