"""The deb and the rpm: built here, installed into a bare Debian, and a member run from there on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.version import VERSION
from tests.servers.debian import ROOT, inside, run
from tests.servers.haproxy import free_ports
from tests.servers.postgresql import PASSWORD, PostgreSQL

SITE = "usr/lib/muster/lib/python3.11/site-packages"
ADDRESS = "127.0.0.96"
CLUSTER = """\
schema: 1
cluster: packaged
address: proxy.example.com
store: {{url: "{url}", password_file: /etc/muster/store.password}}
members:
  - {{id: 1, name: proxy01.example.com, address: {address}}}
services:
  smartproxy: {{member_port: {port}}}
  anaconda: {{enabled: false}}
  https: {{enabled: false}}
  http: {{enabled: false}}
  puppet: {{enabled: false}}
  puppetca: {{enabled: false}}
"""


@pytest.fixture(scope="module")
def deb(muster_packages: Path) -> Path:
    return next(muster_packages.glob("*.deb"))


@pytest.fixture(scope="module")
def rpm(muster_packages: Path) -> Path:
    return next(muster_packages.glob("*.rpm"))


@pytest.fixture(scope="module")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "-x", deb, to)
    return to


@pytest.fixture(scope="module")
def debian(bare_debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare Debian 12 to install into."""
    root = tmp_path_factory.mktemp("debian") / "root"
    run("cp", "--archive", bare_debian, root)
    return root


@contextlib.contextmanager
def serving(root: Path) -> Iterator[None]:
    """Run the member under its account; it is ready when ``muster status`` says so."""
    command = inside(root, "runuser", "-u", "muster", "--", "muster", "serve", "--member", "proxy01.example.com")
    log = root / "tmp" / "member.log"
    with log.open("wb") as out:
        member = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until = time.monotonic() + 60
        while subprocess.run(["chroot", root, "muster", "status"], capture_output=True, timeout=60).returncode != 0:
            assert member.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.3)
        yield
    finally:
        # unshare passes no other signal on; what is in there ends with it.
        member.kill()
        member.wait(30)


def names(listed: str) -> set[str]:
    return {line for line in listed.splitlines() if line.startswith("/")}


