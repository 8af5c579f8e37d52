"""A backup, written: the manifest, files, the store's tables from one reading, the sums."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from muster.app.backup import sealed, tables
from muster.app.backup.entries import Packed
from muster.app.backup.files import Files, Left
from muster.app.backup.manifest import FORMAT, MANIFEST, SUMS, Manifest, read, text
from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Misconfigured, Unavailable
from muster.kernel.files import give_to_owner, sync_directory
from muster.store import copies, schema
from muster.store.copies import Stored
from muster.store.engine import Store, Unit
from muster.version import VERSION

# However slowly it is written to, and however large the store is.
LIMIT_S = 6 * 3600.0
TABLE_ENTRY = re.compile(r"store/([a-z_]{1,63})/([0-9]{6})\.jsonl")

_TOLD_EVERY = 10 * copies.PAGE

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """What a backup is made from: ``host`` is who makes it."""

    files: Files
    cluster_path: Path
    pki: Path
    host: str


@dataclass(frozen=True)
class Made:
    """What a backup has, or would have.

    Attributes:
        size: of the encrypted file; 0: it was not written.
        rows: by table.
    """

    manifest: Manifest
    rows: dict[str, int]
    size: int = 0

    def as_json(self) -> dict[str, Any]:
        said = self.manifest.model_dump(by_alias=True, mode="json")
        return {**said, "rows": self.rows, "size": self.size}


async def looked(store: Store, wanted: Wanted) -> Made:
    """Return what a backup would have.

    Raises:
        Misconfigured: there is no schema to back up, or a newer Muster's.
        Unavailable: the store did not answer.
    """
    _refuse_absent(store)
    async with store.whole(writing=False, limit_s=LIMIT_S) as uow:
        manifest, found = await _manifest(uow, store, wanted)
        return Made(manifest, {n: s.rows for n, s in found.items()})


async def write(
    store: Store, wanted: Wanted, out: BinaryIO, to: Sequence[Any], progress: Progress = lambda *_: None
) -> Made:
    """Write a backup, encrypted for these; when an exception leaves this, what was written is cut off.

    The store is read in one transaction: members go on writing, and nothing of it is in the backup.

    Raises:
        Misconfigured: there is no schema to back up, or a newer Muster's.
        Unavailable: the store did not answer.
        OSError: ``out`` refused.
    """
    counted = _Counted(out)
    _refuse_absent(store)
    async with store.whole(writing=False, limit_s=LIMIT_S) as uow:
        manifest, found = await _manifest(uow, store, wanted)
        with sealed.sealed(cast("BinaryIO", counted), to) as plain:
            packed = Packed(plain, at=int(manifest.taken_at))
            packed.add(MANIFEST, text(manifest.model_dump(by_alias=True, mode="json")))
            for file in wanted.files.found:
                packed.add(file.name, file.content)
            rows = {name: await _packed_table(uow, stored, packed, progress) for name, stored in found.items()}
            sums = {name: asdict(one) for name, one in packed.sums.items()}
            packed.add(SUMS, text({"format": FORMAT, "entries": sums, "rows": rows}))
            packed.end()
    return Made(manifest, rows, counted.size)


@contextlib.contextmanager
def to_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Yield what becomes the file when the block ends, mode 0600; when an exception leaves it there is nothing.

    Raises:
        Conflict: there is a file, and nobody forces it away.
        Unavailable: the disk refused.
    """
    refuse_to_replace(path, force=force)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as out:
                os.fchmod(fd, 0o600)
                yield out
                out.flush()
                os.fsync(fd)
            give_to_owner(beside, like=path)
            failpoints.before_commit("backup")
            if force:
                beside.replace(path)
            else:
                # Not renamed: that would replace what came meanwhile.
                os.link(beside, path)
                beside.unlink()
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        sync_directory(path.parent)
    except FileExistsError as e:
        raise Conflict(f"{path} is there by now and stays as it is") from e
    except OSError as e:
        raise Unavailable(f"Writing {path} failed: {e.strerror or e}; nothing is left of it") from e
    failpoints.after_commit("backup")


def refuse_to_replace(path: Path, *, force: bool) -> None:
    """Refuse where a file is, unless that is to be replaced.

    Raises:
        Conflict: there is one.
    """
    if not path.name or (path.exists() and not path.is_file()):
        # A device would be replaced by a file of its name.
        raise Conflict(f"{path} is no file; name one (- is standard output)")
    if (path.exists() or path.is_symlink()) and not force:
        raise Conflict(f"{path} is there already and stays as it is (--force replaces it)")


def _refuse_absent(store: Store) -> None:
    # SQLite would make the file.
    if store.is_absent:
        raise Misconfigured(f"The store ({store.shown}) has no schema yet; there is nothing to back up")


async def _manifest(uow: Unit, store: Store, wanted: Wanted) -> tuple[Manifest, dict[str, Stored]]:
    revision = await schema.revision_in(uow, store.dialect)
    if revision is None:
        raise Misconfigured(f"The store ({store.shown}) has no schema yet; there is nothing to back up")
    if schema.is_newer(revision):
        raise Misconfigured(
            f"The store ({store.shown}) has schema {revision}, made by a newer Muster, of which this one ({VERSION}) knows "
            f"{schema.HEAD}: it would leave out what it does not know; make the backup with the newer one"
        )
    there = await copies.stored(uow)
    found = {name: there[name] for name in tables.KEPT if name in there}
    left = [*wanted.files.left, *(Left(f"table {n}", why) for n, why in tables.LEFT.items() if n in there)]
    cluster = wanted.files.cluster
    said = {
        "format": FORMAT,
        "id": secrets.token_hex(16),
        "muster": VERSION,
        "schema": revision,
        "taken_at": await uow.now(),
        "cluster": cluster.cluster,
        "generation": cluster.generation,
        "host": wanted.host,
        "store": store.shown,
        "cluster_file": str(wanted.cluster_path.absolute()),
        "pki": str(wanted.pki.absolute()),
        "files": [
            {"name": f.name, "path": str(f.path.absolute()), "mode": f.mode, "owner": f.owner}
            for f in wanted.files.found
        ],
        "tables": list(found),
        "left": [asdict(one) for one in left],
    }
    return read(Manifest, text(said), MANIFEST, "the backup"), found


async def _packed_table(uow: Unit, of: Stored, packed: Packed, progress: Progress) -> int:
    """Write a table in parts, for an entry's size stands in front of it; return how many rows it has."""
    name = of.table.name
    done, number, part, size = 0, 0, list[bytes](), 0
    looked_at = 0
    async for some in copies.rows(uow, of):
        for row in some:
            if tables.is_kept(name, row):
                line = copies.line(row)
                if part and size + len(line) > copies.PART_BYTES:
                    number += 1
                    packed.add(part_name(name, number), b"".join(part))
                    part, size = [], 0
                part.append(line)
                size += len(line)
                done += 1
        looked_at += len(some)
        if of.rows > copies.PAGE and (looked_at % _TOLD_EVERY == 0 or looked_at >= of.rows):
            progress(f"{name} written", min(looked_at, of.rows), of.rows)
    if part:
        packed.add(part_name(name, number + 1), b"".join(part))
    return done


def part_name(table: str, number: int) -> str:
    """Return the name of a part of a table."""
    return f"store/{table}/{number:06d}.jsonl"


class _Counted:
    """Counts what is written."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.size = 0

    def write(self, piece: bytes) -> int:
        self._out.write(piece)
        self.size += len(piece)
        return len(piece)
