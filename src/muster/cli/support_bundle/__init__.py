"""``muster support-bundle``: what a maintainer needs to see, without secrets, listed before it is written."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.options import (
    cluster_option,
    json_option,
    one_line,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)

if TYPE_CHECKING:
    from muster.cli.support_bundle.collecting import Part


@click.command()
@cluster_option
@pki_option
@run_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to. [default: muster-support-TIME.tar.gz in this directory]",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--doctor", is_flag=True, help="Also what muster doctor finds, which takes longer.")
@click.option(
    "--anonymous",
    is_flag=True,
    help="Replace hosts, domains, addresses and MAC addresses by stand-ins, the same in all files.",
)
@click.option(
    "--records",
    type=click.IntRange(0, 100_000),
    default=2000,
    show_default=True,
    help="How many log records at most, of members and of the journal.",
)
@click.option("--yes", is_flag=True, help="Do not ask before it is written.")
@click.option("--list", "--dry-run", "only_list", is_flag=True, help="Collect and list everything, and write nothing.")
@json_option
def support_bundle(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    output: Path | None,
    force: bool,
    doctor: bool,
    anonymous: bool,
    records: int,
    yes: bool,
    only_list: bool,
    as_json: bool,
) -> None:
    """Write what a maintainer needs to see into one archive, without secrets; list it first, and ask.

    Nothing is sent anywhere. Passwords, tokens, keys and cookies are taken out of every file, and files that hold secrets
    are never read; of the store there are numbers of rows, and no rows. What cannot be had, because the store or a member
    is away or this account may not, stands in contents.json with the reason.
    """
    from datetime import UTC

    from muster.cli.support_bundle.archive import archived
    from muster.cli.support_bundle.collecting import collected
    from muster.cli.support_bundle.pieces import Wanted
    from muster.kernel.clock import SystemClock

    at = SystemClock().now().astimezone(UTC).replace(microsecond=0)
    file = output if output is not None else Path(f"muster-support-{at:%Y%m%dT%H%M%SZ}.tar.gz")
    if not only_list:
        _refuse_present(file, force=force)
    wanted = Wanted(cluster_path, pki_directory(cluster_path, pki_path), run_path, records, doctor)
    parts = asyncio.run(collected(wanted, anonymous=anonymous))
    content = archived(parts, at)
    if not as_json:
        _show(parts)
        if not only_list and not yes and _asks():
            click.confirm(f"Write these {len(content)} bytes into {one_line(str(file))}?", abort=True)
    if not only_list:
        _write(file, content, force=force)
    if as_json:
        listed = [p.as_json() for p in parts]
        print_json({"file": str(file), "written": not only_list, "bytes": len(content), "files": listed})
    elif only_list:
        click.echo(f"Nothing was written; the archive would have {len(content)} bytes.")
    else:
        name = one_line(str(file))
        click.echo(f"Wrote {name}: {len(content)} bytes. Look at it before you send it: tar -xzf {name}")


# What this account may not read is named in the bundle with the reason, and the rest is there.
_ALSO_UNREADABLE = {
    "cluster_path": click.Path(dir_okay=False, readable=False, path_type=Path),
    "pki_path": click.Path(file_okay=False, readable=False, path_type=Path),
    "run_path": click.Path(file_okay=False, readable=False, path_type=Path),
}
for _option in support_bundle.params:
    _option.type = _ALSO_UNREADABLE.get(_option.name or "", _option.type)


def _asks() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _show(parts: list[Part]) -> None:
    for part in parts:
        if part.content is None:
            click.echo(one_line(f"{'–':>9}  {part.name}: {part.failed}"))
            continue
        hidden = f"; {part.redactions} secret{'s' if part.redactions != 1 else ''} hidden" if part.redactions else ""
        replaced = f"; {part.replaced} names and addresses replaced" if part.replaced else ""
        cut = f"; {part.cut_bytes} bytes left out" if part.cut_bytes else ""
        click.echo(one_line(f"{len(part.content):>9}  {part.name}{hidden}{replaced}{cut}"))


def _refuse_present(file: Path, *, force: bool) -> None:
    from muster.kernel.errors import Conflict

    if file.exists() and not force:
        raise Conflict(f"{file} is there already and stays as it is; --force replaces it, or name another one")


def _write(file: Path, content: bytes, *, force: bool) -> None:
    from muster.kernel.errors import Conflict
    from muster.kernel.files import write_atomically, write_new

    if force:
        write_atomically(file, content, mode=0o600)
    elif not write_new(file, content, mode=0o600):
        raise Conflict(f"{file} came to be meanwhile and stays as it is; --force replaces it, or name another one")
