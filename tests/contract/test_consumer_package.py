"""The package that hosts install, from two members on PostgreSQL, by real rpm, dnf and dpkg; removed, to the byte."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.content.consumer.contents import CA, PROGRAM, TOLD, Contents, File
from muster.content.consumer.deb import deb
from muster.content.consumer.rpm import rpm
from tests.servers import joining, member
from tests.servers.client import Answer, Place, ask
from tests.servers.joining import JoiningHost, ran, tree
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.postgresql import PostgreSQL
from tests.servers.waiting import is_ready, stopped, until

NAME = f"katello-ca-consumer-{CLUSTER_ADDRESS}"
RPM, DEB = "katello-ca-consumer-latest.noarch.rpm", "katello-ca-consumer-latest.deb"
RHSM_CONF = (
    "[server]\nhostname = subscription.rhsm.redhat.com\nproxy_password = sesame\n\n[rhsm]\nbaseurl = https://cdn\n"
)
# What the package changes, or could.
WATCHED = (
    "/etc/rhsm",
    "/usr/local/share/ca-certificates",
    "/etc/puppet",
    "/etc/apt/sources.list.d",
    "/usr/share/muster-client",
)


@dataclass(frozen=True)
class Cluster:
    """Two members; the second one has workers."""

    members: list[Member]
    port: int

    def get(self, at: int, name: str, method: str = "GET", **headers: str) -> Answer:
        """Ask where hosts do: the port of content."""
        one = self.members[at]
        place = Place(one.https.address, self.port)
        return ask(place, method, f"/pub/{name}", tls=one.tls(None), headers=headers)

    def version(self, at: int) -> str:
        answer = self.get(at, DEB)
        return _version(answer.body) if answer.status == 200 else ""

    def settled(self) -> str:
        """Return the version that all give."""
        until(lambda: self.version(0) == self.version(1) != "")
        return self.version(0)

    def start(self) -> None:
        for one in self.members:
            one.start()
        until(lambda: all(is_ready(one) for one in self.members))

    def change(self, **section: Any) -> None:
        """Start all members again with another cluster file, one after the other, as people do."""
        for one in self.members:
            stopped(one)
            said = yaml.safe_load(one.cluster_file.read_text())
            one.cluster_file.write_text(yaml.safe_dump({**said, **section}))
            one.start()
        until(lambda: all(is_ready(one) for one in self.members))


def _version(package: bytes) -> str:
    """Return the version that a deb says in its second member."""
    size = int(package[8 + 60 + 4 + 48 : 8 + 60 + 4 + 58])
    archive = package[8 + 60 + 4 + 60 :][:size]
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        control = opened.extractfile("./control")
        assert control is not None
        found = re.search(r"(?m)^Version: (\S+)-1$", control.read().decode())
    assert found
    return found[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgreSQL) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")

    def content(workers: int, _: str) -> dict[str, Any]:
        return {"workers": workers, "pulp_content_url": None, "pulp_api_url": None}

    members, ports = member.together(
        directory, [lambda a: content(1, a), lambda a: content(2, a)], "https", "http", foreman={}
    )
    url = postgresql_server.fresh_store()
    for one in members:
        said = yaml.safe_load(one.cluster_file.read_text())
        one.cluster_file.write_text(yaml.safe_dump({**said, "store": {"url": url}}))
    found = Cluster(members, ports["https"])
    with contextlib.ExitStack() as stack:
        for one in members:
            stack.callback(stopped, one)
        found.start()
        yield found


@pytest.fixture
def host(cluster: Cluster, tmp_path: Path, needs: Callable[[str], None]) -> Iterator[JoiningHost]:
    needs("namespaces")
    with joining.running(tmp_path / "host", {CLUSTER_ADDRESS: cluster.members[0].https.address}, "/usr/share") as one:
        shutil.rmtree(one.root / "etc/rhsm", ignore_errors=True)
        one.write("/etc/rhsm/rhsm.conf", RHSM_CONF, 0o640)
        yield one


def test_all_members_give_the_same_bytes_and_a_change_is_a_newer_package_on_all(
    cluster: Cluster, tmp_path: Path
) -> None:
    before = cluster.settled()
    for name in (RPM, DEB, f"{NAME}-{before}-1.noarch.rpm", f"{NAME}_{before}-1_all.deb"):
        one, other = cluster.get(0, name), cluster.get(1, name)
        assert (one.status, other.status) == (200, 200), name
        assert one.body == other.body, name
        assert one.headers["etag"] == other.headers["etag"], name
        head = cluster.get(1, name, "HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(one.body)))
        part = cluster.get(1, name, range="bytes=10-19", **{"if-range": one.headers["etag"]})
        assert (part.status, part.body) == (206, one.body[10:20])
        # Without TLS, too, as scripts ask for it.
        at = cluster.members[1].http
        assert ask(at, "GET", f"/pub/{name}").body == one.body
    first = cluster.get(0, RPM).body
    said = yaml.safe_load(cluster.members[0].cluster_file.read_text())
    cluster.change(aliases=["also.example.com"])
    number = int(before.partition(".")[2])
    assert cluster.settled() == f"1.{number + 1}"
    assert cluster.get(0, RPM).body == cluster.get(1, RPM).body != first
    # The old name is nobody's, and what was there before is newer than what came in between.
    assert cluster.get(0, f"{NAME}-{before}-1.noarch.rpm").status == 404
    cluster.change(aliases=said.get("aliases", []))
    assert cluster.settled() == f"1.{number + 2}"


def test_rpm_reads_and_believes_it(cluster: Cluster, tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("rpmbuild")
    version = cluster.settled()
    file = tmp_path / "it.rpm"
    file.write_bytes(cluster.get(0, RPM).body)
    said = ran("rpm", "-Kv", file)
    assert said.code == 0, said
    assert {line.rpartition(": ")[2] for line in said.text.splitlines()[1:]} == {"OK"}, said
    assert ran("rpm", "-qp", file).text == f"{NAME}-{version}-1.noarch\n"
    listed = ran("rpm", "-qplv", file).text
    assert [line.split()[-1] for line in listed.splitlines()] == ["/usr/share/muster-client", CA, PROGRAM, TOLD], listed
    assert {tuple(line.split()[2:4]) for line in listed.splitlines()} == {("root", "root")}, listed
    scripts = ran("rpm", "-qp", "--scripts", file).text
    assert re.findall(r"^(\w+) scriptlet", scripts, re.MULTILINE) == ["preuninstall", "posttrans"], scripts
    root = tmp_path / "root"
    root.mkdir()
    # Of another system, whose scripts do not run here.
    done = ran("rpm", "--root", root, "--nodeps", "--noscripts", "-U", file)
    assert done.code == 0, done
    assert ran("rpm", "--root", root, "--nodeps", "-V", NAME).code == 0
    assert (root / PROGRAM[1:]).read_bytes() == cluster.get(0, "muster-bootstrap").body
    assert (root / TOLD[1:]).read_bytes() == cluster.get(0, "muster-client.json").body
    assert (root / CA[1:]).read_bytes() == cluster.get(0, "muster-ca.pem").body


def _is_joined(cluster: Cluster, host: JoiningHost) -> None:
    rhsm = (host.root / "etc/rhsm/rhsm.conf").read_text()
    assert f"hostname = {CLUSTER_ADDRESS}\n" in rhsm
    assert f"baseurl = https://{CLUSTER_ADDRESS}:{cluster.port}/pulp/content" in rhsm
    assert "proxy_password = sesame\n" in rhsm
    ca = cluster.get(0, "muster-ca.pem").body
    assert (host.root / "etc/rhsm/ca/katello-server-ca.pem").read_bytes() == ca
    assert ca.strip() in (host.root / "etc/ssl/certs/ca-certificates.crt").read_bytes()


def _newer(contents: Contents) -> Contents:
    """The package of a cluster whose content is elsewhere."""
    files = tuple(File(f.path, f.text.replace("/pulp/content", "/pulp/repos"), f.mode) if f.path == TOLD else f
                  for f in contents.files)  # fmt: skip
    return Contents(contents.name, files, contents.replaces)


def _contents(cluster: Cluster) -> Contents:
    def text(name: str) -> str:
        return str(cluster.get(0, name).body.decode())

    files = (
        File(CA, text("muster-ca.pem")),
        File(PROGRAM, text("muster-bootstrap"), 0o755),
        File(TOLD, text("muster-client.json")),
    )
    return Contents(NAME, files, ("katello-ca-consumer-old.example.com",))


# A stand-in for what a single proxy has hosts install: it writes rhsm.conf, and brings back what was there before.
def _of_an_old_proxy() -> bytes:
    was = Contents(
        "katello-ca-consumer-old.example.com",
        (File("/usr/share/rhn/old-proxy", "old\n"),), (),
        installed="cp /etc/rhsm/rhsm.conf /etc/rhsm/rhsm.conf.kat-backup\necho '# of the old proxy' >>/etc/rhsm/rhsm.conf\n",
        removed="mv /etc/rhsm/rhsm.conf.kat-backup /etc/rhsm/rhsm.conf\n",
    )  # fmt: skip
    return rpm(was, "1.0", "5")


def test_a_host_installs_the_rpm_upgrades_it_and_is_as_before_without_it(
    cluster: Cluster, host: JoiningHost, needs: Callable[[str], None]
) -> None:
    needs("rpmbuild")
    before = tree(host.root, *WATCHED[:-1])
    (host.root / "var/tmp/old.rpm").write_bytes(_of_an_old_proxy())
    (host.root / "var/tmp/it.rpm").write_bytes(cluster.get(1, RPM).body)
    (host.root / "var/tmp/newer.rpm").write_bytes(rpm(_newer(_contents(cluster)), "1.1000"))

    installed = host.run("rpm", "--nodeps", "-U", "/var/tmp/it.rpm")
    assert installed.code == 0, installed
    _is_joined(cluster, host)
    assert tree(host.root, "/etc/puppet") == {p: s for p, s in before.items() if p.startswith("/etc/puppet")}
    upgraded = host.run("rpm", "--nodeps", "-U", "/var/tmp/newer.rpm")
    assert upgraded.code == 0, upgraded
    assert "/pulp/repos" in (host.root / "etc/rhsm/rhsm.conf").read_text()
    removed = host.run("rpm", "-e", NAME)
    assert removed.code == 0, removed
    assert tree(host.root, *WATCHED) == before

    # What a single proxy had made gives way, and what it brings back at its end is turned nevertheless.
    assert host.run("rpm", "--nodeps", "-U", "/var/tmp/old.rpm").code == 0
    assert "# of the old proxy" in (host.root / "etc/rhsm/rhsm.conf").read_text()
    (host.root / "var/tmp/instead.rpm").write_bytes(rpm(_contents(cluster), "1.1"))
    instead = host.run("rpm", "--nodeps", "-U", "/var/tmp/instead.rpm")
    assert instead.code == 0, instead
    assert host.run("rpm", "-qa", "katello-ca-consumer*").text == f"{NAME}-1.1-1.noarch\n"
    _is_joined(cluster, host)
    assert "# of the old proxy" not in (host.root / "etc/rhsm/rhsm.conf").read_text()


def test_the_package_of_an_address_that_was_gives_way(tmp_path: Path, needs: Callable[[str], None]) -> None:
    """Its number has grown, and its files have the names of this one's."""
    needs("rpmbuild")
    root = tmp_path / "root"
    was, now = "katello-ca-consumer-was.example.com", "katello-ca-consumer-is.example.com"
    for name, text, version, replaces in ((was, "was\n", "1.7", (now,)), (now, "is\n", "1.8", (was,))):
        file = tmp_path / f"{name}.rpm"
        file.write_bytes(rpm(Contents(name, (File(CA, text),), replaces), version))
        subprocess.run(
            ["rpm", "--root", root, "--nodeps", "--noscripts", "-U", file], check=True, capture_output=True, timeout=60
        )
    installed = subprocess.run(["rpm", "--root", root, "-qa"], check=True, capture_output=True, text=True, timeout=60)
    assert installed.stdout == f"{now}-1.8-1.noarch\n"
    assert (root / CA.lstrip("/")).read_text() == "is\n"
    subprocess.run(
        ["rpm", "--root", root, "--nodeps", "--noscripts", "-U", "--oldpackage", tmp_path / f"{was}.rpm"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (root / CA.lstrip("/")).read_text() == "was\n"


def test_a_host_installs_the_deb_upgrades_it_and_is_as_before_without_it(
    cluster: Cluster, host: JoiningHost, needs: Callable[[str], None]
) -> None:
    needs("apt")
    before = tree(host.root, *WATCHED[:-1])
    (host.root / "var/tmp/it.deb").write_bytes(cluster.get(1, DEB).body)
    newer = _newer(_contents(cluster))
    (host.root / "var/tmp/newer.deb").write_bytes(deb(newer, "1.1000"))
    elsewhere = Contents("katello-ca-consumer-other.example.com", newer.files, ())
    (host.root / "var/tmp/other.deb").write_bytes(deb(elsewhere, "1.1"))

    installed = host.run("dpkg", "-i", "/var/tmp/it.deb")
    assert installed.code == 0, installed
    _is_joined(cluster, host)
    upgraded = host.run("dpkg", "-i", "/var/tmp/newer.deb")
    assert upgraded.code == 0, upgraded
    assert "/pulp/repos" in (host.root / "etc/rhsm/rhsm.conf").read_text()
    # Of another cluster: that one alone, from then on.
    apt = (
        "apt-get",
        "-o",
        "APT::Sandbox::User=root",
        "-o",
        "Dir::Etc::sourcelist=/dev/null",
        "--no-install-recommends",
        "-y",
    )
    other = host.run(*apt, "install", "/var/tmp/other.deb")
    assert other.code == 0, other
    assert host.run("dpkg", "-l", NAME).text.splitlines()[-1][:2] != "ii", other
    removed = host.run("dpkg", "-r", "katello-ca-consumer-other.example.com")
    assert removed.code == 0, removed
    assert tree(host.root, *WATCHED) == before


def test_dnf_installs_it_by_its_address(cluster: Cluster, host: JoiningHost, needs: Callable[[str], None]) -> None:
    needs("dnf")
    version = cluster.settled()
    # Of an empty system nothing can run there; but what it needs has to be installed.
    shell = Contents("shell", (File("/bin/sh", "a shell\n"),), (), installed="", removed="")
    (host.root / "var/tmp/shell.rpm").write_bytes(rpm(shell, "1.1"))
    url = f"http://{CLUSTER_ADDRESS}:{cluster.members[0].http.port}/pub/{RPM}"
    said = host.run(
        "dnf", "--assumeyes", "--disablerepo=*", "--setopt=reposdir=/var/none", "--setopt=cachedir=/var/cache/joined",
        "--setopt=tsflags=noscripts", "--installroot=/var/joined", "--releasever=9", "--forcearch=x86_64", "install",
        "/var/tmp/shell.rpm", url,
    )  # fmt: skip
    assert said.code == 0, said
    assert host.run("rpm", "--root", "/var/joined", "-q", NAME).text == f"{NAME}-{version}-1.noarch\n"
