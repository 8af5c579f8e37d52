"""A cluster backed up, lost, and restored on new hosts, on each store from each; age itself is the other side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import Column, Table

from muster.app.backup import tables
from muster.authority.x509 import profile
from muster.kernel.secrets import Secret
from muster.store import copies, schema
from muster.store.engine import Store, opened
from muster.store.leases import Leases
from muster.store.tables import metadata
from tests.servers import puppetca, served
from tests.servers.local import Said
from tests.servers.postgresql import PostgreSQL
from tests.servers.served import MEMBER, Served

STORES = ("sqlite", "postgresql")


@pytest.fixture
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], str]:
    """Return what makes an empty store of a kind, by a name of its own."""

    def made(kind: str, name: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{name}.db"
        started: PostgreSQL = request.getfixturevalue("postgresql_server")
        return started.fresh_database()

    return made


@dataclass(frozen=True)
class Key:
    """An identity of age, and who it is to others."""

    file: Path
    recipient: str

    @classmethod
    def made(cls, directory: Path) -> Key:
        file = directory / "identity.txt"
        done = subprocess.run(["age-keygen", "-o", str(file)], capture_output=True, text=True, check=True)
        found = re.search(r"age1[0-9a-z]+", done.stderr)
        assert found is not None
        return cls(file, found[0])


@pytest.fixture
def key(needs: Callable[[str], None], tmp_path: Path) -> Key:
    needs("age")
    return Key.made(tmp_path)


def backed_up(member: Served, key: Key, at: Path, *more: str) -> Said:
    said = member.command("backup", "--recipient", key.recipient, "--output", str(at), *more)
    assert said.code == 0, str(said)
    return said


def store_options(url: str, directory: Path) -> list[str]:
    """Return the options that name a store; its password lies in a file of the new host."""
    found = re.fullmatch(r"(postgresql://[^:/@]+):([^@]*)(@.*)", url)
    if found is None:
        return ["--store-url", url]
    file = directory / "new-store.password"
    file.write_text(f"{found[2]}\n")
    file.chmod(0o600)
    return ["--store-url", found[1] + found[3], "--store-password-file", str(file)]


def lost(member: Served, by: Path) -> None:
    """Take the host away: its process, and all its files."""
    member.kill()
    member.directory.rename(by)


@contextlib.contextmanager
def on_a_new_host(old: Served, directory: Path, url: str, gone: Path) -> Iterator[Served]:
    """Yield the same member on a host that has nothing but what its clients know."""
    directory.mkdir()
    new = Served(directory, url, ports=old.ports, authority=old.authority, features=old.features)
    for file in ("ca.pem", "administrator.pem"):
        shutil.copy(gone / file, directory / file)
    try:
        yield new
    finally:
        new.kill()


def number_of(member: Served) -> int:
    status, text = member.ask("GET", "certificate_revocation_list/ca")
    assert status == 200, text
    found = x509.load_pem_x509_crl(text.encode())
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def signed(member: Served, name: str) -> int:
    assert member.submit(name, puppetca.agent(name).csr)[0] == 200
    serial = member.certificate(name)
    assert serial is not None
    return serial


def openssl_verifies(member: Served, name: str, tmp_path: Path) -> Said:
    """Ask openssl about a certificate, with the list that is served."""
    status, crl = member.ask("GET", "certificate_revocation_list/ca")
    assert status == 200
    _, leaf = member.ask("GET", f"certificate/{name}")
    for file, text in (("crl.pem", crl), ("leaf.pem", leaf)):
        (tmp_path / file).write_text(text)
    done = subprocess.run(
        ["openssl", "verify", "-crl_check", "-CAfile", str(member.bundle), "-CRLfile", str(tmp_path / "crl.pem"),
         str(tmp_path / "leaf.pem")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("into", STORES)
@pytest.mark.parametrize("of", STORES)
def test_a_cluster_that_was_lost_is_there_again_and_its_puppet_ca_goes_on(
    of: str, into: str, fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    old_directory, new_directory, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    old_directory.mkdir()
    at = tmp_path / "muster.age"
    with served.made(old_directory, fresh(of, "old"), authority={"autosign": ["all"]}) as old:
        old.start()
        before = {name: signed(old, f"{name}.kill.test") for name in ("kept", "revoked", "later")}
        assert old.change("revoked.kill.test", "revoked")[0] == 204
        assert old.command("drain", MEMBER, "--wait", "0", "--force", "--reason", "a disk").code in (0, 4)
        said = backed_up(old, key, at)
        assert "Not in it:" in said.out
        unknown = signed(old, "unknown.kill.test")
        assert old.change("later.kill.test", "revoked")[0] == 204
        published = number_of(old)
        lost(old, gone)
        with on_a_new_host(old, new_directory, fresh(into, "new"), gone) as new:
            # The password's file of the old host lay outside the directory that is the cluster's here.
            options = [*store_options(new.url, new_directory), "--elsewhere"]
            done = new.command("restore", str(at), "--identity", str(key.file), *options)
            assert done.code == 0, str(done)
            assert "stay valid until they end" in done.out
            new.start()
            states = {n: new.state(f"{n}.kill.test") for n in ("kept", "revoked", "later", "unknown")}
            # What came after the backup is lost: the certificate is unknown, the revocation is not there.
            assert states == {"kept": "signed", "revoked": "revoked", "later": "signed", "unknown": None}
            assert {n: new.certificate(f"{n}.kill.test") for n in before} == before
            assert number_of(new) > published
            assert new.listed() == {before["revoked"]}
            again = signed(new, "again.kill.test")
            assert again not in {*before.values(), unknown}
            assert new.change("kept.kill.test", "revoked")[0] == 204
            assert new.listed() == {before["revoked"], before["kept"]}
            assert openssl_verifies(new, "again.kill.test", tmp_path).code == 0
            assert "certificate revoked" in str(openssl_verifies(new, "kept.kill.test", tmp_path))
            status = json.loads(new.command("status", "--json").out)
            assert "a disk" in json.dumps(status)
            assert new.cluster_file.stat().st_mode & 0o777 == (gone / "cluster.yaml").stat().st_mode & 0o666
            assert (new.pki / "puppet-ca" / "ca_key.pem").stat().st_mode & 0o777 == 0o600


def test_a_list_that_an_agent_still_has_brings_revocations_back(
    fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    old_directory, new_directory, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    old_directory.mkdir()
    at, list_file, other = tmp_path / "muster.age", tmp_path / "crl.pem", tmp_path / "other.pem"
    with served.made(old_directory, fresh("sqlite", "old"), authority={"autosign": ["all"]}) as old:
        old.start()
        known = signed(old, "known.kill.test")
        backed_up(old, key, at)
        unknown = signed(old, "unknown.kill.test")
        for name in ("known", "unknown"):
            assert old.change(f"{name}.kill.test", "revoked")[0] == 204
        list_file.write_text(old.ask("GET", "certificate_revocation_list/ca")[1])
        published = number_of(old)
        lost(old, gone)
        with on_a_new_host(old, new_directory, fresh("sqlite", "new"), gone) as new:
            arguments = ["restore", str(at), "--identity", str(key.file), "--store-url", new.url, "--crl"]
            someone = puppetca.new_ca("Puppet CA: somebody else")
            made = profile.signed_list(
                someone.issuer, someone.key, [], number=5, now=datetime.now(UTC), ttl=timedelta(days=1)
            )
            other.write_text(profile.pem_of(made))
            refused = new.command(*arguments, str(other))
            assert (refused.code, "holds no revocation list of Puppet CA" in refused.err) == (4, True), str(refused)
            assert new.command(*arguments, str(list_file)).code == 0
            new.start()
            assert new.state("known.kill.test") == "revoked"
            assert new.listed() == {known, unknown}
            assert number_of(new) > published
            events = json.loads(new.command("ca", "audit", "--json").out)
            assert [e["serial"] for e in events if e["actor"] == "a list that was found"]


def odd_rows(table: Table, count: int = 3) -> list[copies.Row]:
    """Return rows that a careless copy would change: long numbers, small differences, what JSON and lines stumble over."""
    words = {"state", "wanted", "kind"}
    allowed = {
        ("members", "state"): "ready", ("lives", "state"): "drained", ("certificates", "state"): "superseded",
        ("content_jobs", "state"): "done", ("dhcp_claims", "state"): "promised", ("wishes", "wanted"): "drain",
        ("netboot_entries", "kind"): "link", ("netboot_fetches", "state"): "done",
        ("ipam_promises", "state"): "settled",
        ("arf_uploads", "state"): "sent",
    }  # fmt: skip

    def value(column: Column[Any], number: int) -> Any:
        kind = type(column.type).__name__
        if column.name in words and (word := allowed.get((table.name, column.name))) is not None:
            return word
        if column.name == "kind" and table.name.startswith("gateway"):
            return "host" if number % 2 else "user"
        if column.nullable and number % 2:
            return None
        odd: dict[str, Any] = {
            "Text": f"{number} ä\u2028 \\ \"'\n\r\t\x7f%s :name ☃ \U0001f600",
            "Double": 1767225600.123457 + number / 3,
            "Integer": 2_000_000_000 + number,
            "BigInteger": 2**62 + number,
            "LargeBinary": b"\0\xff%d" % number,
            "Variant": 2**40 + number,
            "_JSON": {"a": [1, 2.5, None, True, {"ü": "\u2029\n"}], "number": 2**53 + number, "empty": {}},
        }
        return odd["Variant" if column is table.autoincrement_column else kind]

    return [{c.name: value(c, n) for c in table.columns} for n in range(1, count + 1)]


async def all_rows(store: Store) -> dict[str, list[copies.Row]]:
    async with store.read() as uow:
        found = await copies.stored(uow)
        return {name: [r async for page in copies.rows(uow, s) for r in page] for name, s in found.items()}


async def filled(url: str, rows: Mapping[str, list[copies.Row]]) -> None:
    async with opened(Secret(url)) as store:
        await store.prepare()
        async with store.whole(writing=True, limit_s=60) as uow:
            for name, some in rows.items():
                await copies.write(uow, name, some)


@pytest.mark.parametrize("into", STORES)
@pytest.mark.parametrize("of", STORES)
async def test_every_row_is_there_again_as_it_was_but_for_what_a_new_world_must_not_believe(
    of: str, into: str, fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    url, at = fresh(of, "old"), tmp_path / "muster.age"
    rows = {t.name: odd_rows(t) for t in metadata.sorted_tables}
    # More than are read or written at once, by keys of one column and of three.
    rows["certificates"] = odd_rows(metadata.tables["certificates"], copies.PAGE * 2 + 500)
    rows["gateway_grants"] = odd_rows(metadata.tables["gateway_grants"], copies.PAGE * 2)
    rows["content_jobs"][0]["state"] = "running"
    rows["documents"] += [
        {**rows["documents"][0], "name": name} for name in ("facts/proxy01.example.net", "steward", "roll", "restored")
    ]
    await filled(url, rows)
    with served.made(tmp_path, url, founded=False) as old:
        backed_up(old, key, at)
        new = fresh(into, "new")
        options = [
            *store_options(new, tmp_path),
            "--pki",
            str(tmp_path / "pki2"),
            "--cluster",
            str(tmp_path / "c2.yaml"),
        ]
        said = old.command("restore", str(at), "--identity", str(key.file), "--elsewhere", *options, "--json")
        assert said.code == 0, str(said)
    async with opened(Secret(url)) as one, opened(Secret(new)) as other:
        before, after = await all_rows(one), await all_rows(other)
        assert {n for n, some in after.items() if not some} == set(tables.LEFT)
        mark = next(r for r in after["documents"] if r["name"] == "restored")
        assert mark["content"]["backup"] == said.json["backup"]
        changed = (
            "leases", "crls", "authorities", "documents", "content_jobs", "audit", "consumer_packages", "netboot_tree",
            "arf_uploads", "group_leaders",
        )  # fmt: skip
        by_key = {n: sorted(before[n], key=str) for n in tables.KEPT if n not in changed}
        assert {n: sorted(after[n], key=str) for n in by_key} == by_key
        # Under the numbers that hosts have, of contents that nobody has: the next one is above them.
        renewed = [{**r, "digest": "", "following": r["following"] + 1000} for r in before["consumer_packages"]]
        assert sorted(after["consumer_packages"], key=str) == sorted(renewed, key=str)
        for old_row, new_row in zip(before["group_leaders"], after["group_leaders"], strict=True):
            # Who still believes an older term is told that it has ended.
            assert new_row == {**old_row, "epoch": new_row["epoch"]}
            assert new_row["epoch"] > old_row["epoch"]
        for old_row, new_row in zip(before["netboot_tree"], after["netboot_tree"], strict=True):
            # Nobody's disk has the version, so everybody compares all files.
            assert new_row["forgotten"] == new_row["version"] > old_row["version"] + 999_999
        # Who had begun to send a report is nobody's matter any more.
        unclaimed = [{**r, "holder": "", "claimed_until": 0.0, "due_at": 0.0} for r in before["arf_uploads"]]
        assert sorted(after["arf_uploads"], key=str) == sorted(unclaimed, key=str)
        kept = [
            r
            for r in before["documents"]
            if r["name"] not in ("facts/proxy01.example.net", "steward", "roll", "restored")
        ]
        assert sorted((r for r in after["documents"] if r is not mark), key=str) == sorted(kept, key=str)
        assert len(kept) == 3
        for old_row, new_row in zip(before["leases"], after["leases"], strict=True):
            assert (new_row["holder"], new_row["epoch"] > old_row["epoch"] + 999_999) == (None, True)
        for old_row, new_row in zip(before["crls"], after["crls"], strict=True):
            assert new_row["number"] > old_row["number"] + 999_999
            same = ("own_pem", "infra_pem", "ancestors_pem", "authority")
            assert [new_row[n] for n in same] == [old_row[n] for n in same]
        assert after["audit"][:-1] == before["audit"]
        told = after["audit"][-1]
        assert (told["event"], told["actor"]) == ("restored from a backup", f"backup {said.json['backup']}")
        # Rows that number themselves go on behind those that came.
        assert told["id"] == max(r["id"] for r in before["audit"]) + 1
        states = [(r["state"], r["sentence"][:11]) for r in after["content_jobs"]]
        assert states == [
            ("cancelled", "It was open"),
            *(("done", r["sentence"][:11]) for r in before["content_jobs"][1:]),
        ]
        lease = await Leases(other).acquire(before["leases"][0]["name"], "new", 5)
        assert lease is not None
        assert lease.epoch > after["leases"][0]["epoch"]


async def test_one_reading_sees_nothing_of_what_is_written_meanwhile(url: str) -> None:
    async with opened(Secret(url)) as store, opened(Secret(url)) as other:
        await store.prepare()
        async with store.whole(writing=False, limit_s=60) as reading:
            found = await copies.stored(reading)
            async with other.write("document") as uow:
                for name in ("documents", "audit"):
                    await copies.write(uow, name, odd_rows(metadata.tables[name]))
            for name in ("documents", "audit"):
                assert [r async for page in copies.rows(reading, found[name]) for r in page] == []
        assert len((await all_rows(store))["audit"]) == 3


@pytest.mark.parametrize("into", STORES)
def test_a_restore_that_is_killed_anywhere_is_completed_by_the_same_command(
    into: str, fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    old_directory, new_directory, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    old_directory.mkdir()
    at = tmp_path / "muster.age"
    with served.made(old_directory, fresh("sqlite", "old")) as old:
        killed = old.command(
            "backup", "--recipient", key.recipient, "--output", str(at), armed="backup.before-commit=kill"
        )
        assert (killed.code, at.exists()) == (-signal.SIGKILL, False)
        backed_up(old, key, at)
        lost(old, gone)
        with on_a_new_host(old, new_directory, fresh(into, "new"), gone) as new:
            arguments = ["restore", str(at), "--identity", str(key.file), *store_options(new.url, new_directory)]
            points = (
                "bundle.before-commit=kill", "bundle.after-commit=kill", "restored-file.before-commit=kill",
                "restored-file.after-commit=kill@2", "restored.before-commit=kill", "restored.after-commit=kill",
            )  # fmt: skip
            for point in points:
                said = new.command(*arguments, armed=point)
                assert said.code == -signal.SIGKILL, (point, str(said))
                # Nobody can start a member on half of it.
                assert not new.cluster_file.exists(), point
            again = new.command(*arguments, "--json")
            assert (again.code, again.json["store_is_done"]) == (0, True), str(again)
            once_more = new.command(*arguments, "--json")
            assert once_more.code == 0
            assert {f["state"] for f in once_more.json["files"]} == {"same"}
            new.start()
            assert signed_by_hand(new) == "signed"


@pytest.mark.parametrize("into", STORES)
async def test_of_two_restores_at_once_one_fills_the_store_and_neither_undoes_the_other(
    into: str, fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    old, new, at = fresh("postgresql", "old"), fresh(into, "new"), tmp_path / "muster.age"
    async with opened(Secret(old), migrate=False) as store, store.whole(writing=True, limit_s=60) as uow:
        await uow.connection.run_sync(schema.upgrade, timeout_s=60, to="0003")
        await copies.write(uow, "certificates", odd_rows(metadata.tables["certificates"], 3000))
    # What is there is of another revision, and so made anew by whoever comes first.
    await filled(new, {})
    with served.made(tmp_path, old, founded=False) as member:
        backed_up(member, key, at)
        options = [
            *store_options(new, tmp_path),
            "--cluster",
            str(tmp_path / "c2.yaml"),
            "--pki",
            str(tmp_path / "pki2"),
        ]
        command = ("restore", str(at), "--identity", str(key.file), *options)
        both = await asyncio.gather(*(asyncio.to_thread(member.command, *command) for _ in range(2)))
        assert 0 in {said.code for said in both}, [str(said) for said in both]
        last = member.command(*command, "--json")
        assert (last.code, last.json["store_is_done"]) == (0, True), str(last)
    async with opened(Secret(new), migrate=False) as store:
        assert len((await all_rows(store))["certificates"]) == 3000


def signed_by_hand(member: Served) -> str | None:
    assert member.submit("agent.kill.test", puppetca.agent("agent.kill.test").csr)[0] == 200
    assert member.change("agent.kill.test", "signed")[0] == 204
    return member.state("agent.kill.test")


async def test_a_store_that_holds_something_is_refused_and_nothing_is_changed(
    url: str, key: Key, tmp_path: Path
) -> None:
    at, directory = tmp_path / "muster.age", tmp_path / "new"
    directory.mkdir()
    await filled(url, {"wishes": odd_rows(metadata.tables["wishes"])})
    with served.made(tmp_path, url, founded=False) as member:
        backed_up(member, key, at)
        arguments = ["--identity", str(key.file), "--cluster", str(directory / "cluster.yaml"), "--elsewhere"]
        said = member.command("restore", str(at), *arguments, "--pki", str(directory / "pki"))
        assert (said.code, "holds something already (wishes 3)" in said.err) == (4, True), str(said)
        assert list(directory.iterdir()) == []
        # The same of a look beforehand, and none of either at who is asked for nothing.
        assert member.command("restore", str(at), *arguments, "--dry-run").code == 4
        assert member.command("restore", str(at), *arguments, "--inspect").code == 0


@pytest.mark.parametrize("prepared", [False, True], ids=["no schema", "an empty schema of now"])
@pytest.mark.parametrize("into", STORES)
async def test_a_backup_of_an_older_schema_is_loaded_at_its_revision_and_brought_forward(
    into: str, prepared: bool, fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    old, new, at = fresh("postgresql", "old"), fresh(into, "new"), tmp_path / "muster.age"
    row = odd_rows(metadata.tables["requests"])[0]
    of_then = {n: v for n, v in row.items() if n != "source"}
    async with opened(Secret(old), migrate=False) as store, store.whole(writing=True, limit_s=60) as uow:
        await uow.connection.run_sync(schema.upgrade, timeout_s=60, to="0003")
        assert await schema.revision_in(uow, "postgresql") == "0003"
        await copies.write(uow, "requests", [of_then])
    if prepared:
        await filled(new, {})
    with served.made(tmp_path, old, founded=False) as member:
        assert "schema 0003" in backed_up(member, key, at).out
        options = [
            *store_options(new, tmp_path),
            "--cluster",
            str(tmp_path / "c2.yaml"),
            "--pki",
            str(tmp_path / "pki2"),
        ]
        said = member.command("restore", str(at), "--identity", str(key.file), *options)
        assert said.code == 0, str(said)
    async with opened(Secret(old), migrate=False) as store, store.whole(writing=False, limit_s=60) as uow:
        # A backup changes nothing of what it is made of.
        assert await schema.revision_in(uow, "postgresql") == "0003"
    async with opened(Secret(new), migrate=False) as store:
        async with store.read() as uow:
            assert await schema.revision_in(uow, into) == schema.HEAD
        assert (await all_rows(store))["requests"] == [{**row, "source": ""}]


async def test_age_itself_opens_a_backup_and_what_age_made_is_opened(
    fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    """The format is age's: an administrator needs nothing of ours, and SSH keys do as well."""
    at, again, tar = tmp_path / "muster.age", tmp_path / "again.age", tmp_path / "opened.tar"
    ssh = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh)], check=True)
    url = fresh("sqlite", "store")
    await filled(url, {"wishes": odd_rows(metadata.tables["wishes"])})
    with served.made(tmp_path, url, founded=False) as member:
        backed_up(member, key, at, "--recipients-file", f"{ssh}.pub")
        assert at.stat().st_mode & 0o777 == 0o600
        for identity in (key.file, ssh):
            subprocess.run(["age", "-d", "-i", str(identity), "-o", str(tar), str(at)], check=True)
        listed = subprocess.run(["tar", "tvf", str(tar)], capture_output=True, text=True, check=True).stdout
        names = [line.split()[-1] for line in listed.splitlines()]
        assert (names[0], names[-1]) == ("MANIFEST.json", "SUMS.json")
        assert all(line.startswith("-rw------- root/root") for line in listed.splitlines())
        subprocess.run(
            ["tar", "xf", str(tar), "-C", str(tmp_path), "cluster.yaml", "store/wishes/000001.jsonl"], check=True
        )
        assert (tmp_path / "cluster.yaml").read_bytes() == member.cluster_file.read_bytes()
        assert len((tmp_path / "store/wishes/000001.jsonl").read_text().split("\n")) == 4
        # The other way: encrypted by age for both, opened by either.
        subprocess.run(["age", "-r", key.recipient, "-R", f"{ssh}.pub", "-o", str(again), str(tar)], check=True)
        for identity in (key.file, ssh):
            said = member.command("restore", str(again), "--identity", str(identity), "--inspect", "--json")
            assert (said.code, said.json["whole"], said.json["rows"]["wishes"]) == (0, True, 3), str(said)


