"""A backup, restored: decided from it, this host and an empty store; then the rows, keys and files, the cluster file.

The rows' transaction ends when keys and files are written: a row that is none of its table leaves no file behind, and of two
restores at once one waits for the other before it writes any. The cluster file comes last, so that no member can be started
before the store is whole. Whoever is killed in between runs the same command again, which finds what is done already and
does what is left.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from sqlalchemy.exc import DBAPIError, StatementError

from muster.app import settings
from muster.app.backup import tables
from muster.app.backup.decide import Here, Placed, decided, text_of
from muster.app.backup.files import CLUSTER_FILE, ELSEWHERE, LARGEST_BYTES, OF_BUNDLE, refuse_unless_file
from muster.app.backup.made import LIMIT_S, Progress
from muster.app.backup.opened import Archive
from muster.authority.moves.lists import own_list, taken
from muster.authority.x509.profile import Issuer
from muster.cluster.edited import with_store
from muster.cluster.file import ClusterFile
from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Misconfigured, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically
from muster.kernel.secrets import Secret
from muster.pki import bundles
from muster.pki import pem as pems
from muster.pki.authority import link_passphrase
from muster.pki.bundles import Bundle, Kind
from muster.store import copies, schema
from muster.store.engine import Store, Unit
from muster.store.engine import opened as store_opened
from muster.store.place import Place

# Clocks of two hosts differ by seconds; an hour is a wrong clock, and members compare with the rows' times.
_CLOCK_S = 300.0

RESTORED = "restored from a backup"
"""What the Puppet CA's audit says of it."""


@dataclass(frozen=True)
class Plan:
    """What restoring a backup would do here.

    Attributes:
        is_done: the store was filled from this very backup before.
    """

    archive: Archive
    cluster: ClusterFile
    files: tuple[Placed, ...]
    store: str
    is_done: bool
    elapsed_s: float
    lists: tuple[x509.CertificateRevocationList, ...] = ()

    @property
    def in_the_way(self) -> tuple[Placed, ...]:
        return tuple(f for f in self.files if f.state == "different")

    def as_json(self) -> dict[str, Any]:
        return {
            "backup": self.archive.manifest.id,
            "taken_at": self.archive.manifest.taken_at,
            "cluster": self.archive.manifest.cluster,
            "store": self.store,
            "store_is_done": self.is_done,
            "files": [{"name": f.name, "path": str(f.path), "mode": f.mode, "state": f.state} for f in self.files],
            "rows": self.archive.sums.rows,
            "left": [one.model_dump() for one in self.archive.manifest.left],
            "elapsed_s": self.elapsed_s,
        }


@dataclass(frozen=True)
class Wanted:
    """Where a backup is to be restored.

    Attributes:
        store_url: of another store than the cluster file names; ``password_file`` holds the password of that, where it is
            not the file that the cluster file names.
        elsewhere: also what lay outside the directories of the cluster file and the PKI.
        force: replace files that are here with another content.
        lists: revocation lists newer than the backup, as members and agents still have them.
    """

    cluster_path: Path
    pki: Path
    store_url: str | None = None
    password_file: Path | None = None
    elsewhere: bool = False
    force: bool = False
    lists: tuple[Path, ...] = ()


