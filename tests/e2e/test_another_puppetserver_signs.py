"""The signer is lost; a copy of its CA on another member, promoted behind a balancer, signs on and revokes no less."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from muster.authority.moves.directory import read_directory
from muster.authority.x509 import profile
from muster.cli.demo.bind import free_port
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers import puppetserver
from tests.wire import golden as recordings

pytestmark = pytest.mark.anyio

OLD, NEW = "proxy01.example.net", "proxy02.example.net"
OLD_ADDRESS, NEW_ADDRESS, CLUSTER_ADDRESS = "127.0.0.41", "127.0.0.42", "127.0.0.43"
LATE_SERIAL = 0x0E


@dataclass(frozen=True)
class Site:
    """Two members with puppetservers of their own, the first of which is gone, and a balancer."""

    home: Path
    golden: Path
    listen_port: int
    member_port: int

    @property
    def cluster_file(self) -> Path:
        return self.home / "cluster.yaml"

    @property
    def cadir(self) -> Path:
        return self.home / "server" / "ca"

    def muster(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "muster", *arguments, "--cluster", str(self.cluster_file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def promote(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        said = self.muster("ca", "promote", *arguments, "--json")
        return said.returncode, json.loads(said.stdout or "{}"), said.stderr

    @contextlib.contextmanager
    def balancer(self) -> Iterator[None]:
        with (self.home / "balance.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "muster", "balance", "--cluster", str(self.cluster_file),
                 "--run", str(self.home / "run")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                yield
            finally:
                process.terminate()
                process.wait(30)

    def ask(self, method: str, path: str, wish: str | None = None) -> tuple[int, Any]:
        """Ask the CA through the balancer, as an administrator."""
        tls = self.golden / "tls"
        context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(tls / "cli.pem", tls / "cli.key")
        connection = HTTPSConnection(CLUSTER_ADDRESS, self.listen_port, timeout=30, context=context)
        body = json.dumps({"desired_state": wish}) if wish else None
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, f"/puppet-ca/v1/{path}", body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith(("[", "{")) else text


@pytest.fixture
def site(tmp_path: Path, needs: Callable[[str], None]) -> Site:
    needs("puppetserver")
    needs("haproxy")
    found = Site(
        tmp_path,
        recordings.directory("puppet-ca"),
        free_port(CLUSTER_ADDRESS),
        free_port(NEW_ADDRESS),
    )
    ca = ClusterCA.create(tmp_path / "pki", "promoted", now=datetime.now(UTC))
    write(ca.issue(BundleRequest("balancer", "balancer"), now=datetime.now(UTC)), tmp_path / "pki")
    found.cluster_file.write_text(
        "# Ours\n"
        + yaml.safe_dump(
            {
                "schema": 1,
                "cluster": "promoted",
                "address": "puppet.example.net",
                "store": {"url": f"sqlite:///{tmp_path}/store.db"},
                "foreman": {"url": "https://foreman.example.net", "trusted_hosts": ["foreman.example.net"]},
                "members": [
                    {"id": 1, "name": OLD, "address": OLD_ADDRESS, "kind": "foreman"},
                    {"id": 2, "name": NEW, "address": NEW_ADDRESS, "kind": "foreman"},
                ],
                "balancers": [{"name": "lb", "address": CLUSTER_ADDRESS, "bind": CLUSTER_ADDRESS}],
                "generation": "installer",
                "services": {
                    **{n: {"enabled": False} for n in ("http", "https", "anaconda", "puppet", "smartproxy")},
                    "puppetca": {"listen_port": found.listen_port, "member_port": found.member_port},
                },
                "signer": OLD,
            },
            sort_keys=False,
        )
        + "# The end\n"
    )
    return found


def newer_list(site: Site) -> Path:
    """A list that the old signer made after the copy: one more is revoked, and the number has grown by two."""
    found = read_directory(site.golden / "cadir-sample", now=datetime.now(UTC))
    assert found.key is not None
    now = datetime.now(UTC)
    pairs = [*found.revoked.items(), (LATE_SERIAL, now)]
    made = profile.signed_list(found.issuer, found.key, pairs, number=found.number + 2, now=now, ttl=timedelta(days=9))
    path = site.home / "crl.pem"
    path.write_text(profile.pem_of(made))
    return path


def back_again(site: Site) -> None:
    """Try to make the old member signer again while the new one signs, or listens and says nothing."""
    into = site.home / "never"
    text = site.cluster_file.read_text()
    wrong = site.muster("ca", "promote", OLD, "--copy", str(site.home), "--into", str(into))
    assert (wrong.returncode != 0, "ca_crt.pem" in wrong.stderr) == (True, True), wrong
    code, stopped, _ = site.promote(OLD, "--copy", str(site.golden / "cadir-sample"), "--into", str(into))
    assert (code, stopped["stopped_at"]) == (4, "fence"), stopped
    assert "still answers as a Puppet CA" in stopped["sentence"]
    assert site.muster("ca", "promote", "--forget").returncode == 0
    assert (into.exists(), site.cluster_file.read_text()) == (False, text)


def test_a_signer_that_listens_and_says_nothing_may_sign_in_a_minute(site: Site) -> None:
    with contextlib.closing(socket.create_server((OLD_ADDRESS, site.member_port))):
        sample = str(site.golden / "cadir-sample")
        code, stopped, _ = site.promote(NEW, "--copy", sample, "--into", str(site.cadir))
    assert (code, stopped["stopped_at"]) == (4, "fence")
    assert "whether it signs is unknown" in stopped["sentence"]
    assert not site.cadir.exists()


async def test_it_stops_resumes_and_signs_behind_the_gap(site: Site) -> None:
    sample = site.golden / "cadir-sample"
    before = site.cluster_file.read_text()
    site.cadir.mkdir(parents=True)
    (site.cadir / "mine").write_text("what was there")
    wish = (NEW, "--copy", str(sample), "--into", str(site.cadir), "--crl", str(newer_list(site)))
    code, planned, told = site.promote(*wish, "--dry-run")
    assert planned, told
    assert (code, len(planned["steps"]), planned["ca"]["next_serial"], planned["ca"]["crl_number"]) == (0, 5, 0x100D, 6)
    assert (site.cadir / "mine").exists()
    code, stopped, _ = site.promote(*wish, "--wait", "1")
    assert (code, stopped["stopped_at"]) == (4, "start"), stopped
    assert "no Puppet CA answers after 1 s" in stopped["sentence"]
    assert site.cluster_file.read_text() == before
    (aside,) = site.cadir.parent.glob("ca.before-*")
    assert (aside / "mine").read_text() == "what was there"
    assert site.muster("ca", "promote", *wish).returncode != 0, "the first has not ended"
    with (
        puppetserver.running(site.cadir.parent, certname=NEW, address=NEW_ADDRESS, port=site.member_port),
        site.balancer(),
    ):
        code, done, told = site.promote("--resume", "--wait", "60")
        # One text, which is shown whole.
        assert (code, done["done"]) == (0, True), f"{done}\n{told}\n{(site.home / 'balance.log').read_text()}"
        assert site.cluster_file.read_text() == before.replace(f"signer: {OLD}", f"signer: {NEW}")
        status, listed = site.ask("GET", "certificate_statuses/all")
        assert (status, {"pend-plain.example.net"} <= {r["name"] for r in listed}) == (200, True)
        assert site.ask("PUT", "certificate_status/pend-plain.example.net", "signed")[0] == 204
        # The new signer's own certificate took the first number behind the gap.
        assert site.ask("GET", "certificate_status/pend-plain.example.net")[1]["serial_number"] >= 0x100D
        assert site.ask("PUT", "certificate_status/pend-plain.example.net", "revoked")[0] == 204
        crl = x509.load_pem_x509_crl(site.ask("GET", "certificate_revocation_list/ca")[1].encode())
        assert profile.list_number(crl) == 7
        assert {5, 0x0B, 0x0C, LATE_SERIAL} < {r.serial_number for r in crl}
        back_again(site)
    assert site.promote("--resume")[0] != 0, "there is none any more"
