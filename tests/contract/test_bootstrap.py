"""A host joins, with real programs: update-ca-certificates, puppet, dnf, apt-get; it is killed, it takes all of it back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.cli.demo.bind import free_port
from muster.client import bootstrap
from muster.kernel.process import clean_environment
from muster.pki import bundles
from tests.servers import joining, member, origins, pythons
from tests.servers.client import Place, ask
from tests.servers.joining import PROGRAM, STEPS, JoiningHost, Said, ran, tree
from tests.servers.listener import Listener
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.packages import Package
from tests.servers.pythons import Python
from tests.servers.waiting import is_ready, stopped, until

ALPHA = Package("alpha")
ADDRESS = CLUSTER_ADDRESS
PUPPET_CONF = """\
# Of this host.
[main]
server = puppet.old.example
vardir = /var/lib/puppet
\tfactpath = $vardir/facter

[agent]
ca_port   =   8140
environment = production
"""
RHSM_CONF = """\
# Of this host.
[server]
hostname = subscription.rhsm.redhat.com
proxy_password = sesame

[rhsm]
baseurl = https://cdn.redhat.com
"""


@dataclass(frozen=True)
class Cluster:
    """Two members that mirror a repository of each kind; the second one has workers."""

    members: list[Member]
    port: int

    @property
    def server(self) -> str:
        return f"{ADDRESS}:{self.port}"

    @property
    def ca(self) -> Path:
        return self.members[0].ca

    @property
    def via(self) -> str:
        return f"--via={self.members[0].https.address}"

    def get(self, at: int, name: str, **more: Any) -> Any:
        one = self.members[at]
        return ask(Place(one.https.address, self.port), "GET", f"/pub/{name}", tls=one.tls(None), **more)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Iterator[Cluster]:
    needs("pulp")
    directory = tmp_path_factory.mktemp("cluster")
    files = directory / "origin"
    origins.yum(files / "yum", [ALPHA], revision=1)
    origins.deb(files / "deb", [ALPHA], revision=1, by_hash=True)

    def content(workers: int, _: str) -> dict[str, Any]:
        return {
            "workers": workers, "pulp_content_url": None, "pulp_api_url": None, "first_byte_timeout_s": 10, "hold_s": 3,
            "mirror": {"repositories": {
                "tools": {"kind": "yum", "url": plain.url("yum"), "policy": "immediate"},
                "debian": {"kind": "deb", "url": plain.url("deb"), "suites": ["stable"], "components": ["main"],
                    "policy": "immediate"},
            }, "timeout_s": 5},
        }  # fmt: skip

    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(origins.served(files))
        members, ports = member.together(
            directory, [partial(content, n) for n in (1, 2)], "https", "http", "puppet", "puppetca"
        )
        for one in members:
            # A Puppet CA that members do not answer for is some puppetserver's; here nobody asks it.
            said = yaml.safe_load(one.cluster_file.read_text())
            one.cluster_file.write_text(yaml.safe_dump({**said, "signer": members[0].name}))
            one.start()
            stack.callback(stopped, one)
        until(lambda: all(is_ready(one) for one in members))
        for name in ("tools", "debian"):
            done = subprocess.run(
                [sys.executable, "-m", "muster", "content", "sync", name, "--cluster", members[0].cluster_file, "--json"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        yield Cluster(members, ports["https"])


@pytest.fixture
def host(cluster: Cluster, tmp_path: Path, needs: Callable[[str], None]) -> Iterator[JoiningHost]:
    needs("namespaces")
    with joining.running(tmp_path / "host", {ADDRESS: cluster.members[0].https.address}) as one:
        # Whatever agent this machine has.
        for of_the_machine in ("etc/puppet", "var/lib/puppet", "etc/rhsm"):
            shutil.rmtree(one.root / of_the_machine, ignore_errors=True)
        one.write("/etc/puppet/puppet.conf", PUPPET_CONF, 0o640)
        one.write("/etc/rhsm/rhsm.conf", RHSM_CONF, 0o640)
        (one.root / "etc/yum.repos.d").mkdir(exist_ok=True)
        for others in (one.root / "etc/apt/sources.list.d").glob("*"):
            others.unlink()
        yield one


def test_all_members_serve_the_same(cluster: Cluster) -> None:
    names = ("muster-bootstrap", "muster-bootstrap.sha256", "muster-client.json", "muster-ca.pem", "katello-server-ca.crt",
             "muster.repo", "muster.sources")  # fmt: skip
    for name in names:
        one, other = (cluster.get(at, name) for at in range(2))
        assert one.status == 200, name
        assert one.body == other.body, name
        assert one.headers["etag"] == other.headers["etag"] == f'"sha256:{hashlib.sha256(one.body).hexdigest()}"', name
        assert cluster.get(1, name, headers={"If-None-Match": one.headers["etag"]}).status == 304, name
        # On the Smart Proxy's ports, too, of which the one without TLS is for whoever has a fingerprint.
        at = cluster.members[1]
        assert ask(at.https, "GET", f"/pub/{name}", tls=at.tls(None)).body == one.body, name
        assert ask(at.http, "GET", f"/pub/{name}").body == one.body, name
    assert cluster.get(0, "muster-bootstrap").body == PROGRAM.read_bytes()


def test_a_host_joins_by_real_programs_twice_and_takes_it_back(
    cluster: Cluster, host: JoiningHost, needs: Callable[[str], None]
) -> None:
    for program in ("puppet", "dnf", "apt"):
        needs(program)
    before = tree(host.root, "/etc", "/usr/local", "/var/lib/puppet")
    known_before = before["/etc/ssl/certs/ca-certificates.crt"]
    shown = host.join("--server", cluster.server, "--ca-file", cluster.ca, "--dry-run")
    assert shown.code == 0, shown
    assert "+server = proxy.example.com" in shown.text
    assert "would run update-ca-certificates" in shown.text
    assert "sesame" not in shown.text
    assert tree(host.root, "/etc", "/usr/local", "/var/lib/puppet") == before
    assert host.join("--server", cluster.server, "--ca-file", cluster.ca, "--check").code == 1

    joined = host.join("--server", cluster.server, "--ca-file", cluster.ca)
    assert joined.code == 0, joined
    expected = json.loads(cluster.get(0, "muster-client.json").body)["puppet"]
    said = host.run("puppet", "config", "print", *expected, "environment", "--section", "agent")
    read = dict(re.findall(r"^(\w+) = (\S+)$", said.text, re.MULTILINE))
    assert read == {**expected, "environment": "production"}, said
    file = host.root / "etc/puppet/puppet.conf"
    assert file.stat().st_mode & 0o777 == 0o640
    kept = [line for line in PUPPET_CONF.splitlines() if "server" not in line and "ca_port" not in line]
    assert [line for line in file.read_text().splitlines() if line in kept] == kept

    # Without a word of the CA: the host trusts it now.
    dnf = host.run("dnf", "--assumeyes", "--setopt=reposdir=/etc/yum.repos.d", "--setopt=cachedir=/var/cache/joined",
                   "--setopt=gpgcheck=0", "--installroot=/var/joined", "--releasever=9", "--forcearch=x86_64",
                   "install", "--downloadonly", "alpha")  # fmt: skip
    fetched = list((host.root / "var").rglob(ALPHA.rpm_name))
    assert [f.read_bytes() for f in fetched] == [ALPHA.rpm()], dnf
    sources = host.root / "etc/apt/sources.list.d/muster.sources"
    assert sources.read_bytes() == cluster.get(0, "muster.sources").body
    # Its Release is not signed, which hosts have to be told by hand.
    sources.write_text(sources.read_text() + "Trusted: yes\n")
    apt = host.run("sh", "-c", "apt-get -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null update && "
                   "cd /var/tmp && apt-get -o APT::Sandbox::User=root download alpha")  # fmt: skip
    assert (host.root / "var/tmp" / ALPHA.deb_name).read_bytes() == ALPHA.deb(), apt
    sources.write_bytes(cluster.get(0, "muster.sources").body)

    journals = sorted(p.name for p in (host.root / "var/lib/muster-bootstrap").iterdir())
    after = tree(host.root, "/etc", "/usr/local", "/var/lib/puppet")
    again = host.join("--server", cluster.server)
    assert (again.code, again.text) == (0, f"Nothing to do: this host is as {ADDRESS} wants it.\n")
    assert host.join("--server", cluster.server, "--check").code == 0
    assert tree(host.root, "/etc", "/usr/local", "/var/lib/puppet") == after
    assert sorted(p.name for p in (host.root / "var/lib/muster-bootstrap").iterdir()) == journals == ["0001.json"]

    undone = host.join("--undo")
    assert undone.code == 0, undone
    now = tree(host.root, "/etc", "/usr/local", "/var/lib/puppet")
    # What update-ca-certificates, and hooks of it that a machine may have, wrote anew is not ours; all else is as it was, to
    # the time.
    assert now["/etc/ssl/certs/ca-certificates.crt"][4] == known_before[4]
    assert not [p for p in now if p.startswith("/etc/ssl/certs/") and "muster" in p]
    assert {p: v for p, v in now.items() if not p.startswith("/etc/ssl/certs/")} == {
        p: v for p, v in before.items() if not p.startswith("/etc/ssl/certs/")
    }
    assert not (host.root / "var/lib/muster-bootstrap").exists()


def test_subscription_manager_is_told_by_its_own_command(cluster: Cluster, host: JoiningHost) -> None:
    """With a stand-in: Debian 12 has no subscription-manager."""
    host.write("/usr/local/sbin/subscription-manager", joining.SUBSCRIPTION_MANAGER, 0o755)
    rhsm = host.root / "etc/rhsm/rhsm.conf"
    before = tree(host.root, "/etc/rhsm")
    asked = ("--server", cluster.server, "--ca-file", cluster.ca, "--skip", "puppet,repositories")
    joined = host.join(*asked)
    assert joined.code == 0, joined
    values = json.loads(cluster.get(0, "muster-client.json").body)["rhsm"]
    calls = (host.root / "var/log/subscription-manager.calls").read_text().splitlines()
    told = [f"--{section}.{key}={value}" for section, keys in values.items() for key, value in keys.items()]
    assert calls == [" ".join(["config", *told])]
    assert f"hostname = {ADDRESS}" in rhsm.read_text()
    assert (host.root / "etc/rhsm/ca/katello-server-ca.pem").read_bytes() == cluster.get(
        0, "katello-server-ca.crt"
    ).body
    assert "Nothing to do" in host.join(*asked).text
    assert len((host.root / "var/log/subscription-manager.calls").read_text().splitlines()) == 1
    assert host.join("--undo").code == 0
    assert tree(host.root, "/etc/rhsm") == before


def test_an_activation_key_registers_by_subscription_manager(cluster: Cluster, host: JoiningHost) -> None:
    """With a stand-in, as above."""
    host.write("/usr/local/sbin/subscription-manager", joining.SUBSCRIPTION_MANAGER, 0o755)
    asked = (
        "--server",
        cluster.server,
        "--ca-file",
        cluster.ca,
        "-a",
        "k1,k2",
        "-o",
        "ACME",
        "--skip",
        "foreman,puppet",
    )
    assert host.join(*asked).code == 0
    # Left out by the word that bootstrap.py had for it.
    calls = host.root / "var/log/subscription-manager.calls"
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["config"]
    assert host.join(*asked[:-2]).code == 0
    assert calls.read_text().splitlines()[-1] == "register --org=ACME --activationkey=k1,k2"
    host.write("/etc/pki/consumer/cert.pem", "")
    said = host.join(*asked[:-2])
    assert "This host is registered already" in said.text
    assert "Nothing to do" in said.text


# --- Who is believed. ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with what a host has."""
    made = tmp_path / "root"
    for directory in (
        "etc/pki/ca-trust/source/anchors", "etc/rhsm", "etc/puppet", "etc/yum.repos.d", "etc/apt/sources.list.d", "var/lib",
    ):  # fmt: skip
        (made / directory).mkdir(parents=True)
    (made / "etc/puppet/puppet.conf").write_text(PUPPET_CONF)
    (made / "etc/rhsm/rhsm.conf").write_text(RHSM_CONF)
    (made / "etc/rhsm/rhsm.conf").chmod(0o640)
    os.utime(made / "etc/rhsm/rhsm.conf", ns=(1, 1_500_000_000_987_654_321))
    return made


