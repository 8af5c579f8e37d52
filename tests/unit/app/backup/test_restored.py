from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from muster.app.backup.files import collected
from muster.app.backup.opened import opened
from muster.app.backup.restored import Plan, Wanted, carry_out, planned
from muster.cluster.edited import with_store
from muster.kernel.errors import Conflict, Misconfigured, Unavailable
from muster.kernel.secrets import Secret
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.store import copies, schema
from muster.store.engine import opened as store_opened
from muster.store.tables import metadata
from tests.unit.app.backup.conftest import Entries, World, cluster_text

Change = Callable[[Entries, str, Callable[[Any], None]], Entries]


def wanted(world: World, **more: Any) -> Wanted:
    new = world.directory / "new"
    new.mkdir(exist_ok=True)
    return Wanted(new / "cluster.yaml", new / "pki", **{"store_url": f"sqlite:///{new}/store.db", **more})


async def restored(world: World, at: Path, to: Wanted, *, dry_run: bool = False) -> Plan:
    with opened(at, world.identity) as archive:
        plan = await planned(archive, to)
        if not dry_run:
            await carry_out(plan, to)
    return plan


def all_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


async def test_files_are_those_that_were_and_the_store_is_the_named_one(world: World) -> None:
    to = wanted(world)
    at = await world.backed_up()
    plan = await restored(world, at, to, dry_run=True)
    assert all_of(to.pki.parent) == {}
    assert {f.state for f in plan.files} == {"new"}
    await restored(world, at, to)
    assert to.cluster_path.read_text() == with_store(world.cluster_file.read_text(), str(to.store_url))
    assert "# Ask Anna." in to.cluster_path.read_text()
    for kind, name in (("member", "proxy01.example.net"), ("balancer", "balancer")):
        one, other = (bundles.paths(d, kind, name) for d in (world.pki, to.pki))  # type: ignore[arg-type]
        assert other.directory.is_symlink()
        assert [p.read_bytes() for p in (one.certificate, one.key, one.ca)] == [
            p.read_bytes() for p in (other.certificate, other.key, other.ca)
        ]
        assert other.key.stat().st_mode & 0o777 == 0o600
    assert ClusterCA.open(to.pki).certificate == ClusterCA.open(world.pki).certificate
    assert (to.pki / "ca.key").stat().st_mode & 0o777 == 0o600
    again = await restored(world, at, to)
    assert (again.is_done, {f.state for f in again.files}) == (True, {"same"})


async def test_a_different_file_is_named_and_only_force_replaces_it(world: World) -> None:
    to = wanted(world)
    at = await world.backed_up()
    to.cluster_path.write_text("mine\n")
    with pytest.raises(Conflict, match=r"another content: .*cluster\.yaml; --force"):
        await restored(world, at, to)
    assert all_of(to.pki.parent) == {"cluster.yaml": b"mine\n"}
    await restored(world, at, wanted(world, force=True))
    assert "mine" not in to.cluster_path.read_text()