async def planned(archive: Archive, wanted: Wanted) -> Plan:
    """Return what restoring would do; changes nothing.

    Raises:
        InvalidSettings: this Muster cannot use the cluster file.
        Misconfigured: a newer Muster made it, or it has files that no backup has.
        Conflict: the store holds something else, or its clock is wrong.
        Unavailable: the store does not answer.
    """
    manifest = archive.manifest
    if schema.is_newer(manifest.schema_):
        raise Misconfigured(
            f"{archive.path} has schema {manifest.schema_}, made by Muster {manifest.muster}; this one knows {schema.HEAD}. "
            f"Restore it with {manifest.muster} or a newer one"
        )
    where = f"the cluster file in {archive.path}"
    contents = dict(archive.files)
    made_of = cluster = settings.parsed(contents[CLUSTER_FILE], where)
    given: set[Path | None] = set()
    if wanted.store_url is not None:
        text = contents[CLUSTER_FILE].decode("utf-8", "surrogateescape")
        password = None if wanted.password_file is None else str(wanted.password_file.absolute())
        contents[CLUSTER_FILE] = with_store(text, wanted.store_url, password).encode("utf-8", "surrogateescape")
        cluster = settings.parsed(contents[CLUSTER_FILE], where)
        # The password of another database is this host's to know: the old one would not open it.
        before = made_of.store.password_file
        if password is not None or (before is not None and _content(before) is not None):
            given.add(before)
    here = Here(
        wanted.cluster_path, wanted.pki, _content, wanted.elsewhere, frozenset(p for p in given if p is not None)
    )
    files = decided(manifest.files, contents, made_of, here)
    lists = _lists(archive, wanted.lists)
    place = Place.parsed(cluster.store.url)
    if place.file is not None and not place.file.exists():
        # It would be made by looking.
        if not place.file.parent.is_dir():
            raise Unavailable(f"There is no directory {place.file.parent} for the store; make it; nothing was changed")
        age_s = _age(time.time(), archive)
        return Plan(archive, cluster, tuple(files), place.shown, is_done=False, elapsed_s=age_s, lists=lists)
    async with _store(cluster, files) as store, store.whole(writing=False, limit_s=LIMIT_S) as uow:
        is_done = await _is_done(uow, store, archive)
        return Plan(archive, cluster, tuple(files), store.shown, is_done, _age(await uow.now(), archive), lists)


async def carry_out(plan: Plan, wanted: Wanted, progress: Progress = lambda *_: None) -> None:
    """Restore: the rows in one transaction that ends when the files are written, then the cluster file.

    Raises:
        Conflict: a file with another content is here, or the store holds something by now; nothing was changed.
        Misconfigured: a row is none of its table; nothing was changed.
        Unavailable: the disk or the store refused; what is done stays, and the same again does what is left.
    """
    if plan.in_the_way and not wanted.force:
        named = ", ".join(str(f.replaced) for f in plan.in_the_way)
        raise Conflict(
            f"These files are here with another content: {named}; --force replaces them; nothing was changed"
        )
    written = [f for f in plan.files if f.is_written]

    def write_files() -> None:
        _write(written, wanted.pki, lambda f: f.name != CLUSTER_FILE)

    if plan.is_done:
        write_files()
    else:
        async with _store(plan.cluster, plan.files) as store:
            await _filled(store, plan, progress, write_files)
    _write(written, wanted.pki, lambda f: f.name == CLUSTER_FILE)


def _lists(archive: Archive, files: tuple[Path, ...]) -> tuple[x509.CertificateRevocationList, ...]:
    """Return lists of the backup's Puppet CA, signed by it.

    Raises:
        Misconfigured: one is none.
    """
    if not files:
        return ()
    with contextlib.closing(archive.parts()) as parts:
        chain = next((r["chain_pem"] for table, rows in parts if table == "authorities" for r in rows), None)
    if chain is None:
        raise Misconfigured(f"{archive.path} has no Puppet CA, so no list is one of it")
    issuer = Issuer.read(chain)
    return tuple(own_list(file, issuer) for file in files)


def _content(path: Path) -> bytes | None:
    if not os.path.lexists(path):
        return None
    refuse_unless_file(path, "file")
    return read_bounded(path, what="file", limit_bytes=LARGEST_BYTES)


def _store(cluster: ClusterFile, files: tuple[Placed, ...] | list[Placed]) -> Any:
    """Open the store that the cluster file names; its password may not lie where it belongs yet."""
    path = cluster.store.password_file
    placed = next((f for f in files if f.path == path and f.state != "given"), None)
    if path is None or placed is None:
        password = settings.store_password(cluster)
    else:
        lines = placed.content.decode("utf-8", "replace").splitlines()
        password = Secret(lines[0].strip()) if lines else None
    return store_opened(
        cluster.store.url,
        password=password,
        connect_timeout_s=cluster.store.connect_timeout_s,
        statement_timeout_s=cluster.store.statement_timeout_s,
        migrate=False,
    )


