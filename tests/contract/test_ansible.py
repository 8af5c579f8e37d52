"""The Ansible collection on hosts that boot: a cluster from nothing, and another version under its clients."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from muster.version import VERSION
from tests import scale
from tests.servers import debian, hosts
from tests.servers.hosts import Host
from tests.servers.namespaces import DEVICE
from tests.servers.namespaces import Host as Place

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "packaging" / "ansible"
ADDRESS = "smartproxy.example.net"
PASSWORD = "not-for-messages"
DB_CA = "/etc/muster/db-ca.pem"
CLUSTER = f"""\
schema: 1
cluster: site
address: {ADDRESS}
store:
  url: postgresql://muster@db.example.net/muster?sslmode=verify-full&sslrootcert={DB_CA}
  password_file: /etc/muster/store.password
foreman: {{version: "5.0", trusted_hosts: [foreman.example.net]}}
members:
  - {{id: 1, name: proxy01.example.net, address: 10.231.8.12}}
  - {{id: 2, name: proxy02.example.net, address: 10.231.8.13}}
services:
  http: {{enabled: false}}
  https: {{enabled: false}}
  puppet: {{enabled: false}}
  puppetca: {{enabled: false}}
"""
VIRTUAL = "10.231.8.100"
BALANCERS = {
    1: "balancers:\n  - {name: lb1, address: 10.231.8.15}\n",
    2: (
        "balancers:\n  - {name: lb1, address: 10.231.8.15}\n  - {name: lb2, address: 10.231.8.16}\n"
        f"virtual_address: {{address: {VIRTUAL}/24, interface: {DEVICE}}}\n"
    ),
}[scale.UPGRADED_BALANCERS]
CONFIGURATION = """\
[defaults]
host_key_checking = False
retry_files_enabled = False
collections_path = {directory}/collections
collections_paths = {directory}/collections
local_tmp = {directory}/tmp
module_compression = ZIP_STORED
{strategy}
[ssh_connection]
pipelining = True
control_path_dir = {control}
"""
# Of Mitogen, which keeps a process at each host and sends modules there once: much less work than one process for each task.
REUSED = """\
strategy = mitogen_linear
strategy_plugins = {at}/ansible_mitogen/plugins/strategy
"""
# Its own /etc: the machine's below one that has hosts' names and room for /etc/muster.
AS_ADMINISTRATOR = """\
mount -t overlay overlay -o lowerdir="$0/etc:/etc" /etc
mount --bind "$0/muster" /etc/muster
cd "$0"
exec "$@"
"""
# One process for all calls: one of its own for each costs more than what it asks.
CALLS = """\
import contextlib, http.client, ssl, sys, time
tls = ssl.create_default_context(cafile="/etc/muster/pki/ca.pem")
while True:
    began, status, trouble = time.monotonic(), 0, ""
    connection = http.client.HTTPSConnection(sys.argv[1], 9090, timeout=20, context=tls)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/version", headers={"Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException) as e:
            trouble = repr(e)
    print(f"{status:03} {time.monotonic() - began:.3f} {trouble}", flush=True)
    time.sleep(0.05)
