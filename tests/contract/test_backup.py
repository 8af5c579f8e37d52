"""A cluster backed up, lost, and restored on new hosts, on each store from each; age itself is the other side."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

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
            assert new.cluster_file.stat().st_mode & 0o777 == old_mode(gone)
            assert (new.pki / "puppet-ca" / "ca_key.pem").stat().st_mode & 0o777 == 0o600


def old_mode(gone: Path) -> int:
    return (gone / "cluster.yaml").stat().st_mode & 0o666
