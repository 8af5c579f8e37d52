"""Root runs the commands, another account the services: what root writes, the account can read."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.app.offers import modelled
from muster.app.settings import loaded
from muster.balancer.checks import Here
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.version import HAProxyVersion
from muster.cli.certs import certs
from muster.doctor.examine import examined

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something under another account"),
]

# No account has these numbers; none needs to.
UID, GID = 12_345, 23_456
HAPROXY = Path("/usr/sbin/haproxy")
CLUSTER = """\
schema: 1
cluster: demo
address: proxy.example.com
store: {{url: "sqlite:///{home}/store.db"}}
members:
  - {{id: 1, name: proxy01.example.com, address: 127.0.0.11}}
  - {{id: 2, name: proxy02.example.com, address: 127.0.0.12}}
balancers:
  - {{name: lb, address: 127.0.0.10, bind: 127.0.0.10}}
services: {{puppet: {{enabled: false}}, puppetca: {{enabled: false}}}}
"""


@pytest.fixture
def home(needs: Callable[[str], None]) -> Iterator[Path]:
    """The account's directory, as packaging makes it; pytest's own is root's alone."""
    needs("haproxy")
    with tempfile.TemporaryDirectory(prefix="muster-account-") as directory:
        found = Path(directory)
        (found / "cluster.yaml").write_text(CLUSTER.format(home=found))
        (found / "run").mkdir(mode=0o700)
        found.chmod(0o750)
        for path in (found, *found.iterdir()):
            os.chown(path, UID, GID)
        yield found


def ran(home: Path, command: str, *arguments: str) -> None:
    result = CliRunner().invoke(certs, [command, "--cluster", str(home / "cluster.yaml"), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def said(home: Path, *arguments: str) -> str:
    return CliRunner().invoke(certs, ["verify", "--cluster", str(home / "cluster.yaml"), *arguments]).output


def as_account(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, user=UID, group=GID, extra_groups=[], capture_output=True, text=True, timeout=30, check=False
    )


def haproxy_as_account(home: Path) -> subprocess.CompletedProcess[str]:
    """What HAProxy, run by the account, thinks of the configuration whose check certificate lies there."""
    cluster = loaded(home / "cluster.yaml")
    text = rendered(
        modelled(cluster),
        which=cluster.balancers[0],
        runtime=RuntimePaths(home / "run", home / "pki" / "balancer"),
        version=HAProxyVersion(2, 6, 12),
    )
    config = home / "run" / "haproxy.cfg"
    config.write_text(text)
    (home / "run" / "servers.state").write_text("1\n")
    for path in (config, home / "run" / "servers.state"):
        os.chown(path, UID, GID)
    return as_account(HAPROXY, "-c", "-f", config)


async def found_by_doctor(home: Path) -> list[str]:
    cluster = loaded(home / "cluster.yaml")
    here = Here(cluster, modelled(cluster), home / "run", home / "pki", datetime.now(UTC), lambda _: 100_000)
    return [f.code for f in await examined([c for c in here.checks() if c.name == "check certificate"])]


def refuse_strangers(home: Path) -> None:
    for path in home.rglob("*"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (UID, GID) or path.is_symlink(), path
        if path.is_file():
            assert as_account("/usr/bin/test", "-r", path).returncode == 0, path


async def test_what_the_commands_write_as_root_is_the_services_to_read(home: Path) -> None:
    ran(home, "init")
    ran(home, "issue", "--all")
    ran(home, "issue", "--balancer")
    refuse_strangers(home)
    assert haproxy_as_account(home).returncode == 0
    ran(home, "issue", "--balancer")
    ran(home, "rotate", "--all")
    refuse_strangers(home)
    for step in ("trust-both", "reissue", "drop-old"):
        ran(home, "rotate", "--ca", "--step", step, "--no-look", "--settle", "0")
        refuse_strangers(home)
    found = haproxy_as_account(home)
    assert found.returncode == 0, found.stderr
    assert "Nothing is wrong" in said(home)
    assert await found_by_doctor(home) == []


async def test_a_key_that_root_kept_for_itself_is_named_and_issued_again_for_the_service(home: Path) -> None:
    ran(home, "init")
    ran(home, "issue", "--all")
    ran(home, "issue", "--balancer")
    key = (home / "pki" / "balancer" / "check.pem").resolve()
    os.chown(key, 0, 0)
    refusal = haproxy_as_account(home)
    assert refusal.returncode != 0
    assert "check.pem" in refusal.stderr
    assert f"FILE-READER: {UID} cannot read" in said(home)
    assert f"chown {UID}: {key}" in said(home)
    assert await found_by_doctor(home) == ["FILE-READER"]
    # Who runs the services may be another one than who owns the directory.
    assert "Nothing is wrong" in said(home, "--user", "root")
    assert f"{UID + 1} cannot read" in said(home, "--user", str(UID + 1))
    ran(home, "issue", "--balancer")
    assert haproxy_as_account(home).returncode == 0
    assert await found_by_doctor(home) == []


async def test_a_key_of_the_ca_that_root_keeps_to_itself_stays_root_s(home: Path) -> None:
    ran(home, "init")
    key = home / "pki" / "ca.key"
    os.chown(key, 0, 0)
    ran(home, "rotate", "--ca", "--step", "trust-both", "--no-look")
    private = list((home / "pki").rglob("*.key"))
    assert len(private) == 3
    assert {(p.stat().st_uid, p.stat().st_mode & 0o777) for p in private} == {(0, 0o600)}