"""


@dataclass(frozen=True)
class Played:
    """What a playbook said."""

    status: int
    text: str

    def recap(self) -> dict[str, dict[str, int]]:
        """Return the counts by host."""
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", self.text, re.MULTILINE)
        return {host: {k: int(n) for k, n in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in lines}

    def changed(self) -> dict[str, int]:
        return {host: counts["changed"] for host, counts in self.recap().items()}


@dataclass(frozen=True)
class Administrator:
    """Whoever has the cluster file, the CA, Ansible, and a place on the segment."""

    directory: Path
    place: Place
    members: tuple[Host, Host]
    balancers: tuple[Host, ...]

    def command(self, *words: str | Path) -> list[str]:
        script = ["unshare", "--mount", "sh", "-ec", AS_ADMINISTRATOR, str(self.directory)]
        return self.place.command(*script, *words)

    def muster(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(Path(sys.executable).parent / "muster", *words), capture_output=True, text=True, timeout=120
        )

    def play(self, name: str, package: Path, *options: str) -> Played:
        told = {
            "muster_package": str(package),
            "muster_package_sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
        }
        words = ["ansible-playbook", "-i", "inventory.yml", f"muster.cluster.{name}", "-e", json.dumps(told), *options]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=900, env=environment, stdin=subprocess.DEVNULL
        )
        return Played(done.returncode, done.stdout + done.stderr)

    @contextmanager
    def calling(self) -> Iterator[list[str]]:
        """Have a client call all the time; what became of each call is there after the block."""
        told = self.directory / "calls"
        said: list[str] = []
        with told.open("wb") as out:
            client = subprocess.Popen(self.command(sys.executable, "-c", CALLS, ADDRESS), stdout=out)
        try:
            yield said
        finally:
            client.terminate()
            client.wait(30)
            said += told.read_text().splitlines()


def versions(host: Host, unit: str) -> tuple[str, str]:
    """Return which version is installed, and which one the unit's process is of."""
    installed = host.run("dpkg-query", "--show", "--showformat", "${Version}", "muster")
    log = host.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")
    served = re.findall(r"version=(\S+)", re.sub(r"\x1b\[[0-9;]*m", "", log))
    return installed, served[-1] if served else ""


@pytest.fixture(scope="module")
def packages(muster_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The deb, and the same with other versions."""
    (deb,) = muster_packages.glob("*.deb")
    to = tmp_path_factory.mktemp("repacked")
    tree = debian.unpacked(deb, to / "tree")
    return {
        "first": deb,
        "second": debian.repacked(tree, f"{VERSION}+2", to),
        "broken": debian.repacked(tree, f"{VERSION}+3", to, breaks=True),
        "mended": debian.repacked(tree, f"{VERSION}+4", to),
    }


@pytest.fixture(scope="module")
def collection(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the collection is installed, as it was built."""
    needs("ansible-inventory")
    to = tmp_path_factory.mktemp("collection")
    debian.run(ROOT / "scripts" / "collection", to)
    (built,) = to.glob("*.tar.gz")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(to)}
    subprocess.run(
        ["ansible-galaxy", "collection", "install", built, "--collections-path", to / "collections", "--offline"],
        check=True, capture_output=True, timeout=120, env=environment,
    )  # fmt: skip
    return to / "collections"


@pytest.fixture(scope="module")
def administrator(
    collection: Path,
    packages: dict[str, Path],
    debian_of_hosts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Administrator]:
    directory = tmp_path_factory.mktemp("administrator")
    names = ["proxy01.example.net", "proxy02.example.net", "db.example.net", "lb1.example.net", "lb2.example.net"]
    at = VIRTUAL if scale.UPGRADED_BALANCERS > 1 else "10.231.8.15"
    known = hosts.booted(debian_of_hosts, *names[: 3 + scale.UPGRADED_BALANCERS], also={ADDRESS: at})
    with known as (outside, (one, other, db, *balancers)):
        certificate = database(db)
        for made in ("etc/muster", "muster", "tmp", "group_vars"):
            (directory / made).mkdir(parents=True)
        (directory / "etc" / "hosts").write_text(one.run("cat", "/etc/hosts"))
        (directory / "muster" / "cluster.yaml").write_text(CLUSTER + BALANCERS)
        (directory / "muster" / "db-ca.pem").write_text(certificate)
        secret = directory / "muster" / "store.password"
        secret.write_text(f"{PASSWORD}\n")
        secret.chmod(0o600)
        (directory / "collections").symlink_to(collection)
        strategy = REUSED.format(at=mitogen(directory / "strategy")) if scale.REUSED_PROCESSES else ""
        (directory / "ansible.cfg").write_text(
            CONFIGURATION.format(directory=directory, control=directory / "tmp", strategy=strategy)
        )
        told = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(one.key),
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null",
            "ansible_python_interpreter": "/usr/bin/python3",
            "muster_wait_s": 60,
            "muster_files": [{"src": DB_CA, "dest": DB_CA}],
            "muster_secret_files": [{"src": "/etc/muster/store.password", "dest": "/etc/muster/store.password"}],
            "muster_environment": {"MUSTER_LOG": "text"},
        }
        (directory / "group_vars" / "all.yml").write_text(yaml.safe_dump(told))
        whoever = Administrator(directory, outside, (one, other), tuple(balancers))
        said = whoever.muster("render", "ansible", "--check", "--output", str(directory / "inventory.yml"))
        assert said.returncode == 0, said.stderr
        yield whoever