async def test_an_encrypted_key_is_restored_with_what_opens_it(world: World) -> None:
    secret = world.directory / "passphrase"
    secret.write_text("open sesame\n")
    key = load_pem_private_key((world.pki / "ca.key").read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    (world.pki / "ca.key").write_bytes(pem)
    (world.pki / "ca.passphrase").symlink_to(secret)
    at = await world.backed_up()
    secret.unlink()
    to = wanted(world)
    await restored(world, at, to)
    assert ClusterCA.open(to.pki).certificate.public_key() == key.public_key()
    assert not any("passphrase" in one.what for one in collected(to.cluster_path, to.pki).left)
    link = to.pki / "ca.passphrase"
    assert (link.is_symlink(), link.stat().st_mode & 0o777) == (True, 0o600)
    assert {f.state for f in (await restored(world, at, to)).files} == {"same"}


async def test_of_another_store_this_hosts_own_password_counts(world: World) -> None:
    secret = world.directory / "old" / "store.password"
    secret.write_text("old\n")
    world.cluster_file.write_text(
        cluster_text(
            world.directory, store={"url": f"sqlite:///{world.directory}/old.db", "password_file": str(secret)}
        )
    )
    at = await world.backed_up()
    name = f"files{secret}"
    there = await restored(world, at, wanted(world, elsewhere=True), dry_run=True)
    assert {f.name: f.state for f in there.files}[name] == "given"
    secret.unlink()
    absent = await restored(world, at, wanted(world, elsewhere=True), dry_run=True)
    assert {f.name: f.state for f in absent.files}[name] == "new"
    mine = world.directory / "mine"
    mine.write_text("new\n")
    other = await restored(world, at, wanted(world, password_file=mine))
    assert {f.name: f.state for f in other.files}[name] == "given"
    assert not secret.exists()
    assert f"password_file: {mine}" in (world.directory / "new" / "cluster.yaml").read_text()


async def test_what_lies_elsewhere_is_left_out_and_written_by_the_same_command_once_asked_for(world: World) -> None:
    named = world.directory / "elsewhere" / "foreman.pem"
    named.parent.mkdir()
    named.write_text("a CA")
    world.cluster_file.write_text(cluster_text(world.directory, foreman={"ca_file": str(named)}))
    at = await world.backed_up()
    named.unlink()
    await restored(world, at, wanted(world))
    assert not named.exists()
    plan = await restored(world, at, wanted(world, elsewhere=True))
    assert (named.read_text(), plan.is_done) == ("a CA", True)


async def test_what_a_newer_muster_made_is_refused_with_what_is_needed(world: World, changed: Change) -> None:
    some = world.entries_of(await world.backed_up())
    at = world.crafted(changed(some, "MANIFEST.json", lambda m: m.update(schema="9999", muster="7.0.1")))
    with pytest.raises(
        Misconfigured, match=r"schema 9999, made by Muster 7\.0\.1.*Restore it with 7\.0\.1 or a newer one"
    ):
        await restored(world, at, wanted(world))
    assert all_of(world.directory / "new") == {}


async def test_files_that_the_cluster_file_does_not_name_are_refused_before_anything_is_written(
    world: World, changed: Change
) -> None:
    some = world.entries_of(await world.backed_up())
    target = world.directory / "new" / "evil"
    file = {"name": f"files{target}", "path": str(target), "mode": 0o644, "owner": "root"}
    more = changed(some, "MANIFEST.json", lambda m: m["files"].append(file))
    at = world.crafted([*more[:-1], (f"files{target}", b"x"), more[-1]])
    with pytest.raises(Misconfigured, match="which its cluster file does not name; nothing was changed"):
        await restored(world, at, wanted(world))
    assert all_of(world.directory / "new") == {}


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("wishes", b"{\"member\": \"a\"}\n{\"wanted\": \"drain\"}\n"), ("wishes", b"[]\n"), ("wishes", b"{\"evil\": 1}\n"),
        ("wishes", b"nothing\n"), ("wishes", b"{\"member\": \"a\", \"wanted\": \"evil\", \"by\": \"a\", \"at\": 1}\n"),
        ("wishes", b"{\"member\": {\"a\": 1}, \"wanted\": \"drain\", \"by\": \"a\", \"at\": 1}\n"), ("members", b"{}\n"),
        ("documents", b"[" * 100_000), ("leases", b'{"name": "x"}\n'), ("documents", b'{"version": 1}\n'),
        ("leases", b'{"name": "x", "holder": null, "epoch": "1", "expires_at": 1}\n'),
        ("leases", b'{"name": "x", "holder": null, "epoch": 1e400, "expires_at": 1}\n'),
        ("leases", b'{"name": "x", "holder": null, "epoch": 99999999999999999999, "expires_at": 1}\n'),
        ("wishes", b'{"member": "a", "wanted": "drain", "by": "a", "at": "x"}\n'),
        ("wishes", b'{"member": "a", "wanted": "drain", "by": "\\ud800", "at": 1}\n'),
    ],
)  # fmt: skip
async def test_rows_that_are_none_of_their_table_leave_the_store_and_the_host_as_they_were(
    world: World, changed: Change, table: str, line: bytes
) -> None:
    some = world.entries_of(await world.backed_up())

    def also(said: Any) -> None:
        said["tables"] = sorted({*said["tables"], table})

    some = changed(some, "MANIFEST.json", also)
    some = [(n, c) for n, c in some if not n.startswith(f"store/{table}/")]
    at = world.crafted([*some[:-1], (f"store/{table}/000001.jsonl", line), some[-1]])
    to = wanted(world)
    with pytest.raises((Misconfigured, Conflict, Unavailable)):
        await restored(world, at, to)
    assert not to.cluster_path.exists()
    assert not to.pki.exists(), "nothing is touched if anything is wrong"
    async with (
        store_opened(Secret(str(to.store_url)), migrate=False) as store,
        store.whole(writing=False, limit_s=9) as uow,
    ):
        assert await schema.revision_in(uow, "sqlite") is None


