"""``muster netboot import``: boot loaders and the like, from a directory of this host, for all members."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import NOT_DONE
from muster.cli.netboot.opened import opened
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json

if TYPE_CHECKING:
    from muster.netboot.contract import Link, Put

# Of one change: what waits for members is bounded, and so is what one unit of the store carries.
_MOST_FILES, _MOST_BYTES = 200, 32 << 20


@click.command("import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--below", metavar="PATH", default="", help="Where in the tree; by default at its root.")
@cluster_option
@dry_run_option
@json_option
def import_(directory: Path, below: str, cluster_path: Path, dry_run: bool, as_json: bool) -> int:
    """Have what stands below a directory of this host stand in the cluster's tree of boot files.

    Files replace what stands at their paths; what else there is stays. Links are taken as links when they lead to something
    below the directory. Files above 16 MiB are not taken: members fetch those from where the installation medium is.
    """
    found = asyncio.run(_imported(directory, below.strip("/"), cluster_path, dry=dry_run))
    if as_json:
        print_json(found)
    else:
        for one in found["skipped"]:
            click.echo(one_line(f"{one['file']} is not taken: {one['why']}"), err=True)
        click.echo(one_line(found["sentence"]))
    return NOT_DONE if found["skipped"] else 0


async def _imported(directory: Path, below: str, cluster_path: Path, *, dry: bool) -> dict[str, Any]:
    from muster.netboot.confirmed import confirmed

    taken: list[str] = []
    skipped: list[dict[str, str]] = []
    out: set[str] = set()
    async with opened(cluster_path, changes=not dry) as (cluster, ledger):
        for changes in _batches(directory, below, skipped):
            if not dry:
                version = await ledger.change(changes)
                out.update(await confirmed(ledger, version, within_s=cluster.netboot.confirm_s))
            taken += [str(c.path) for c in changes]
    done = f"{'Would take' if dry else 'Took'} {len(taken)} file{'s' if len(taken) != 1 else ''} from {directory}"
    held = f"; {', '.join(sorted(out))} did not confirm it and takes no clients until it has it" if out else ""
    left = f"; {len(skipped)} were not taken" if skipped else ""
    return {
        "dry_run": dry,
        "taken": taken,
        "skipped": skipped,
        "taken_out": sorted(out),
        "sentence": f"{done}{left}{held}.",
    }


def _batches(directory: Path, below: str, skipped: list[dict[str, str]]) -> Iterator[Sequence[Put | Link]]:
    """Yield what is to be changed, a bounded part at a time; note what is not taken, and why."""
    from muster.kernel.errors import Rejected
    from muster.netboot.contract import LIMIT_WRITTEN_BYTES, BootPath, Link, Put

    batch: list[Put | Link] = []
    length = 0
    for file in sorted(_files(directory, skipped)):
        relative = file.relative_to(directory).as_posix()
        try:
            path = BootPath.parse(f"{below}/{relative}" if below else relative)
            if file.is_symlink():
                to = (file.parent / file.readlink()).resolve()
                if not to.is_relative_to(directory.resolve()):
                    raise Rejected(f"it leads to {to}, which is not below {directory}")
                change: Put | Link = Link(path, os.path.relpath(to, file.parent.resolve()))
                size = 0
            else:
                # What it is was looked at; that it is still no pipe, the open file says.
                with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as f:
                    if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                        raise Rejected("it is no plain file")
                    content = f.read(LIMIT_WRITTEN_BYTES + 1)
                if len(content) > LIMIT_WRITTEN_BYTES:
                    raise Rejected("it is larger than 16 MiB")
                change, size = Put(path, content), len(content)
        except (Rejected, OSError) as e:
            why = e.strerror or str(e) if isinstance(e, OSError) else str(e)
            skipped.append({"file": relative, "why": why})
            continue
        if batch and (len(batch) >= _MOST_FILES or length + size > _MOST_BYTES):
            yield batch
            batch, length = [], 0
        batch.append(change)
        length += size
    if batch:
        yield batch


def _files(directory: Path, skipped: list[dict[str, str]]) -> Iterator[Path]:
    def refused(e: OSError) -> None:
        skipped.append({"file": str(e.filename), "why": e.strerror or str(e)})

    for above, directories, names in os.walk(directory, onerror=refused):
        for name in [*names, *directories]:
            one = Path(above) / name
            status = one.lstat()
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield one