def test_a_backup_through_a_pipe_is_the_same_and_a_broken_one_is_cut_off(
    fresh: Callable[[str, str], str], key: Key, tmp_path: Path
) -> None:
    at = tmp_path / "piped.age"
    with served.made(tmp_path, fresh("sqlite", "store")) as member:
        program = [
            sys.executable,
            "-m",
            "muster",
            "backup",
            "--cluster",
            str(member.cluster_file),
            "--pki",
            str(member.pki),
        ]
        with at.open("wb") as out:
            done = subprocess.run(
                [*program, "--recipient", key.recipient, "--output", "-"],
                stdout=out,
                stderr=subprocess.PIPE,
                check=True,
            )
        assert b"Wrote -: cluster kill" in done.stderr
        assert member.command("restore", str(at), "--identity", str(key.file), "--inspect").code == 0
        # Nobody listens: nothing was backed up, and that is no success.
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*program, "--recipient", key.recipient, "--output", "-"], stdout=writer, stderr=subprocess.PIPE
        )
        os.close(writer)
        assert (done.returncode, b"the backup is cut off" in done.stderr) == (4, True), done.stderr
        whole = at.read_bytes()
        at.write_bytes(whole[: len(whole) // 2])
        said = member.command("restore", str(at), "--identity", str(key.file), "--inspect")
        assert (said.code, "is damaged, or was copied in part" in said.err) == (4, True), str(said)