def joined(
    cluster: Cluster, root: Path, *arguments: str | Path, python: Python | None = None, **variables: str
) -> Said:
    command = python.command if python is not None else (sys.executable,)
    return ran(*command, PROGRAM, "--server", cluster.server, cluster.via, "--root", root, *arguments, **variables)


def test_nothing_is_believed_of_whom_nobody_vouches_for(cluster: Cluster, root: Path) -> None:
    before = tree(root)
    said = joined(cluster, root)
    assert said.code == 2
    assert "is not believed: " in said.text
    assert "--ca-file FILE" in said.text
    other = member.made(root.parent / "other")
    wrong = joined(cluster, root, "--ca-file", other.ca)
    assert (wrong.code, "is not believed" in wrong.text) == (2, True), wrong
    digits = hashlib.sha256(ssl.PEM_cert_to_DER_cert(other.ca.read_text())).hexdigest()
    mistaken = joined(cluster, root, "--ca-fingerprint", digits)
    assert (mistaken.code, "offers no CA of the fingerprint" in mistaken.text) == (2, True), mistaken
    assert tree(root) == before


def test_a_fingerprint_is_enough_as_muster_certs_show_prints_it(cluster: Cluster, root: Path) -> None:
    shown = ran(sys.executable, "-m", "muster", "certs", "show", cluster.ca)
    matched = re.search(r"SHA-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})", shown.text)
    assert matched, shown
    said = joined(cluster, root, "--ca-fingerprint", matched[1])
    assert said.code == 0, said
    # From then on the host knows the CA itself.
    assert "Nothing to do" in joined(cluster, root).text


