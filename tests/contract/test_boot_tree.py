"""What the tree of boot files promises (``netboot/contract.py``): members with a directory each, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from muster.app.duties.bootfiles import BootFilesGiven
from muster.cluster.roster import Report, Roster
from muster.cluster.sections import TFTP
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.happenings import Happening
from muster.netboot.contract import HIDDEN, BootPath, Change, Entry, Link, Put, Remove, RemoveBelow
from muster.netboot.disk import Disk, digest_of, is_near
from muster.netboot.ledger import Fetched, Ledger
from muster.netboot.tftp.metrics import TFTPMetrics
from muster.netboot.tree import Tree
from muster.store.engine import Store
from muster.store.writing import Change as Statement
from tests.servers.tftp_client import fetched, rrq

pytestmark = pytest.mark.anyio

NAMES = ("proxy01.example.com", "proxy02.example.com", "proxy03.example.com")
DEFAULT = BootPath.parse("pxelinux.cfg/default")
HOST = BootPath.parse("pxelinux.cfg/01-52-54-00-aa-00-01")
KERNEL = BootPath.parse("boot/debian-12-vmlinuz")


@dataclass
class Cluster:
    """Members, each of which follows the tree as long as it is in ``following``."""

    store: Store
    directory: Path
    trees: dict[str, Tree] = field(default_factory=dict)
    following: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    origin: dict[str, bytes] = field(default_factory=dict)
    confirm_s: float = 1.0
    sees: bool = False

    def add(self, name: str) -> Tree:
        disk = Disk(self.directory / name)

        async def bring(entry: Entry) -> Path:
            if entry.digest not in self.origin:
                raise Unavailable("no other member has it")
            file = disk.beside() / "brought"
            file.write_bytes(self.origin[entry.digest])
            return file

        async def sees() -> bool:
            return self.sees

        ledger = Ledger(self.store)
        tree = Tree(ledger, disk, name, confirm_s=self.confirm_s, bring=bring, seen_by_others=sees)
        self.trees[name] = tree
        return tree

    async def report(self) -> None:
        """Have every member say that it is there, and whether it takes clients."""
        roster = Roster(self.store)
        for number, name in enumerate(self.trees, 1):
            tree = self.trees[name]
            state = "ready" if name in self.ready and not tree.trouble else "unready"
            report = Report(
                name,
                number,
                "1",
                "0012",
                "host",
                1,
                "ready",
                "",
                {"tftp": "running"},
                {"smartproxy": {"state": state}},
                {},
            )
            await roster.beat(report, first=True)

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                group.create_task(self.follow_one(name))
            while True:
                await self.report()
                await asyncio.sleep(0.05)

    async def follow_one(self, name: str) -> None:
        while True:
            if name in self.following:
                await self.trees[name].beat()
            await asyncio.sleep(0.05)

    def texts(self, name: str) -> dict[str, bytes | str]:
        """Return what stands in a member's directory: contents, and where links lead."""
        root = self.directory / name
        found: dict[str, bytes | str] = {}
        for one in sorted(root.rglob("*")):
            path = str(one.relative_to(root))
            if path.partition("/")[0] == HIDDEN or (one.is_dir() and not one.is_symlink()):
                continue
            found[path] = str(one.readlink()) if one.is_symlink() else one.read_bytes()
        return found

    @property
    def first(self) -> Tree:
        return self.trees[NAMES[0]]


@contextlib.asynccontextmanager
async def running(store: Store, directory: Path, *, confirm_s: float = 1.0) -> AsyncIterator[Cluster]:
    cluster = Cluster(store, directory, confirm_s=confirm_s)
    for name in NAMES:
        cluster.add(name)
        await cluster.trees[name].beat()
    cluster.following = set(NAMES)
    cluster.ready = set(NAMES)
    await cluster.report()
    task = asyncio.create_task(cluster.follow())
    try:
        yield cluster
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for tree in cluster.trees.values():
            await tree.close()