async def _is_done(uow: Unit, store: Store, archive: Archive) -> bool:
    """Return whether the store was filled from this backup; an empty one was not.

    Raises:
        Conflict: it holds something else, or a newer Muster's schema.
    """
    revision = await schema.revision_in(uow, store.dialect)
    if revision is None:
        return False
    if schema.is_newer(revision):
        raise Conflict(f"The store ({store.shown}) has schema {revision}, made by a newer Muster; name an empty one")
    there = await copies.stored(uow)
    async for some in copies.rows(uow, there["documents"]):
        for row in some:
            if row["name"] == tables.MARK and row["content"].get("backup") == archive.manifest.id:
                return True
    if full := {name: s.rows for name, s in there.items() if s.rows}:
        holds = ", ".join(f"{name} {rows}" for name, rows in full.items())
        raise Conflict(
            f"The store ({store.shown}) holds something already ({holds}), and a backup is restored into an empty one: "
            "name another with --store-url, or stop the members and make it anew; nothing was changed"
        )
    return False


def _age(now: float, archive: Archive) -> float:
    """Return how old the backup is by the store's clock.

    Raises:
        Conflict: by that clock it was made in the future.
    """
    elapsed_s = now - archive.manifest.taken_at
    if elapsed_s < -_CLOCK_S:
        raise Conflict(
            f"By the store's clock {archive.path} will be made in {-elapsed_s:.0f} s: set the clock of the database's host "
            "first; nothing was changed"
        )
    return max(0.0, elapsed_s)


async def _filled(store: Store, plan: Plan, progress: Progress, write_files: Callable[[], None]) -> None:
    """Write all rows, at the schema they had, bring that to this Muster's, and write the files, in one transaction."""
    archive = plan.archive
    manifest, expected = archive.manifest, archive.sums.rows
    async with store.whole(writing=True, limit_s=LIMIT_S) as uow:
        # Or what somebody writes between a look and what follows from it would be taken for nothing.
        await uow.connection.run_sync(schema.hold)
        if await _is_done(uow, store, archive):
            write_files()
            return
        if await schema.revision_in(uow, store.dialect) not in (None, manifest.schema_):
            # Empty, as was just seen: of rows of an older schema only its own revision knows what becomes of them.
            await uow.connection.run_sync(schema.drop)
        await uow.connection.run_sync(schema.upgrade, timeout_s=LIMIT_S, to=manifest.schema_)
        now = await uow.now()
        elapsed_s = _age(now, archive)
        done = dict.fromkeys(manifest.tables, 0)
        for table, rows in archive.parts():
            if table not in tables.KEPT:
                raise Misconfigured(f"{archive.path} holds table {table}, which no backup has")
            with _understood(archive, table):
                made = [
                    tables.renewed(table, r, now=now, elapsed_s=elapsed_s) for r in rows if tables.is_kept(table, r)
                ]
                await copies.write(uow, table, made)
            done[table] += len(rows)
            if expected.get(table, 0) > copies.PAGE:
                progress(f"{table} restored", done[table], expected[table])
        if done != dict.fromkeys(manifest.tables, 0) | expected:
            raise Misconfigured(
                f"{archive.path} is not as it was made: a table has another number of rows; none was written"
            )
        await copies.write(uow, "documents", [_mark(archive, now)])
        await copies.number_on(uow)
        if done.get("authorities"):
            # Behind the last that was known: what is missing in the audit is missing here.
            here, by = os.uname().nodename, f"backup {manifest.id}"
            await copies.write(uow, "audit", [{"at": now, "event": RESTORED, "actor": by, "member": here}])
            await taken(uow, plan.lists, member=here, actor="a list that was found")
        await uow.connection.run_sync(schema.upgrade, timeout_s=LIMIT_S)
        write_files()
        failpoints.before_commit("restored")
    failpoints.after_commit("restored")