def test_whoever_answers_is_believed_when_that_is_asked_for_and_it_is_said(cluster: Cluster, root: Path) -> None:
    said = joined(cluster, root, "--insecure")
    assert said.code == 0, said
    digits = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cluster.ca.read_text())).hexdigest()
    assert f"Believed without proof (--insecure): the CA {bootstrap.readable(digits)}" in said.text
    # Not where there is proof.
    assert "without proof" not in joined(cluster, root, "--insecure").text


def test_a_member_tells_of_the_address(cluster: Cluster, root: Path) -> None:
    one = cluster.members[0]
    said = ran(sys.executable, PROGRAM, "--server", f"{one.name}:{cluster.port}", cluster.via, "--root", root,
               "--ca-file", cluster.ca)  # fmt: skip
    assert said.code == 0, said
    assert f"{one.name} is a member, or another name, of {ADDRESS}" in said.text
    assert one.name not in (root / "etc/puppet/puppet.conf").read_text()


def test_who_is_no_member_is_named_so(cluster: Cluster, root: Path, tmp_path: Path) -> None:
    one = member.made(tmp_path / "other")
    refused = ran(
        sys.executable, PROGRAM, "--server", ADDRESS, f"--via={one.https.address}:{one.https.port}", "--root", root
    )
    assert (refused.code, "cannot be reached at" in refused.text) == (2, True), refused