@pytest.fixture
async def cluster(store: Store, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(store, tmp_path) as it:
        yield it


async def until(question: object, what: str, patience_s: float = 10) -> None:
    limit = time.monotonic() + patience_s
    while not question():  # type: ignore[operator]
        assert time.monotonic() < limit, f"never: {what}"
        await asyncio.sleep(0.02)


async def test_what_was_acknowledged_stands_on_every_member(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host")])
    for name in NAMES:
        assert cluster.texts(name) == {DEFAULT.text: b"one", HOST.text: b"host"}
        assert await cluster.trees[name].read(HOST) == b"host"
    await cluster.trees[NAMES[2]].change([Put(DEFAULT, b"two"), Remove(HOST)])
    for name in NAMES:
        assert cluster.texts(name) == {DEFAULT.text: b"two"}
        with pytest.raises(NotFound):
            await cluster.trees[name].read(HOST)


async def test_the_same_again_is_no_new_version(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one"), Link(HOST, "default")])
    before = cluster.first.version
    await cluster.first.change([Put(DEFAULT, b"one"), Link(HOST, "default"), Remove(KERNEL)])
    assert cluster.first.version == before


async def test_a_host_s_directory_of_links_goes_as_a_whole(cluster: Cluster) -> None:
    grub = BootPath.parse("host-config/52-54-00-aa-00-01/grub2/grub.cfg")
    efi = BootPath.parse("host-config/52-54-00-aa-00-01/grub2/boot.efi")
    below = BootPath.parse("host-config/52-54-00-aa-00-01")
    await cluster.first.change([Put(grub, b"menu"), Link(efi, "../../../grub2/grubx64.efi")])
    for name in NAMES:
        assert cluster.texts(name) == {grub.text: b"menu", efi.text: "../../../grub2/grubx64.efi"}
    entries = await cluster.first.listed(below.text)
    assert [(str(e.path), e.kind, e.target) for e in entries] == [
        (efi.text, "link", "../../../grub2/grubx64.efi"),
        (grub.text, "file", ""),
    ]
    await cluster.first.change([RemoveBelow(BootPath.parse(f"{below}/grub2"), suffix=".efi", directly=True)])
    assert cluster.texts(NAMES[1]) == {grub.text: b"menu"}
    await cluster.first.change([RemoveBelow(below)])
    for name in NAMES:
        assert cluster.texts(name) == {}
        assert not (cluster.directory / name / "host-config").exists()


@pytest.mark.parametrize(
    "change",
    [
        Put(BootPath("pxelinux.cfg/default/below"), b"x"),
        Put(BootPath("pxelinux.cfg"), b"x"),
        Link(BootPath("grub2/a.efi"), "../../etc/passwd"),
        Link(BootPath("grub2/a.efi"), "/etc/passwd"),
        Link(BootPath("grub2/a.efi"), ""),
        Put(BootPath("large"), b"x" * ((16 << 20) + 1)),
    ],
    ids=lambda c: str(c)[:60],
)
async def test_what_cannot_stand_changes_nothing(cluster: Cluster, change: Change) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    before = cluster.first.version
    with pytest.raises(Rejected):
        await cluster.first.change([Put(HOST, b"host"), change])
    assert (cluster.texts(NAMES[0]), cluster.first.version) == ({DEFAULT.text: b"one"}, before)


async def test_who_does_not_confirm_is_taken_out_first_and_comes_back(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    late = NAMES[1]
    cluster.following.remove(late)
    changing = asyncio.create_task(cluster.first.change([Put(DEFAULT, b"two")]))
    ledger, limit = Ledger(cluster.store), time.monotonic() + 10
    while not (fenced := [s.member for s in await ledger.standings() if s.fenced]):
        assert time.monotonic() < limit, "never: its time has passed"
        await asyncio.sleep(0.02)
    assert fenced == [late]
    # It hears of it, and gets no further.
    tree = cluster.trees[late]
    tree._fenced = (await ledger.tree(late)).fenced
    await tree._judge()
    assert "older than what was acknowledged" in tree.trouble
    assert (cluster.first.stands, tree.stands) == ("current", "behind")
    await changing
    assert cluster.texts(NAMES[2]) == {DEFAULT.text: b"two"}
    assert cluster.texts(late) == {DEFAULT.text: b"one"}
    cluster.following.add(late)
    await until(lambda: not tree.trouble, "it has caught up")
    assert cluster.texts(late) == {DEFAULT.text: b"two"}
    assert (await ledger.tree(late)).fenced == 0
    assert tree.stands == "current"


async def test_who_takes_no_clients_is_not_waited_for(cluster: Cluster) -> None:
    late = NAMES[1]
    cluster.following.remove(late)
    cluster.ready.remove(late)
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await cluster.first.change([Put(DEFAULT, b"one")])
    assert time.monotonic() - began < 1
    assert cluster.texts(late) == {}


async def test_what_no_disk_takes_is_not_acknowledged(store: Store, tmp_path: Path) -> None:
    async with running(store, tmp_path, confirm_s=0.3) as cluster:
        await cluster.first.change([Put(DEFAULT, b"one")])
        for name in NAMES:
            # Somebody's directory stands where the file is to be.
            (tmp_path / name / HOST.text / "theirs").mkdir(parents=True)
        with pytest.raises(Unavailable, match="somebody's directory"):
            await cluster.first.change([Put(HOST, b"host")])
        # Nobody is taken out: all are equally far.
        assert all(s.fenced == 0 for s in await Ledger(store).standings())
        await until(lambda: all(t.note for t in cluster.trees.values()), "they say it")
        assert [t.trouble for t in cluster.trees.values()] == ["", "", ""]
        for name in NAMES:
            (tmp_path / name / HOST.text / "theirs").rmdir()
            (tmp_path / name / HOST.text).rmdir()
        await until(lambda: cluster.texts(NAMES[2]).get(HOST.text) == b"host", "it comes when it can")


async def test_members_whose_disks_all_refuse_do_not_take_each_other_out(store: Store, tmp_path: Path) -> None:
    async with running(store, tmp_path, confirm_s=0.3) as cluster:
        await cluster.first.change([Put(DEFAULT, b"one")])
        cluster.following.clear()
        for name in NAMES:
            (tmp_path / name / HOST.text / "theirs").mkdir(parents=True)
        with pytest.raises(Unavailable, match="somebody's directory"):
            await cluster.first.change([Put(HOST, b"host")])
        # One after the other, while the others take clients: they are as far as it, and can do no more.
        for tree in cluster.trees.values():
            assert all(s.counts for s in await Ledger(store).standings())
            await tree.beat()
            assert (tree.trouble, "somebody's directory" in tree.note) == ("", True)


async def test_one_disk_that_refuses_takes_its_member_out_and_no_other(store: Store, tmp_path: Path) -> None:
    async with running(store, tmp_path, confirm_s=0.3) as cluster:
        (tmp_path / NAMES[1] / HOST.text / "theirs").mkdir(parents=True)
        await cluster.first.change([Put(HOST, b"host")])
        await until(lambda: "somebody's directory" in cluster.trees[NAMES[1]].trouble, "it says why")
        assert [cluster.trees[n].trouble for n in (NAMES[0], NAMES[2])] == ["", ""]


async def test_who_was_away_catches_up_also_with_what_went_long_ago(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host"), Link(KERNEL, "there")])
    away = NAMES[1]
    foreign = cluster.directory / away / "pxelinux.cfg" / "theirs"
    foreign.write_bytes(b"theirs")
    for is_forgotten in (False, True):
        cluster.following.remove(away)
        cluster.ready.remove(away)
        await cluster.trees[away].close()
        await asyncio.sleep(0.2)
        await cluster.first.change([Put(DEFAULT, b"two"), Remove(HOST), Remove(KERNEL)])
        if is_forgotten:
            async with cluster.store.write() as uow:
                await uow.changed(Statement("UPDATE netboot_entries SET changed_at = changed_at - 700000"), {})
            await cluster.first.forget()
        tree = cluster.add(away)
        await tree.beat()
        assert cluster.texts(away) == {DEFAULT.text: b"two", "pxelinux.cfg/theirs": b"theirs"}
        cluster.following.add(away)
        cluster.ready.add(away)
        await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host"), Link(KERNEL, "there")])


async def test_what_was_done_to_files_by_hand_is_mended_at_the_next_start(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host")])
    root = cluster.directory / NAMES[0]
    (root / DEFAULT.text).unlink()
    (root / HOST.text).unlink()
    (root / HOST.text).write_bytes(b"by hand")
    tree = cluster.add(NAMES[0])
    await tree.beat()
    assert cluster.texts(NAMES[0]) == {DEFAULT.text: b"one", HOST.text: b"host"}


async def test_names_of_equal_bytes_are_in_order_whatever_their_dates(cluster: Cluster) -> None:
    """Foreman writes the same menu for every machine that boots from its disk: at a start none of them is put anew."""
    cluster.following.clear()
    tree, ledger = cluster.first, Ledger(cluster.store)
    paths = [BootPath.parse(f"boot/{n}") for n in range(3)]
    for n, path in enumerate(paths):
        file = tree.beside() / "fetched"
        file.write_bytes(b"kernel")
        digest, size = digest_of(file)
        await tree.take(Fetched(path, digest, size, 1_700_000_000.0 + 1000 * n, "http://origin/it"), file)
    for gone in (None, paths[2], paths[0]):
        if gone is not None:
            await ledger.change([Remove(gone)])
            await tree.beat()
        await tree.close()
        tree = cluster.add(NAMES[0])
        await tree.beat()
        _, rows = await ledger.rows(None)
        assert tree._amiss(rows) == []
        (touched,) = {r.entry.digest for r in rows}
        # Nor are its bytes read again at each start, when the name goes whose date it had.
        assert any(is_near(tree._disk.dated(touched), r.entry.modified_at) for r in rows)


async def test_bytes_that_a_disk_has_damaged_are_found_and_brought_anew(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    root = cluster.directory / NAMES[0]
    with (root / DEFAULT.text).open("r+b") as f:
        f.write(b"0ne")
    assert await cluster.first.verify() == [DEFAULT.text]
    assert cluster.texts(NAMES[0]) == {DEFAULT.text: b"one"}
    assert await cluster.first.verify() == []


async def test_no_link_in_the_directory_leads_a_file_out_of_it(store: Store, tmp_path: Path) -> None:
    async with running(store, tmp_path, confirm_s=0.3) as cluster:
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / NAMES[0] / "pxelinux.cfg").symlink_to(outside)
        await cluster.first.change([Put(DEFAULT, b"one")])
        assert list(outside.iterdir()) == []
        await until(lambda: "link" in cluster.first.trouble, "it says why")


async def test_a_large_file_comes_beside_the_versions_and_nothing_waits_for_it(cluster: Cluster) -> None:
    content = os.urandom(17 << 20)
    file = cluster.first.beside() / "fetched"
    file.write_bytes(content)
    digest, size = digest_of(file)
    version = await cluster.first.take(Fetched(KERNEL, digest, size, 1_700_000_000.0, "http://origin/vmlinuz"), file)
    assert cluster.texts(NAMES[0]) == {KERNEL.text: content}
    # Nobody has it for the others yet, and what is written meanwhile comes all the same.
    await cluster.first.change([Put(DEFAULT, b"one")])
    assert cluster.texts(NAMES[1]) == {DEFAULT.text: b"one"}
    assert not await cluster.first.served_by_all(KERNEL, version, 0.1)
    assert cluster.trees[NAMES[1]].note.startswith("1 boot files are on their way")
    cluster.origin[digest] = content
    assert await cluster.first.served_by_all(KERNEL, version, 10)
    for name in NAMES:
        assert cluster.texts(name) == {KERNEL.text: content, DEFAULT.text: b"one"}
        assert (cluster.directory / name / KERNEL.text).stat().st_mtime == 1_700_000_000.0
    await until(lambda: not any(t.note for t in cluster.trees.values()), "they say so")
    with pytest.raises(Rejected):
        await cluster.first.read(KERNEL)


async def test_what_nobody_needs_any_more_is_dropped(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host")])
    await cluster.first.change([Put(DEFAULT, b"two")])
    old = hashlib.sha256(b"one").hexdigest()
    assert cluster.first.blob(old) is not None
    async with cluster.store.write() as uow:
        await uow.changed(Statement("UPDATE netboot_blobs SET at = at - 4000"), {})
    digests = {hashlib.sha256(c).hexdigest() for c in (b"two", b"host")}
    disk = Disk(cluster.directory / NAMES[0])
    assert disk.unused(digests, (), older_than_s=0, now=time.time() + 1) == 1
    await cluster.first.forget()
    ledger = Ledger(cluster.store)
    assert await ledger.content(old) is None
    assert all([await ledger.content(d) is not None for d in digests])
    assert cluster.texts(NAMES[0]) == {DEFAULT.text: b"two", HOST.text: b"host"}


async def test_without_the_store_what_lies_here_is_served(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    tree = cluster.first

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the store is away")

    for method in ("tree", "at", "rows", "standings"):
        monkeypatch.setattr(tree._ledger, method, away)
    assert await tree.read(DEFAULT) == b"one"
    # What had asked before it went away has its answer.
    cluster.following = set()
    await until(lambda: not tree._following, "nobody follows the tree")
    monkeypatch.setattr(tree, "_read_at", time.monotonic() - 60)
    await tree.beat()
    assert (tree.trouble, "was not read from the store lately" in tree.note) == ("", True)
    assert tree.may_be_given
    await tree.current()
    # Another member that reads it has what this one cannot know of, also before that was looked at.
    cluster.sees = True
    monkeypatch.setattr(tree, "_read_at", time.monotonic() - 6)
    monkeypatch.setattr(tree, "_alone_at", time.monotonic() - 7)
    assert not tree.may_be_given
    with pytest.raises(Unavailable, match="others read the store"):
        await tree.current()
    await tree.beat()
    assert "was not read from the store lately" in tree.trouble
    assert not tree.may_be_given

    # It comes back between this one's try and the question who else reads it: nobody is out of service for that.
    async def back() -> bool:
        monkeypatch.undo()
        return True

    monkeypatch.setattr(tree, "_seen_by_others", back)
    await tree.beat()
    assert (tree.trouble, tree.note, tree.may_be_given) == ("", "", True)


async def test_changes_of_all_members_at_once_leave_all_directories_alike(cluster: Cluster) -> None:
    chance = random.Random(7)
    paths = [BootPath.parse(f"grub2/grub.cfg-01-52-54-00-aa-00-{n:02x}") for n in range(12)]

    async def changing(name: str) -> None:
        for n in range(15):
            some = chance.sample(paths, 3)
            changes: Sequence[Change] = [
                Put(some[0], f"{name} {n}".encode()),
                Remove(some[1]),
                Link(some[2], f"to-{n}"),
            ]
            await cluster.trees[name].change(changes)
            # Each is read back by who made it, or what came after it.
            assert cluster.trees[name].version is not None

    await asyncio.gather(*(changing(name) for name in NAMES))
    wanted: Mapping[str, bytes | str] = {
        e.path.text: e.target if e.kind == "link" else await cluster.first.read(e.path)
        for e in await cluster.first.listed()
    }
    assert len(wanted) > 3
    for name in NAMES:
        await cluster.trees[name].beat()
        assert cluster.texts(name) == wanted


async def test_a_member_whose_row_was_dropped_confirms_anew(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    ledger = Ledger(cluster.store)
    await ledger.forget(unlisted=[NAMES[1]])
    await cluster.trees[NAMES[1]].beat()
    assert {s.member: s.version for s in await ledger.standings()}[NAMES[1]] == cluster.first.version


class Held:
    """A step of a disk that waits until it is let go, in its thread, as on a disk that hangs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        place = tree._disk.place

        def slowly(entry: Entry) -> None:
            self.reached.set()
            self.go.wait(30)
            place(entry)

        monkeypatch.setattr(tree._disk, "place", slowly)


async def test_a_member_whose_disk_hangs_is_taken_out_before_a_change_is_acknowledged(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    for late in (NAMES[1], NAMES[0]):
        held = Held(monkeypatch, cluster.trees[late])
        try:
            async with asyncio.timeout(15):
                await cluster.first.change([Put(DEFAULT, late.encode())])
            standings = {s.member: s for s in await Ledger(cluster.store).standings()}
            assert [n for n in NAMES if standings[n].counts] == [n for n in NAMES if n != late]
            assert "older than what was acknowledged" in cluster.trees[late].trouble
            with pytest.raises(Unavailable, match="behind"):
                await cluster.trees[late].current()
        finally:
            held.go.set()
        await until(lambda: not cluster.trees[late].trouble, "it has caught up")  # noqa: B023 - it is waited for here
        monkeypatch.undo()


async def test_who_takes_clients_though_fenced_keeps_a_change_from_being_acknowledged(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    cluster.following.remove(NAMES[1])
    with pytest.raises(Unavailable, match=NAMES[1]):
        await cluster.first.change([Put(DEFAULT, b"two")])


async def test_who_goes_away_while_files_are_put_in_place_leaves_no_old_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    tree = cluster.trees[NAMES[1]]
    cluster.following.remove(NAMES[1])
    cluster.ready.remove(NAMES[1])
    await asyncio.sleep(0.2)
    held = Held(monkeypatch, tree)
    await cluster.first.change([Put(DEFAULT, b"two")])
    monkeypatch.setattr(tree, "_read_at", -1e9)
    asking = asyncio.create_task(tree.current())
    await until(held.reached.is_set, "it puts the file in its place")
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    monkeypatch.undo()
    await cluster.first.change([Put(DEFAULT, b"three")])
    beating = asyncio.create_task(tree.beat())
    await asyncio.sleep(0.3)
    held.go.set()
    await beating
    await until(lambda: cluster.texts(NAMES[1]) == {DEFAULT.text: b"three"}, "it has what came last")
    await asyncio.sleep(0.3)
    await tree.beat()
    assert cluster.texts(NAMES[1]) == {DEFAULT.text: b"three"}


async def test_without_the_store_many_who_ask_wait_no_longer_than_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    tree = cluster.first
    cluster.following.remove(NAMES[0])
    await asyncio.sleep(0.2)

    async def silent(*_: object, **__: object) -> None:
        await asyncio.sleep(2)
        raise Unavailable("the store does not answer")

    monkeypatch.setattr(tree._ledger, "tree", silent)
    monkeypatch.setattr(tree, "_read_at", -1e9)
    began = time.monotonic()
    await asyncio.gather(*(tree.current() for _ in range(50)))
    assert time.monotonic() - began < 4


async def test_a_member_that_was_away_while_the_store_was_restored_has_nothing_of_what_is_not_in_it(
    cluster: Cluster,
) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    before = cluster.first.version
    await cluster.first.change([Put(DEFAULT, b"two"), Put(HOST, b"lost")])
    away = NAMES[1]
    cluster.following.remove(away)
    cluster.ready.remove(away)
    await asyncio.sleep(0.2)
    digest = hashlib.sha256(b"one").hexdigest()
    async with cluster.store.write() as uow:
        await uow.changed(Statement("UPDATE netboot_tree SET version = :v"), {"v": before})
        await uow.changed(Statement("UPDATE netboot_members SET version = :v"), {"v": before})
        await uow.changed(Statement("DELETE FROM netboot_entries WHERE path = :p"), {"p": HOST.text})
        await uow.changed(Statement("UPDATE netboot_entries SET digest = :d, version = :v"), {"d": digest, "v": before})
    await until(lambda: cluster.texts(NAMES[2]) == {DEFAULT.text: b"one"}, "who is there sees it")
    for n in range(3):
        await cluster.first.change([Put(KERNEL, f"{n}".encode())])
    cluster.following.add(away)
    cluster.ready.add(away)
    await until(lambda: cluster.trees[away].version == cluster.first.version, "it is back")
    assert cluster.texts(away) == cluster.texts(NAMES[0]) == {DEFAULT.text: b"one", KERNEL.text: b"2"}


async def test_a_file_may_take_the_place_of_a_directory_in_one_change(cluster: Cluster) -> None:
    below = BootPath.parse("pxelinux.cfg")
    await cluster.first.change([Put(DEFAULT, b"one")])
    await cluster.first.change([RemoveBelow(below), Put(below, b"a file")])
    assert [cluster.texts(name) for name in NAMES] == [{below.text: b"a file"}] * 3
    await cluster.first.change([Remove(below), Put(DEFAULT, b"two")])
    assert [cluster.texts(name) for name in NAMES] == [{DEFAULT.text: b"two"}] * 3


async def test_what_was_written_into_a_file_in_its_own_length_is_mended_at_the_next_start(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"timeout 10")])
    file = cluster.directory / NAMES[0] / DEFAULT.text
    os.utime(file, (1_600_000_000, 1_600_000_000))
    with file.open("r+b") as f:
        f.write(b"timeout 90")
    cluster.following.remove(NAMES[0])
    tree = cluster.add(NAMES[0])
    os.utime(file, (1_600_000_000, 1_600_000_000))
    await tree.beat()
    assert cluster.texts(NAMES[0]) == {DEFAULT.text: b"timeout 10"}


async def test_bytes_that_are_known_to_be_damaged_are_not_there_while_the_right_ones_come(cluster: Cluster) -> None:
    content = b"kernel" * 1000
    file = cluster.first.beside() / "fetched"
    file.write_bytes(content)
    digest, size = digest_of(file)
    await cluster.first.take(Fetched(KERNEL, digest, size, 1_700_000_000.0, "http://origin/vmlinuz"), file)
    with (cluster.directory / NAMES[0] / KERNEL.text).open("r+b") as f:
        f.write(b"K")
    assert await cluster.first.verify() == [KERNEL.text]
    assert cluster.texts(NAMES[0]) == {}
    cluster.origin[digest] = content
    await until(lambda: cluster.texts(NAMES[0]) == {KERNEL.text: content}, "they come")


async def test_a_disk_that_refuses_again_and_again_is_not_filled_by_that(cluster: Cluster) -> None:
    disk = cluster.first._disk
    cluster.following.remove(NAMES[0])
    await asyncio.sleep(0.2)
    version = cluster.directory / NAMES[0] / HIDDEN / "version"
    version.unlink()
    version.mkdir()
    for _ in range(3):
        with pytest.raises(Unavailable):
            disk.note(7)
    assert list(disk.beside().iterdir()) == []


async def test_a_file_that_breaks_the_member_that_brings_it_keeps_no_other_away(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, bring = cluster.trees[NAMES[1]], cluster.trees[NAMES[1]]._bring

    async def broken(entry: Entry) -> Path:
        if entry.path == KERNEL:
            raise ValueError("a defect")
        return await bring(entry)

    monkeypatch.setattr(tree, "_bring", broken)
    for path, content in ((KERNEL, b"kernel"), (HOST, b"initrd")):
        file = cluster.first.beside() / "fetched"
        file.write_bytes(content)
        digest, size = digest_of(file)
        cluster.origin[digest] = content
        await cluster.first.take(Fetched(path, digest, size, 1_700_000_000.0, "http://origin/it"), file)
    await until(lambda: cluster.texts(NAMES[1]) == {HOST.text: b"initrd"}, "the other one comes")
    monkeypatch.undo()
    await until(lambda: cluster.texts(NAMES[1]).get(KERNEL.text) == b"kernel", "it is tried again")


async def test_what_was_on_its_way_and_stands_no_more_in_a_restored_store_does_not_come(
    cluster: Cluster,
) -> None:
    contents = {b"old kernel": "http://origin/1", b"new kernel": "http://origin/2"}
    for content, origin in contents.items():
        if content == b"old kernel":
            cluster.origin[hashlib.sha256(content).hexdigest()] = content
        file = cluster.first.beside() / "fetched"
        file.write_bytes(content)
        await cluster.first.take(Fetched(KERNEL, *digest_of(file), 1_700_000_000.0, origin), file)
        if content == b"old kernel":
            await until(lambda: cluster.texts(NAMES[1]) == {KERNEL.text: content}, "it comes")  # noqa: B023
    tree = cluster.trees[NAMES[1]]
    await until(lambda: KERNEL in tree._lacking, "it is on its way")
    async with cluster.store.write() as uow:
        old = hashlib.sha256(b"old kernel").hexdigest()
        await uow.changed(Statement("UPDATE netboot_tree SET version = 1"), {})
        await uow.changed(Statement("UPDATE netboot_members SET version = 1, lacks = '[]'"), {})
        await uow.changed(Statement("UPDATE netboot_entries SET digest = :d, version = 1"), {"d": old})
    await until(lambda: tree.version == 1, "it sees what was restored")
    cluster.origin[hashlib.sha256(b"new kernel").hexdigest()] = b"new kernel"
    await asyncio.sleep(3)
    assert cluster.texts(NAMES[1]) == {KERNEL.text: b"old kernel"}
    assert not tree._lacking


def test_a_directory_that_is_made_is_for_everybody_to_read(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Disk(tmp_path / "root").open()
    finally:
        os.umask(before)
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "root" / HIDDEN).stat().st_mode & 0o777 == 0o700


async def test_a_directory_is_one_process_s_at_a_time(store: Store, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from muster.netboot.disk import Disk; d = Disk(pathlib.Path(sys.argv[1])); d.open();"
        " print('has it', flush=True); sys.stdin.read()"
    )
    root = tmp_path / NAMES[0]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"has it\n"
        theirs = root / HIDDEN / "beside" / "theirs"
        theirs.touch()
        cluster = Cluster(store, tmp_path)
        tree = cluster.add(NAMES[0])
        await tree.beat()
        assert "Another process has the directory" in tree.trouble + tree.note
        assert (tree.version, theirs.exists()) == (None, True)
        other.stdin.close()
        other.wait(10)
    await tree.beat()
    assert (tree.trouble, tree.version) == ("", 0)
    await tree.close()


async def test_a_member_that_was_stopped_gives_nothing_old_over_tftp_when_it_goes_on(
    cluster: Cluster,
) -> None:
    await cluster.first.change([Put(DEFAULT, b"one")])
    late, loop = cluster.trees[NAMES[1]], asyncio.get_running_loop()
    settings = TFTP().model_copy(update={"port": 0})
    duty = BootFilesGiven(late, settings, ["127.0.0.1"], TFTPMetrics(CollectorRegistry()), lambda _: None)

    async def answer(asking: socket.socket) -> bytes:
        """Return what comes for a request, and say that it came; empty: nothing does."""
        try:
            async with asyncio.timeout(0.5):
                said, sender = await loop.sock_recvfrom(asking, 2048)
        except TimeoutError:
            return b""
        asking.sendto(b"\0\4\0\1", sender)
        return said[4:]

    answers: list[bytes] = []
    try:
        await duty.beat()
        assert duty._server is not None
        place = duty._server.places[0]
        limit = time.monotonic() + 20
        while not answers or answers[-1] != b"two":
            assert time.monotonic() < limit, answers
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.setblocking(False)
                if answers == [b"one"]:
                    # Others change it, take this member out, and hear that it is silent: it has not heard of that.
                    cluster.following.remove(NAMES[1])
                    await until(lambda: not late._following, "nobody follows the tree")
                    ledger = Ledger(cluster.store)
                    await ledger.fence([NAMES[1]], await ledger.change([Put(DEFAULT, b"two")]))
                    asking.sendto(rrq(DEFAULT.text), place)
                    # Nothing of this process goes on meanwhile, as while it is stopped.
                    time.sleep(3)
                    cluster.following.add(NAMES[1])
                elif duty._server is not None:
                    asking.sendto(rrq(DEFAULT.text), duty._server.places[0])
                answers.append(await answer(asking))
                await duty.beat()
        assert answers.count(b"one") == 1, answers
    finally:
        await duty.end()


async def test_who_asks_only_whether_tftp_is_answered_is_not_told_of(cluster: Cluster) -> None:
    told: list[Happening] = []
    settings = TFTP().model_copy(update={"port": 0})
    duty = BootFilesGiven(cluster.first, settings, ["127.0.0.1"], TFTPMetrics(CollectorRegistry()), told.append)
    try:
        await duty.beat()
        assert duty._server is not None
        for name in (".muster/answers", "absent"):
            await asyncio.to_thread(fetched, duty._server.places[0], name)
        await until(lambda: told, "it is told of what a machine asks")
        assert [t.detail["file"] for t in told] == ["absent"]
    finally:
        await duty.end()


async def test_a_directory_that_somebody_emptied_is_filled_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who copies an older server's directory over it, and has all else there deleted."""
    monkeypatch.setattr("muster.netboot.tree._LOOKED_EVERY_S", 0.0)
    await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host")])
    root = cluster.directory / NAMES[0]
    for emptied in (root / HIDDEN, root):
        await until(lambda: not cluster.first._following, "nobody follows the tree")
        shutil.rmtree(emptied)
        await until(
            lambda: root.exists() and cluster.texts(NAMES[0]) == {DEFAULT.text: b"one", HOST.text: b"host"},
            "it is filled again",
        )
        await cluster.first.change([Put(HOST, emptied.name.encode())])
        assert cluster.texts(NAMES[0])[HOST.text] == emptied.name.encode()
        await cluster.first.change([Put(HOST, b"host")])
    # And nobody else can have it.
    with pytest.raises(Unavailable, match="Another process has"):
        await asyncio.to_thread(other_process_opens, root)


def other_process_opens(root: Path) -> None:
    program = "import pathlib, sys; from muster.netboot.disk import Disk; Disk(pathlib.Path(sys.argv[1])).open()"
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(done.stderr)


async def test_files_that_somebody_took_away_are_found_when_all_are_read(cluster: Cluster) -> None:
    await cluster.first.change([Put(DEFAULT, b"one"), Put(HOST, b"host"), Link(KERNEL, "there")])
    root = cluster.directory / NAMES[0]
    blob = cluster.first.blob(hashlib.sha256(b"host").hexdigest())
    assert blob is not None
    blob.unlink()
    for path in (DEFAULT, HOST, KERNEL):
        (root / path.text).unlink()
    assert sorted(await cluster.first.verify()) == sorted(p.text for p in (DEFAULT, HOST, KERNEL))
    assert cluster.texts(NAMES[0]) == {DEFAULT.text: b"one", HOST.text: b"host", KERNEL.text: "there"}
    assert await cluster.first.verify() == []
