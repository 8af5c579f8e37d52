"""Where the doctor has the Puppet CA's bundle from, on a host that is no member, too; and what it shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.app.offers import modelled
from muster.authority.ledger.ledger import Ledger
from muster.cli import muster
from muster.cli.doctor import _puppet_ca, shown
from muster.cluster.file import ClusterFile
from muster.doctor.matrix import Entrance, Prober
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import puppetca
from tests.unit.cli.terminal import CLEAN, EVIL, printed

pytestmark = pytest.mark.anyio


def cluster(store: Path) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "test",
            "address": "cluster.test",
            "store": {"url": f"sqlite:///{store}"},
            "members": [{"id": 1, "name": "proxy01.test", "address": "127.0.0.1"}],
            "authority": {},
        }
    )


@pytest.fixture
def pki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MUSTER_STATE", raising=False)
    monkeypatch.setattr("muster.cli.doctor._STATE", tmp_path / "no-state")
    (tmp_path / "pki").mkdir()
    return tmp_path / "pki"


def copied(pki: Path, text: str) -> Path:
    (pki / "puppet-ca").mkdir()
    (pki / "puppet-ca" / "ca_crt.pem").write_text(text)
    return pki / "puppet-ca" / "ca_crt.pem"


async def test_the_store_has_the_bundle_whatever_lies_on_this_host(tmp_path: Path, pki: Path) -> None:
    file = tmp_path / "store.db"
    async with opened(Secret(f"sqlite:///{file}")) as store:
        new = await puppetca.begin(store, tmp_path / "key")
        for _ in range(2):
            found = await _puppet_ca(cluster(file), pki, tmp_path)
            assert found is not None
            assert found.read_text() == new.issuer.chain_pem
            if not (pki / "puppet-ca").exists():
                copied(pki, puppetca.new_ca("Puppet CA: former").issuer.chain_pem)


async def test_without_the_store_a_members_copy_counts(tmp_path: Path, pki: Path) -> None:
    absent = cluster(tmp_path / "absent.db")
    assert await _puppet_ca(absent, pki, tmp_path) is None
    copy = copied(pki, "a bundle")
    assert await _puppet_ca(absent, pki, tmp_path) == copy


async def test_a_store_without_a_ca_has_no_bundle(tmp_path: Path, pki: Path) -> None:
    file = tmp_path / "store.db"
    async with opened(Secret(f"sqlite:///{file}")) as store:
        assert await Ledger(store, "test").chain() is None
        copied(pki, "a bundle of a CA that is no more")
        assert await _puppet_ca(cluster(file), pki, tmp_path) is None


async def test_a_puppet_ca_whose_bundle_nobody_knows_is_not_condemned(tmp_path: Path) -> None:
    balancing = modelled(cluster(tmp_path / "absent.db"))
    prober = Prober(balancing, tmp_path / "ca.pem", None, None, datetime.now(UTC), timeout_s=0.2, lacks_bundle=True)
    cells = await prober.cells([Entrance("balancer", "127.0.0.1", "through the balancer")])
    found = [c for c in cells if c.service == "puppetca"]
    assert [(c.path, c.ok, c.asked, c.findings) for c in found] == [
        ("proxy01.test", True, False, ()),
        ("balancer", True, False, ()),
    ]
    assert {c.words for c in found} == {"not asked: its bundle is unknown here"}


def test_the_doctors_findings_and_cells_are_shown_and_not_obeyed() -> None:
    entrance = {"path": "balancer", "host": "127.0.0.1", "words": "through the balancer"}
    found = {
        "cluster": "demo",
        "address": "proxy.test",
        "outside": None,
        "members": ["proxy01.test"],
        "entrances": [entrance],
        "healthy": False,
        "services": [{"name": "smartproxy", "listen_port": 9090}],
        "cells": [
            {
                "service": "smartproxy",
                "path": "proxy01.test",
                "asked": True,
                "ok": True,
                "words": f"version [/red]{EVIL}",
            }
        ],
        "findings": [{"code": "X", "severity": "error", "sentence": EVIL, "cause": EVIL, "remedy": EVIL}],
    }
    said = printed(shown(found))
    assert said.count(CLEAN) == 4
    assert f"ok version [/red]{CLEAN}" in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize("option", ["--balancer", "--outside"])
@pytest.mark.parametrize("host", ["a..b", "a" * 80 + ".x", "a\x1bb", ""])
def test_the_doctor_asks_only_hosts_that_can_be(option: str, host: str) -> None:
    said = CliRunner().invoke(muster, ["doctor", option, host, "--cluster", "/nowhere"])
    assert (said.exit_code, said.output.replace("\n", "").isprintable()) == (2, True)