# --- What Foreman and Puppet answer: a stand-in, since neither is here. ---


@dataclass
class StandIn:
    """Shows a member's certificate, and answers what a member and Foreman behind it would.

    Attributes:
        script: what ``/register`` answers, with the status; ``cut`` bytes of it are missing.
        asked: path and Authorization of each call there.
    """

    address: str
    port: int
    ca: bytes
    script: bytes = b"#!/bin/sh\n"
    status: int = 200
    cut: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "muster_client": bootstrap.FORM, "address": ADDRESS, "rhsm": None,
            "puppet": {"server": ADDRESS, "ca_server": ADDRESS, "ca_port": str(self.port)},
            "repositories": {"dnf": None, "apt": None}, "register": f"https://{ADDRESS}:{self.port}/register",
        }  # fmt: skip

    @property
    def at(self) -> tuple[str | Path, ...]:
        return ("--server", f"{ADDRESS}:{self.port}", f"--via={self.address}")

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        path = call.path.partition("?")[0]
        status, body, cut = 200, b"", 0
        if path == bootstrap.DOCUMENT:
            body = json.dumps(self.document).encode()
        elif path == bootstrap.CA:
            body = self.ca
        elif path == "/register":
            self.asked.append((call.path, call.headers.get("Authorization", "")))
            status, body, cut = self.status, self.script, self.cut
        else:
            status = 404
        call.send_response(status)
        call.send_header("Content-Length", str(len(body)))
        call.end_headers()
        call.wfile.write(body[: len(body) - cut])
        call.close_connection = True