def test_the_packages_hold_what_the_lock_names_and_no_libpq_of_their_own(unpacked: Path) -> None:
    locked = {p["name"]: p["version"] for p in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    found = dict(
        re.match(r"(.+)-([^-]+)\.dist-info\Z", d.name).groups()  # type: ignore[union-attr,misc]
        for d in (unpacked / SITE).glob("*.dist-info")
    )
    assert len(found) > 30
    assert {n: v for n, v in found.items() if locked.get(n.lower().replace("_", "-")) != v} == {}
    assert found.keys() >= {"muster", "psycopg", "cryptography", "uvloop"}
    assert not any("psycopg_binary" in n or "hatchling" in n or "pytest" in n for n in found)
    assert list(unpacked.rglob("libpq*")) == []
    told = [p for p in unpacked.rglob("*") if p.name in ("direct_url.json", "RECORD", ".lock")]
    assert told == []
    assert str(ROOT).encode() not in b"".join(p.read_bytes() for p in (unpacked / SITE / "muster").rglob("*.pyc"))


def test_manual_pages_and_completion_are_where_they_are_looked_for(unpacked: Path) -> None:
    share = unpacked / "usr" / "share"
    assert {"muster.1.gz", "muster-drain.1.gz"} <= {p.name for p in (share / "man/man1").iterdir()}
    assert (share / "man/man5/muster-cluster.yaml.5.gz").exists()
    for file in (
        "bash-completion/completions/muster",
        "zsh/vendor-completions/_muster",
        "fish/vendor_completions.d/muster.fish",
    ):
        assert "_MUSTER_COMPLETE" in (share / file).read_text()


def test_every_library_names_its_licence(unpacked: Path) -> None:
    text = (unpacked / "usr/share/doc/muster/copyright").read_text()
    listed = re.findall(r"^  (\S+) \S+: (.+)$", text, re.MULTILINE)
    assert len(listed) == len([*(unpacked / SITE).glob("*.dist-info")]) - 1
    # What the licence of each says of copying stands beside it.
    assert {name for name, licence in listed if re.search(r"(?<!L)GPL", licence)} == set()


def test_both_packages_have_the_same_files(deb: Path, rpm: Path, unpacked: Path) -> None:
    of_deb = {f"/{p.relative_to(unpacked)}" for p in unpacked.rglob("*") if not p.is_dir() or p.is_symlink()}
    of_rpm = names(run("rpm", "-qlp", rpm))
    folders = {n for n in of_rpm if (unpacked / n[1:]).is_dir()} | {"/etc/muster"}
    assert of_rpm - folders == of_deb
    assert run("rpm", "-qp", "--qf", "%{VERSION}", rpm) == VERSION
    assert VERSION in run("dpkg-deb", "-f", deb, "Version")
    sums = dict(
        re.findall(r"^(\w{64})\s+\d* ?(\S+)$", run("rpm", "-qp", "--qf", "[%{FILEDIGESTS} %{FILENAMES}\n]", rpm), re.M)
    )
    wrong = [n for d, n in sums.items() if hashlib.sha256((unpacked / n[1:]).read_bytes()).hexdigest() != d]
    assert len(sums) > 1000
    assert wrong == []


def test_the_deb_installs_into_a_bare_debian_and_its_member_serves(
    debian: Path, deb: Path, postgresql_server: PostgreSQL
) -> None:
    shutil.copy(deb, debian / "tmp" / "muster.deb")
    # What dpkg's script would start is nothing, and has nobody to ask.
    run(
        *inside(
            debian, "sh", "-ec", "apt-get update -q && apt-get install -y -q --no-install-recommends /tmp/muster.deb"
        )
    )
    assert VERSION in run("chroot", debian, "muster", "--version")
    of_etc = (debian / "etc" / "muster").stat()
    account = run("chroot", debian, "id", "-u", "muster").strip()
    assert (str(of_etc.st_uid), of_etc.st_mode & 0o777) == (account, 0o750)
    implementation = "import psycopg; print(psycopg.pq.__impl__, psycopg.pq.version() > 0)"
    assert run("chroot", debian, "/usr/lib/muster/bin/python", "-I", "-c", implementation).strip() == "python True"
    for unit in (debian / "usr/lib/systemd/system").glob("muster-*.service"):
        started = re.findall(r"^Exec(?:Start|Reload)=(\S+)", unit.read_text(), re.MULTILINE)
        assert [s for s in started if not (debian / s[1:]).exists()] == []

    url = postgresql_server.fresh_database()
    (debian / "etc/muster/cluster.yaml").write_text(
        CLUSTER.format(url=re.sub(r":[^:@/]+@", "@", url), address=ADDRESS, port=free_ports(ADDRESS, 1)[0])
    )
    (debian / "etc/muster/store.password").write_text(f"{PASSWORD}\n")
    os.chown(debian / "etc/muster/store.password", int(account), -1)
    (debian / "etc/muster/store.password").chmod(0o600)
    run("chroot", debian, "muster", "config", "check", "/etc/muster/cluster.yaml")
    for made in (["init"], ["issue", "--all"], ["issue", "--balancer"]):
        run("chroot", debian, "muster", "certs", *made)
    with serving(debian):
        said = run("chroot", debian, "muster", "status", "--json", timeout_s=60)
        assert '"state": "ready"' in said
        # What the store had of it came through Debian's libpq.
        assert '"silent": false' in said


def test_what_is_removed_leaves_keys_and_state(debian: Path) -> None:
    said = run(*inside(debian, "sh", "-ec", "apt-get purge -y -q muster"))
    assert "/etc/muster stays" in said
    assert (debian / "etc/muster/pki/ca.key").exists()
    assert not (debian / "usr/lib/muster").exists()
    assert not (debian / "usr/bin/muster").exists()


def test_the_rpm_installs_below_a_root_and_verifies(debian: Path, rpm: Path) -> None:
    """Not run on EL: there is none here. Its scripts run in Debian's root; what it depends on is not looked for."""
    run("rpm", "--root", debian, "--initdb")
    shutil.rmtree(debian / "etc" / "muster")
    run("rpm", "--root", debian, "--install", "--nodeps", rpm)
    run("rpm", "--root", debian, "--verify", "--nodeps", "muster")
    assert VERSION in run("chroot", debian, "muster", "--version")
    account = run("chroot", debian, "id", "-u", "muster").strip()
    assert str((debian / "etc" / "muster").stat().st_uid) == account
    required = run("rpm", "-qp", "--requires", rpm)
    assert {"/usr/bin/python3.11", "libpq", "ca-certificates"} <= set(required.split())
    run("rpm", "--root", debian, "--erase", "muster")
    assert not (debian / "usr/lib/muster").exists()
