"""Who only reads, or asks what a change would be, makes no store, and leaves an older one as it is."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli import muster
from muster.pki.authority import ClusterCA
from tests.unit.cli.calls import CLUSTER

FEATURES = """\
features:
  tftp: {tftp_servername: 127.0.0.9}
  openscap: {}
  externalipam: {claims: {subnets: [{network: 192.0.2.0/24}]}}
authority: {}
content: {mirror: {repositories: {debian: {kind: deb, url: "http://127.0.0.1:1/", suites: [stable]}}}}
"""

COMMANDS = (
    "netboot files",
    "netboot status",
    "netboot boots",
    "netboot import {here} --dry-run",
    "netboot remove pxelinux.0 --dry-run",
    "explain 52:54:00:00:00:01",
    "explain host.test",
    "explain --boot 192.0.2.1",
    "ca list",
    "ca show host.test",
    "ca status",
    "ca audit",
    "ca export {here}/out --dry-run",
    "ca init --dry-run",
    "ca sign --all --dry-run",
    "openscap spool",
    "openscap remove aaaa --dry-run",
    "openscap retry --dry-run",
    "services list",
    "services add pulp@proxy01.test --weight functional --dry-run",
    "ipam list",
    "ipam release 192.0.2.1 --dry-run",
    "repairs list",
    "repairs retry --all --dry-run",
    "content status",
    "content jobs",
    "content publications",
    "content sync --all --dry-run",
    "parity",
    "status",
    "drain proxy01.test --dry-run",
    "add proxy03.test --address 127.0.0.13 --dry-run",
    "roll --forget --dry-run",
)


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))
    path = tmp_path / "cluster.yaml"
    path.write_text(
        CLUSTER.replace("puppetca: {{enabled: false}}, ", "").format(store=tmp_path / "store.db") + FEATURES
    )
    return path


def called(command: str, file: Path) -> object:
    words = [*command.format(here=file.parent / "here").split(), "--cluster", str(file)]
    done = CliRunner().invoke(muster, words, standalone_mode=False)
    # Of wrong usage nothing would be learnt.
    assert type(done.exception).__module__ != "click.exceptions", done.exception
    assert type(done.exception).__name__ not in ("InvalidSettings", "Misconfigured"), done.exception
    return done


@pytest.mark.parametrize("command", COMMANDS)
def test_no_store_is_made(cluster_file: Path, command: str) -> None:
    called(command, cluster_file)
    assert not (cluster_file.parent / "store.db").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "backup --dry-run"])
def test_no_store_is_brought_up_to_date(cluster_file: Path, command: str) -> None:
    with sqlite3.connect(cluster_file.parent / "store.db") as older:
        older.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        older.execute("INSERT INTO alembic_version VALUES ('0003')")
    older.close()
    called(command, cluster_file)
    with sqlite3.connect(cluster_file.parent / "store.db") as found:
        assert found.execute("SELECT name FROM sqlite_master").fetchall() == [("alembic_version",)]
        assert found.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
    found.close()