@pytest.fixture
def stand_in(cluster: Cluster) -> Iterator[StandIn]:
    one = cluster.members[0]
    it = StandIn("127.0.0.71", free_port("127.0.0.71"), cluster.ca.read_bytes())

    class Call(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            it.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    paths = bundles.paths(one.pki, "member", one.name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.certificate, paths.key)
    with Listener((it.address, it.port), Call, context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield it
        finally:
            server.shutdown()
            thread.join()


TOKEN = "eyJhbGciOiJIUzI1NiJ9.c2VzYW1l.x-Y_z"  # nobody's


def test_a_host_registers_by_foremans_script_and_the_token_is_nowhere(
    cluster: Cluster, stand_in: StandIn, host: JoiningHost
) -> None:
    """With a stand-in for Foreman: what it answers is a script that looks around."""
    stand_in.script = b"""#!/bin/sh
env >/var/tmp/environment
cat /proc/[0-9]*/cmdline | tr '\\0' ' ' >/var/tmp/commands
stat -c %a "$0" >/var/tmp/mode
echo "$0" >/var/tmp/name
echo registered
"""
    token = host.write("/etc/token", f"Bearer {TOKEN}\n", 0o600)
    asked = (*stand_in.at, "--ca-file", cluster.ca, "--register", "-o", "1", "-L", "2", "-g", "3", "-a", "k1,k2")
    shown = host.join(*asked, "--dry-run", "--token-file", "/etc/token")
    assert "would register: what GET https://proxy.example.com:" in shown.text, shown
    assert stand_in.asked == []
    without = host.join(*asked)
    assert (without.code, "--register needs Foreman's token" in without.text) == (2, True), without
    said = host.join(*asked, "--token-file", "/etc/token")
    assert said.code == 0, said
    assert "registered" in said.text
    path = "/register?organization_id=1&location_id=2&hostgroup_id=3&activation_keys=k1%2Ck2"
    assert stand_in.asked == [(path, f"Bearer {TOKEN}")]
    token.unlink()
    assert host.join(*asked, "--force", MUSTER_TOKEN=TOKEN).code == 0
    assert stand_in.asked[1] == (f"{path}&force=true", f"Bearer {TOKEN}")
    made = host.root / "var/tmp"
    assert (made / "mode").read_text() == "700\n"
    assert not (host.root / (made / "name").read_text().strip().lstrip("/")).exists()
    assert not list((host.root / "tmp").glob("muster-bootstrap-*"))
    journals = [p.read_text() for p in (host.root / "var/lib/muster-bootstrap").iterdir()]
    for text in (said.text, (made / "environment").read_text(), (made / "commands").read_text(), *journals):
        assert TOKEN not in text


def test_who_registers_later_takes_back_how_the_host_joined(
    cluster: Cluster, stand_in: StandIn, host: JoiningHost
) -> None:
    """A registration changes no file of ours, so there is nothing of it that --undo could bring back."""
    joins = (*stand_in.at, "--ca-file", cluster.ca)
    assert host.join(*joins).code == 0
    for status, code in ((503, 2), (200, 0)):
        stand_in.status = status
        said = host.join(*joins, "--register", MUSTER_TOKEN=TOKEN)
        assert said.code == code, said
    shown = host.join("--undo", "--dry-run")
    assert "would bring back /etc/puppet/puppet.conf" in shown.text, shown
    assert "would remove /usr/local/share/ca-certificates/muster-" in shown.text, shown
    assert "would run update-ca-certificates --fresh" in shown.text, shown
    assert host.join("--undo").code == 0
    assert (host.root / "etc/puppet/puppet.conf").read_text() == PUPPET_CONF
    assert not (host.root / "var/lib/muster-bootstrap").exists()


def test_who_takes_back_what_is_back_already_is_told_so(cluster: Cluster, stand_in: StandIn, host: JoiningHost) -> None:
    assert host.join(*stand_in.at, "--ca-file", cluster.ca, "--skip", "ca,rhsm").code == 0
    host.write("/etc/puppet/puppet.conf", PUPPET_CONF, 0o640)
    shown = host.join("--undo", "--dry-run")
    assert (shown.code, shown.text) == (0, "Every file is as it was before that run.\n")


def test_of_what_comes_with_a_fingerprint_that_one_ca_alone_is_believed(
    cluster: Cluster, stand_in: StandIn, root: Path, tmp_path: Path
) -> None:
    other = member.made(tmp_path / "other").ca
    stand_in.ca = cluster.ca.read_bytes() + other.read_bytes()
    before = tree(root)
    for ca, code in ((other, 2), (cluster.ca, 0)):
        digits = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca.read_text())).hexdigest()
        said = ran(sys.executable, PROGRAM, *stand_in.at, "--root", root, "--ca-fingerprint", digits)
        assert said.code == code, said
        assert code == 0 or ("is not believed" in said.text and tree(root) == before)