def mitogen(to: Path) -> Path:
    """Link Mitogen into a new directory and return that: Debian's Ansible imports it from there, and nothing else."""
    to.mkdir()
    for package in ("mitogen", "ansible_mitogen"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (to / package).symlink_to(Path(spec.origin).parent)
    return to


def database(host: Host) -> str:
    """Start PostgreSQL on a host as docs/admin/first-cluster.md has it, and return the certificate it shows."""
    data = "/var/lib/postgresql/server"
    host.run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "825", "-subj", f"/CN={host.name}"),
        *("-addext", f"subjectAltName=DNS:{host.name}", "-keyout", f"{data}.key", "-out", f"{data}.crt"),
    )
    host.run("chown", "postgres:postgres", f"{data}.key", f"{data}.crt")
    host.run(
        "sh", "-ec", "echo hostssl muster muster 10.231.8.0/24 scram-sha-256 >>/etc/postgresql/15/main/pg_hba.conf"
    )
    settings = (
        f"listen_addresses = '*'\nssl = on\nssl_cert_file = '{data}.crt'\nssl_key_file = '{data}.key'\nfsync = off\n"
    )
    host.put("/etc/postgresql/15/main/conf.d/muster.conf", settings)
    host.run("systemctl", "restart", "postgresql@15-main")
    host.run("runuser", "-u", "postgres", "--", "psql", "-v", "ON_ERROR_STOP=1", given=(
        f"CREATE ROLE muster LOGIN PASSWORD '{PASSWORD}';\nCREATE DATABASE muster OWNER muster;\n"
    ).encode())  # fmt: skip
    return host.run("cat", f"{data}.crt")