@contextlib.contextmanager
def _understood(archive: Archive, table: str) -> Iterator[None]:
    """Have a row that lacks a column, or holds what no column can, refused in words; the store's own stay the store's."""
    try:
        yield
    except DBAPIError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, StatementError) as e:
        raise Misconfigured(
            f"{archive.path} holds a row of {table} that is none of that table: {type(e).__name__}; nothing was changed"
        ) from e


def _mark(archive: Archive, now: float) -> copies.Row:
    content = {"backup": archive.manifest.id, "taken_at": archive.manifest.taken_at, "host": archive.manifest.host}
    return {"name": tables.MARK, "version": 1, "content": content, "changed_at": now, "changed_by": "muster restore"}


def _write(files: list[Placed], pki: Path, which: Callable[[Placed], bool]) -> None:
    """Write files; each bundle in one step, for a key and its certificate belong together."""
    of_bundles: dict[Path, dict[str, Placed]] = {}
    some = [f for f in files if which(f)]
    for file in some:
        if file.name.startswith("pki/") and OF_BUNDLE.fullmatch(file.name.removeprefix("pki/")):
            of_bundles.setdefault(file.path.parent, {})[file.path.name] = file
    for placed in of_bundles.values():
        _write_bundle(placed, pki)
    for file in some:
        if file.path.parent not in of_bundles or file.name.startswith(f"{ELSEWHERE}/"):
            _write_file(file)


def _write_file(file: Placed) -> None:
    private = file.name.startswith("pki/puppet-ca/")
    make_directory(file.path.parent, mode=0o700 if private else 0o755)
    failpoints.before_commit("restored-file")
    if file.name.startswith("pki/") and file.path.suffix == ".passphrase":
        # A link leads to it, which is what remembers it when the CA is replaced.
        text = text_of(file.path)
        write_atomically(text, file.content, mode=0o600)
        link_passphrase(file.path.parent, text) if file.path.name == "ca.passphrase" else _linked(file.path, text)
    else:
        write_atomically(file.path, file.content, mode=file.mode)
    failpoints.after_commit("restored-file")


def _linked(link: Path, to: Path) -> None:
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(to)
    except OSError as e:
        raise Unavailable(f"Pointing {link} at {to} failed: {e.strerror or e}") from e


def _write_bundle(files: Mapping[str, Placed], pki: Path) -> None:
    one = next(iter(files.values()))
    found = OF_BUNDLE.fullmatch(one.name.removeprefix("pki/"))
    kind: Kind = "balancer" if found is None or found[1] is None else "member" if found[1] == "member" else "client"
    name = found[2] if found is not None and found[2] else "balancer"
    first = "check.pem" if kind == "balancer" else "cert.pem"
    content = {n: f.content.decode("utf-8", "replace") for n, f in files.items()}
    # Of those that are here already in part, the rest is.
    content = {n: (one.path.parent / n).read_text() for n in _names(kind) if (one.path.parent / n).exists()} | content
    if absent := [n for n in _names(kind) if n not in content]:
        raise Misconfigured(f"The backup's bundle of {name} lacks {absent[0]}")
    certificate: x509.Certificate = pems.certificates(content[first].encode(), one.name)[0]
    key = Secret("" if kind == "balancer" else content["key.pem"])
    make_directory(pki)
    bundles.write(Bundle(kind, name, certificate.serial_number, content[first], key, content["ca.pem"]), pki)


def _names(kind: Kind) -> tuple[str, ...]:
    return ("check.pem", "ca.pem") if kind == "balancer" else ("cert.pem", "key.pem", "ca.pem")


def unlike(plan: Plan) -> list[tuple[Placed, str]]:
    """Return the files that belong to another account here than where the backup was made, and to whom."""
    import pwd

    found = []
    for file in plan.files:
        try:
            owner = pwd.getpwuid(file.path.stat().st_uid).pw_name
        except (KeyError, OSError):
            continue
        if owner != file.owner:
            found.append((file, owner))
    return found