@pytest.mark.parametrize(
    ("otherwise", "words"),
    [
        ({"status": 401, "script": b"Unable to authenticate\n"}, "answers 401 (Unable to authenticate)"),
        ({"script": b"<html>"}, "answers 200 (<html>)"),
        ({"script": b"#!/bin/sh\ntouch /var/tmp/ran\n", "cut": 5}, "did not answer /register"),
        ({"script": b"#!/bin/sh\nexit 7\n"}, "The registration ended with status 7"),
    ],
)
def test_what_is_no_whole_script_is_not_run_and_one_that_fails_is_said(
    otherwise: dict[str, Any], words: str, cluster: Cluster, stand_in: StandIn, host: JoiningHost
) -> None:
    for name, value in otherwise.items():
        setattr(stand_in, name, value)
    said = host.join(*stand_in.at, "--ca-file", cluster.ca, "--register", "--skip", "ca", MUSTER_TOKEN=TOKEN)
    assert said.code == 2, said
    assert words in said.text
    assert not (host.root / "var/tmp/ran").exists()
    # All else is done, and is taken back.
    assert f"server = {ADDRESS}" in (host.root / "etc/puppet/puppet.conf").read_text()
    assert host.join("--undo").code == 0
    assert (host.root / "etc/puppet/puppet.conf").read_text() == PUPPET_CONF


def test_certificates_of_another_puppet_ca_are_said_and_put_aside_when_asked(
    cluster: Cluster, stand_in: StandIn, root: Path, tmp_path: Path
) -> None:
    other = member.made(tmp_path / "other").ca
    ssl_directory = root / "var/lib/puppet/ssl"
    (ssl_directory / "certs").mkdir(parents=True)
    known = ssl_directory / "certs/ca.pem"

    def run(*arguments: str) -> Said:
        return ran(sys.executable, PROGRAM, *stand_in.at, "--root", root, "--ca-file", cluster.ca, *arguments)

    # The stand-in's CA is the Puppet CA as well.
    known.write_bytes(cluster.ca.read_bytes())
    assert "Puppet CA" not in run("--new-puppet-ssl").text
    known.write_bytes(other.read_bytes())
    before = tree(root / "var/lib/puppet")
    said = run()
    assert "are of another Puppet CA than the one at proxy.example.com: this agent will be refused" in said.text
    assert tree(root / "var/lib/puppet") == before
    assert run("--new-puppet-ssl").code == 0
    assert not ssl_directory.exists()
    assert ran(sys.executable, PROGRAM, "--undo", "--root", root).code == 0
    assert tree(root / "var/lib/puppet") == before


def test_a_host_that_knows_a_single_proxy_is_turned_to_the_cluster_and_back(cluster: Cluster, root: Path) -> None:
    for path, text in {
        "etc/foreman_scap_client/config.yaml": ":server: puppet.old.example\n:port: 9090\n",
        "etc/pki/ca-trust/source/anchors/muster-puppet.old.example-01234567.pem": "of before\n",
    }.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    before = tree(root)
    said = ran(
        sys.executable, PROGRAM, "--new-address", cluster.server, cluster.via, "--root", root, "--ca-file", cluster.ca
    )
    assert said.code == 0, said
    texts = [v[4] for p, v in tree(root).items() if "muster-bootstrap" not in p]
    assert not [t for t in texts if b"old.example" in t]
    assert (root / "etc/foreman_scap_client/config.yaml").read_text() == f":server: {ADDRESS}\n:port: 9090\n"
    assert ran(sys.executable, PROGRAM, "--undo", "--root", root).code == 0
    assert tree(root) == before


# --- Killed, and under each Python. ---


def end_before(step: int, *arguments: str | Path, python: Python | None = None) -> Said:
    command = python.command if python is not None else (sys.executable,)
    return ran(*command, "-c", joining.ENDED, str(step), ",".join(STEPS), PROGRAM, *arguments)


def made_again(root: Path, kept: Path) -> None:
    subprocess.run(["rm", "-rf", root], check=True)
    subprocess.run(["cp", "--archive", kept, root], check=True)