def played_here(tasks: list[dict[str, object]], directory: Path, **told: object) -> str:
    """Play tasks on this host, with the roles as they lie in the repository, and return what was said."""
    at = directory / "collections" / "ansible_collections" / "muster"
    if not at.exists():
        at.mkdir(parents=True)
        (at / "cluster").symlink_to(COLLECTION)
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    (directory / "play.yml").write_text(yaml.safe_dump(play))
    names = {"muster_members": {"hosts": {"Proxy01.example.net": {"muster_member": "Proxy01.example.net"}}}}
    (directory / "inventory.yml").write_text(yaml.safe_dump({"all": {"children": names}}))
    (directory / "told.yml").write_text(yaml.safe_dump(told))
    said = subprocess.run(
        ["ansible-playbook", "-i", "inventory.yml", "play.yml", "-e", "@told.yml"],
        cwd=directory, capture_output=True, text=True, timeout=120, check=False,
        env={
            "PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"), "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        },
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_certificates_of_a_name_with_capitals_are_found_where_they_are_kept(
    tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("ansible-inventory")
    # What it is asked for; directories of certificates have small letters.
    muster = tmp_path / "muster"
    muster.write_text(
        '#!/bin/sh\necho "$*" >>"$0.asked"\n[ "$2 $3" = "issue Proxy01.example.net" ] || exit 0\n'
        'mkdir -p "$7/members/proxy01.example.net" && touch "$7/members/proxy01.example.net/cert.pem"\n'
    )
    muster.chmod(0o755)
    for _ in range(2):
        played_here(
            [{"ansible.builtin.include_role": {"name": "muster.cluster.controller"}}],
            tmp_path,
            muster_command=str(muster),
            muster_cluster_file=str(tmp_path / "cluster.yaml"),
        )
    asked = (tmp_path / "muster.asked").read_text().splitlines()
    assert len([a for a in asked if a.startswith("certs issue Proxy01.example.net ")]) == 1


# What dpkg-query and rpm say, and which version is there then.
INSTALLED = {
    "ii 0.1.0": "0.1.0",
    # Held, so that nobody's upgrade of the host is one of the cluster.
    "hi 0.1.0": "0.1.0",
    "rc 0.1.0": "",
    "iF 0.1.0": "",
    "un ": "",
    "package muster is not installed": "",
    "": "",
}


@pytest.fixture(scope="module")
def understood(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> dict[str, str]:
    """Which version the role takes each of them for; one play asks for all, since each play takes seconds to start."""
    needs("ansible-inventory")
    tasks = yaml.safe_load((COLLECTION / "roles" / "install" / "tasks" / "look.yml").read_text())
    asked = tasks[-1]["ansible.builtin.set_fact"]["muster_version_there"]
    shown: list[dict[str, object]] = [
        {"ansible.builtin.debug": {"msg": f"<{asked}>"}, "vars": {"muster_installed_said": {"stdout": said}}}
        for said in INSTALLED
    ]
    played = played_here(shown, tmp_path_factory.mktemp("understood"))
    return dict(zip(INSTALLED, re.findall(r'"msg": "<(.*)>"', played), strict=True))


@pytest.mark.parametrize("said", INSTALLED)
def test_what_is_installed_is_known(said: str, understood: dict[str, str]) -> None:
    assert understood[said] == INSTALLED[said]


def test_ansible_lint_passes_its_strictest_profile(collection: Path, needs: Callable[[str], None]) -> None:
    needs("ansible-lint")
    installed = collection / "ansible_collections" / "muster" / "cluster"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collection), "HOME": str(collection)}
    said = subprocess.run(
        ["ansible-lint", "--offline", "--nocolor", "--profile", "production", "-c", COLLECTION / ".ansible-lint"],
        cwd=installed, capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Passed with production profile: 0 failure(s), 0 warning(s)" in said.stderr


@pytest.mark.proof
def test_a_cluster_comes_from_nothing(administrator: Administrator, packages: dict[str, Path]) -> None:
    foreseen = administrator.play("site", packages["first"], "--check")
    assert foreseen.status == 0, foreseen.text[-6000:]
    assert not (administrator.directory / "muster" / "pki").exists()
    assert administrator.members[0].tried("test", "-e", "/usr/bin/muster").returncode == 1
    played = administrator.play("site", packages["first"], "--diff")
    assert played.status == 0, played.text[-6000:]
    assert PASSWORD not in played.text
    assert "PRIVATE KEY" not in played.text
    said = administrator.muster("status", "--json")
    assert said.returncode == 0, said.stdout
    status = json.loads(said.stdout)
    assert [m["stands"] for m in status["members"]] == ["ready", "ready"]
    assert [b["said"]["silent"] for b in status["balancers"]] == [False] * scale.UPGRADED_BALANCERS
    for host, unit in ((administrator.members[0], "muster-member"), (administrator.balancers[0], "muster-balancer")):
        assert host.run("systemctl", "show", "--property=UnitFileState,NRestarts", "--value", unit).split() == [
            "0",
            "enabled",
        ]
    key = administrator.members[0].run("find", "/etc/muster", "-name", "*.key", "-o", "-name", "key.pem", "-ls")
    assert "ca.key" not in key
    assert re.search(r"-rw-------.* muster +muster .*/members/proxy01\.example\.net/key\.pem", key)
    assert administrator.members[0].run("stat", "-c", "%a %U", "/etc/muster/store.password").split() == [
        "600",
        "muster",
    ]


@pytest.mark.proof
def test_again_it_changes_nothing(administrator: Administrator, packages: dict[str, Path]) -> None:
    played = administrator.play("site", packages["first"])
    assert played.status == 0, played.text[-6000:]
    assert set(played.changed().values()) == {0}, played.text


@pytest.mark.proof
def test_who_is_needed_is_not_touched_and_who_somebody_wants_out_is_left_alone(
    administrator: Administrator, packages: dict[str, Path]
) -> None:
    out = administrator.members[1].name
    assert administrator.muster("maintenance", out, "--wait", "60").returncode == 0
    refused = administrator.play("upgrade", packages["second"], "--limit", "muster_members")
    assert refused.status != 0
    assert "There would be no ready member without proxy01.example.net" in refused.text
    alone = administrator.play("upgrade", packages["second"], "--limit", out)
    assert alone.status == 0, alone.text[-6000:]
    assert f"{out} is left alone: in maintenance, by" in alone.text
    assert [versions(h, "muster-member") for h in administrator.members] == [(VERSION, VERSION)] * 2
    assert administrator.muster("ready", out, "--wait", "60").returncode == 0


@pytest.mark.proof
def test_another_version_comes_under_a_client_that_notices_nothing(
    administrator: Administrator, packages: dict[str, Path]
) -> None:
    foreseen = administrator.play("upgrade", packages["second"], "--check", "--limit", "muster_members")
    assert foreseen.status == 0, foreseen.text[-6000:]
    assert [versions(h, "muster-member")[0] for h in administrator.members] == [VERSION, VERSION]
    with administrator.calling() as said:
        played = administrator.play("upgrade", packages["second"], "--limit", "muster_members")
    assert played.status == 0, played.text[-6000:]
    assert [line for line in said if not line.startswith("200 ")] == []
    assert len(said) > 50
    assert [versions(h, "muster-member") for h in administrator.members] == [(f"{VERSION}+2", f"{VERSION}+2")] * 2


@pytest.mark.proof
def test_balancers_follow_and_where_two_share_an_address_refuse_nobody(
    administrator: Administrator, packages: dict[str, Path]
) -> None:
    with administrator.calling() as said:
        played = administrator.play("upgrade", packages["second"])
    assert played.status == 0, played.text[-6000:]
    changed = played.changed()
    assert [changed[m.name] for m in administrator.members] == [0, 0]
    assert [versions(b, "muster-balancer")[0] for b in administrator.balancers] == [f"{VERSION}+2"] * len(
        administrator.balancers
    )
    assert all(changed[name] > 0 for name in changed if name.startswith("lb"))
    if len(administrator.balancers) > 1:
        assert [line for line in said if "refused" in line] == []
    assert administrator.muster("status").returncode == 0


@pytest.mark.proof
def test_a_member_that_does_not_come_back_stops_it_and_the_next_run_goes_on_there(
    administrator: Administrator, packages: dict[str, Path]
) -> None:
    first, second = administrator.members
    with administrator.calling() as said:
        played = administrator.play("upgrade", packages["broken"])
        assert played.status != 0
        assert re.search(r"proxy01\.example\.net did not come back \(Restart it: .*run the playbook again", played.text)
        assert "proxy02.example.net did not" not in played.text
        assert versions(first, "muster-member")[0] == f"{VERSION}+3"
        assert versions(second, "muster-member") == (f"{VERSION}+2", f"{VERSION}+2")
        stands = {
            m["name"]: m["life"]["state"]
            for m in json.loads(administrator.muster("status", "--json").stdout)["members"]
        }
        assert stands == {"proxy01.example.net": "drained", "proxy02.example.net": "ready"}
        played = administrator.play("upgrade", packages["mended"], "--limit", "muster_members")
        assert played.status == 0, played.text[-6000:]
    assert [line for line in said if not line.startswith("200 ")] == []
    assert [versions(h, "muster-member") for h in administrator.members] == [(f"{VERSION}+4", f"{VERSION}+4")] * 2
    assert administrator.muster("status").returncode == 0
