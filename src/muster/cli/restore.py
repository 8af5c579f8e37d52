"""``muster restore``: a backup on new hosts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

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
from muster.cli.options import store_url as store_url_option

if TYPE_CHECKING:
    from muster.app.backup.decide import Placed
    from muster.app.backup.opened import Archive
    from muster.app.backup.restored import Plan

_FILE = click.Path(dir_okay=False, path_type=Path)
_SAID = {
    "new": "write",
    "same": "is there already",
    "different": "is there with another content; replaced by --force only",
    "elsewhere": "left out: outside the cluster file's directory and the PKI's; --elsewhere writes it, too",
    "given": "left as it is on this host: it is the password of another store",
}


@click.command()
@click.argument("file", type=_FILE)
@cluster_option
@pki_option
@click.option(
    "--identity", type=_FILE, required=True, help="What opens it: a file of age-keygen, or a private SSH key."
)
@click.option(
    "--store-url",
    callback=store_url_option("--store-password-file"),
    help="Restore into another store than the cluster file names; it gets this URL.",
)
@click.option("--store-password-file", type=_FILE, help="File on this host whose first line is that store's password.")
@click.option(
    "--elsewhere", is_flag=True, help="Also write files outside the directories of the cluster file and the PKI."
)
@click.option("--force", is_flag=True, help="Replace files that are here with another content.")
@click.option(
    "--crl", "lists", multiple=True, type=_FILE, help="A crl.pem newer than the backup, of any member or agent."
)
@click.option("--inspect", is_flag=True, help="Only verify the backup and say what is in it; asks no store.")
@json_option
@dry_run_option
def restore(
    file: Path,
    cluster_path: Path,
    pki_path: Path | None,
    identity: Path,
    store_url: str | None,
    store_password_file: Path | None,
    elsewhere: bool,
    force: bool,
    lists: tuple[Path, ...],
    inspect: bool,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Bring a backup FILE back: keys and certificates, an empty store's content, then the cluster file.

    All of it is verified first, and nothing is touched if anything is wrong. Only restore what you know to be yours: whoever
    knows a recipient can make such a file. The members must not run yet. A run that was cut off is completed by the same
    command.
    """
    from muster.app.backup.opened import opened
    from muster.app.backup.restored import Wanted, carry_out, planned
    from muster.cli.ca.progress import progress
    from muster.kernel import log

    log.configure(level="ERROR")
    if store_password_file is not None and store_url is None:
        raise click.UsageError("--store-password-file is of --store-url")
    with opened(file, identity) as archive:
        if inspect:
            _show(archive, as_json=as_json)
            return 0
        pki = pki_directory(cluster_path, pki_path)
        wanted = Wanted(cluster_path, pki, store_url, store_password_file, elsewhere, force, lists)

        async def done() -> Plan:
            plan = await planned(archive, wanted)
            if not dry_run:
                await carry_out(plan, wanted, progress(quiet=as_json))
            return plan

        plan = asyncio.run(done())
        if as_json:
            print_json({"dry_run": dry_run, **plan.as_json(), "notes": _notes(plan)})
        else:
            _tell(plan, dry_run=dry_run)
    return 0


def _show(archive: Archive, *, as_json: bool) -> None:
    from muster.cli.backup import tell_left

    said, sums = archive.manifest, archive.sums
    if as_json:
        print_json({**said.model_dump(by_alias=True, mode="json"), "rows": sums.rows, "whole": True})
        return
    click.echo(
        f"{archive.path} is whole: cluster {one_line(said.cluster)} at {said.moment}, made by Muster "
        f"{one_line(said.muster)} on {one_line(said.host)} of {one_line(said.store)}, schema {said.schema_}."
    )
    for file in said.files:
        click.echo(f"  {sums.entries[file.name].size:>9} bytes, {file.mode:04o} {one_line(str(file.path))}")
    for name, rows in sums.rows.items():
        click.echo(f"  {rows:>9} rows of {one_line(name)}")
    tell_left([(one.what, one.why) for one in said.left])


def _tell(plan: Plan, *, dry_run: bool) -> None:
    from muster.cli.backup import tell_left

    said = plan.archive.manifest
    rows = sum(plan.archive.sums.rows.values())
    verb = "Would restore" if dry_run else "Restored"
    click.echo(f"{verb} cluster {one_line(said.cluster)} as it was at {said.moment} ({_ago(plan.elapsed_s)} before).")
    for file in plan.files:
        if dry_run or file.state != "same":
            click.echo(f"  {_what(file, dry_run=dry_run)}")
    held = (
        "holds all rows of this backup already" if plan.is_done else f"{'would get' if dry_run else 'got'} {rows} rows"
    )
    click.echo(f"  {plan.store} {held}")
    tell_left([(one.what, one.why) for one in said.left])
    for note in _notes(plan):
        click.echo(note)


def _what(file: Placed, *, dry_run: bool) -> str:
    at = f"{file.mode:04o} {one_line(str(file.path))}"
    if file.is_written and not dry_run:
        return f"{at}: written"
    return f"{at}: {_SAID[file.state]}"


def _notes(plan: Plan) -> list[str]:
    """Return what an administrator has to know now."""
    from muster.app.backup.restored import unlike

    found = []
    since = f"Since the backup, for {_ago(plan.elapsed_s)},"
    if plan.archive.sums.rows.get("authorities"):
        found.append(
            f"{since} the Puppet CA may have signed certificates that this ledger does not know, and they stay valid until "
            "they end; what was revoked since then counts as good again, but for what --crl had. Compare agents' serials "
            "with muster ca list (docs/admin/backup.md, What is lost), and revoke again what was revoked."
        )
    if names := plan.archive.sums.rows.get("autosign_hosts"):
        found.append(
            f"{names} names stand on Foreman's autosign list as they did then; look through them in Foreman, for one "
            "that was taken off since is on it again."
        )
    found.append("Drains and maintenance are as they were then: muster status shows them.")
    for file, owner in unlike(plan):
        whose = f"belonged to {one_line(file.owner)} and belongs to {one_line(owner)} here"
        found.append(f"{one_line(str(file.path))} {whose}: chown it where its reader is another account.")
    return found


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