def test_killed_at_every_step_it_goes_on_or_is_taken_back(cluster: Cluster, root: Path, tmp_path: Path) -> None:
    asked = ("--server", cluster.server, cluster.via, "--root", root, "--ca-file", cluster.ca)
    kept = tmp_path / "kept"
    subprocess.run(["cp", "--archive", root, kept], check=True)
    before = tree(root)
    assert joined(cluster, root, "--ca-file", cluster.ca).code == 0
    reference = {p: v for p, v in tree(root).items() if "muster-bootstrap" not in p}
    steps = 0
    while True:
        made_again(root, kept)
        ended = end_before(steps, *asked)
        if ended.code == 0:
            break
        assert ended.code == -9, ended
        steps += 1
        if steps % 2:
            taken = joined(cluster, root, "--undo")
            assert (taken.code, tree(root)) == (0, before), (steps, taken)
            continue
        again = joined(cluster, root, "--ca-file", cluster.ca)
        assert again.code == 0, (steps, again)
        now = {p: v for p, v in tree(root).items() if "muster-bootstrap" not in p}
        assert bytes_of(now) == bytes_of(reference), steps
        assert [p.name for p in (root / "var/lib/muster-bootstrap").iterdir()] == ["0001.json"], steps
        # Taking it back is killed as well.
        end_before(steps // 2, *asked, "--undo")
        taken = joined(cluster, root, "--undo")
        assert (taken.code, tree(root)) == (0, before), (steps, taken)
    assert steps > 15


def bytes_of(found: dict[str, tuple[int, int, int, int, bytes]]) -> dict[str, tuple[int, int, int, bytes]]:
    return {p: (mode, uid, gid, content) for p, (mode, uid, gid, _, content) in found.items()}


def test_killed_beside_subscription_manager_it_goes_on_or_is_taken_back(cluster: Cluster, host: JoiningHost) -> None:
    """With a stand-in, as above."""
    host.write("/usr/local/sbin/subscription-manager", joining.SUBSCRIPTION_MANAGER, 0o755)
    before = tree(host.root, "/etc/rhsm")
    asked = ("--server", cluster.server, "--ca-file", cluster.ca, "--skip", "ca,puppet,repositories")
    for step in range(0, 40, 2):
        ended = host.run(sys.executable, "-c", joining.ENDED, str(step), ",".join(STEPS), PROGRAM, *asked)
        if step % 4:
            again = host.join(*asked)
            assert again.code == 0, (step, again)
            assert f"hostname = {ADDRESS}" in (host.root / "etc/rhsm/rhsm.conf").read_text()
        taken = host.join("--undo")
        assert (taken.code, tree(host.root, "/etc/rhsm")) == (0, before), (step, taken)
        assert not (host.root / "var/lib/muster-bootstrap").exists(), step
        if ended.code == 0:
            break
    assert ended.code == 0


@pytest.mark.parametrize("python", pythons.found(), ids=str)
def test_it_runs_under_the_pythons_that_hosts_have(cluster: Cluster, root: Path, python: Python) -> None:
    program: Path = PROGRAM
    with contextlib.ExitStack() as stack:
        where, ca, sees = root, cluster.ca, ""
        if python.root is not None:
            # It sees the tree of its suite alone.
            sees = str(python.root)
            where = python.root / "joining"
            subprocess.run(["rm", "-rf", where], check=True)
            subprocess.run(["cp", "--archive", root, where], check=True)
            stack.callback(shutil.rmtree, where)
            program, ca = where / "program", where / "ca.pem"
            program.write_bytes(PROGRAM.read_bytes())
            ca.write_bytes(cluster.ca.read_bytes())
        host = where / "etc"
        before = tree(host)

        def run(*arguments: str) -> Said:
            words = [str(w).removeprefix(sees) for w in (program, "--root", where, "--ca-file", ca)]
            return ran(
                *python.command, "-W", "error", *words, "--server", cluster.server, cluster.via, *arguments, LC_ALL="C"
            )

        shown = run("--dry-run")
        assert shown.code == 0, shown
        assert tree(host) == before
        said = run()
        assert said.code == 0, said
        assert f"server = {ADDRESS}" in (where / "etc/puppet/puppet.conf").read_text()
        assert "Nothing to do" in run().text
        refused = ran(*python.command, str(program).removeprefix(sees), "--server", cluster.server, cluster.via,
                      "--check", "--ca-fingerprint", "00" * 32)  # fmt: skip
        assert (refused.code, "offers no CA of the fingerprint" in refused.text) == (2, True), refused
        assert run("--undo").code == 0
        assert tree(host) == before
        assert ran(*python.command, str(program).removeprefix(sees), "--help").code == 0