async def test_another_number_of_rows_than_was_counted_is_no_whole_backup(world: World, changed: Change) -> None:
    some = changed(world.entries_of(await world.backed_up()), "SUMS.json", lambda s: s["rows"].update(wishes=1))
    with pytest.raises(Misconfigured, match="another number of rows"):
        await restored(world, world.crafted(some, summed=False), wanted(world))


async def test_a_store_whose_clock_is_behind_is_refused(world: World, changed: Change) -> None:
    some = world.entries_of(await world.backed_up())
    at = world.crafted(changed(some, "MANIFEST.json", lambda m: m.update(taken_at=m["taken_at"] + 4000)))
    with pytest.raises(Conflict, match="set the clock"):
        await restored(world, at, wanted(world))


async def test_a_store_without_a_directory_is_said_before_a_key_is_written(world: World) -> None:
    at = await world.backed_up()
    with pytest.raises(Unavailable, match="There is no directory"):
        await restored(world, at, wanted(world, store_url=f"sqlite:///{world.directory}/absent/store.db"))
    assert all_of(world.directory / "new") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_what_root_restores_belongs_to_whom_the_directory_does(world: World) -> None:
    to = wanted(world)
    os.chown(to.pki.parent, 54_321, 54_321)
    await restored(world, await world.backed_up(), to)
    owners = {str(p): p.lstat().st_uid for p in to.pki.parent.rglob("*") if not p.is_symlink()}
    assert {p: u for p, u in owners.items() if u != 54_321} == {}


async def test_a_backup_of_what_was_restored_does_not_take_it_for_restored_from_itself(world: World) -> None:
    to = wanted(world)
    await restored(world, await world.backed_up(), to)
    async with store_opened(Secret(str(to.store_url))) as store, store.read() as uow:
        found = (await copies.stored(uow))["documents"]
        (rows,) = [page async for page in copies.rows(uow, found)]
    assert [r["name"] for r in rows] == ["restored"]
    assert metadata.tables["documents"] is found.table
    assert json.dumps(rows[0]["content"]).startswith('{"backup": ')


async def test_a_device_in_a_file_s_place_is_neither_opened_nor_replaced(world: World) -> None:
    named = world.directory / "foreman.pem"
    named.write_text("a CA")
    world.cluster_file.write_text(cluster_text(world.directory, foreman={"ca_file": str(named)}))
    at = await world.backed_up()
    named.unlink()
    # As a device would be, and without a writer whoever opened it would wait.
    os.mkfifo(named)
    assert (await restored(world, at, wanted(world), dry_run=True)).in_the_way == ()
    with pytest.raises(Misconfigured, match=r"foreman\.pem failed: it is no plain file"):
        await restored(world, at, wanted(world, elsewhere=True, force=True))
    assert named.is_fifo()
    assert all_of(world.directory / "new") == {}


async def test_a_passphrase_s_text_that_is_here_is_replaced_by_force_only(world: World) -> None:
    secret = world.directory / "passphrase"
    secret.write_text("open sesame\n")
    (world.pki / "ca.passphrase").symlink_to(secret)
    at = await world.backed_up()
    to = wanted(world)
    to.pki.mkdir()
    text = to.pki / "ca.passphrase.txt"
    text.write_text("mine\n")
    with pytest.raises(Conflict, match=r"another content: .*ca\.passphrase\.txt; --force"):
        await restored(world, at, to)
    assert all_of(to.pki) == {text.name: b"mine\n"}
    await restored(world, at, wanted(world, force=True))
    assert text.read_text() == (to.pki / "ca.passphrase").read_text() == "open sesame\n"


async def test_of_a_store_that_somebody_filled_meanwhile_no_file_tells(world: World) -> None:
    at, to = await world.backed_up(), wanted(world)
    with opened(at, world.identity) as archive:
        plan = await planned(archive, to)
        async with store_opened(Secret(str(to.store_url))) as store:
            await store.prepare()
            async with store.write("test") as uow:
                await copies.write(uow, "wishes", [{"member": "a", "wanted": "drain", "by": "b", "at": 1.0}])
        with pytest.raises(Conflict, match="holds something already"):
            await carry_out(plan, to)
    assert not to.pki.exists()
