"""muster-bootstrap: what it makes of files, options, and of what it is told; no cluster, and no host but a tree of files."""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.client import bootstrap
from muster.client.bootstrap import Change, Host, Journal, Members, Plan, Told, Trouble, merged, puppet_keys, rhsm_keys
from muster.kernel.clock import FakeClock
from muster.pki.authority import ClusterCA, ca_paths

ADDRESS = "cluster.test"
PUPPET = {"server": ADDRESS, "ca_server": ADDRESS, "ca_port": "8141"}
RHSM = {
    "server": {"hostname": ADDRESS, "port": "443", "prefix": "/rhsm"},
    "rhsm": {"baseurl": f"https://{ADDRESS}/pulp/content", "repo_ca_cert": bootstrap.RHSM_CA},
}


def puppet(text: str, **also: str) -> str:
    return merged(text, puppet_keys({**PUPPET, **also}), headless="main")


def rhsm(text: str) -> str:
    return merged(text, rhsm_keys(RHSM), delimiters="=:")


# --- Files of settings. ---


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[main]\nserver = {0}\nca_server = {0}\nca_port = 8141\n"),
        ("# a\n", "# a\n\n[main]\nserver = {0}\nca_server = {0}\nca_port = 8141\n"),
        (
            "[main]\nvardir = /v\n\n# b\n[agent]\nreport = true\n",
            "[main]\nvardir = /v\nserver = {0}\nca_server = {0}\nca_port = 8141\n\n# b\n[agent]\nreport = true\n",
        ),
        # Where they stand they are set, in every section that agents read; servers' own stay.
        (
            "[server]\nserver=s\n[agent]\n  server=old  \nca_port=1\n[main]\n# server = c\nserver\t=\told\nserver = twice\n",
            "[server]\nserver=s\n[agent]\n  server={0}  \nca_port=8141\n[main]\n# server = c\nserver\t=\t{0}\nserver = {0}\n"
            "ca_server = {0}\n",
        ),
        # What stands before the first section is of [main].
        ("server = old\n[agent]\na = b\n", "server = {0}\nca_server = {0}\nca_port = 8141\n[agent]\na = b\n"),
        # Puppet has no comment behind a value.
        ("server = old # c\n", "server = {0}\nca_server = {0}\nca_port = 8141\n"),
        ("[main]\nserver = old", "[main]\nserver = {0}\nca_server = {0}\nca_port = 8141\n"),
        (
            "[main]\r\nserver = old\r\n[agent]\r\n",
            "[main]\r\nserver = {0}\r\nca_server = {0}\r\nca_port = 8141\r\n[agent]\r\n",
        ),
        # A port that was another proxy's is not the cluster's; one that is the standard one needs no word.
        ("masterport = 8150\n", "masterport = 8140\nserver = {0}\nca_server = {0}\nca_port = 8141\n"),
        ("x = \xe4\xff\x85\x0c\n", "x = \xe4\xff\x85\x0c\nserver = {0}\nca_server = {0}\nca_port = 8141\n"),
        (
            "serverx = a\nca_servers = b\n",
            "serverx = a\nca_servers = b\nserver = {0}\nca_server = {0}\nca_port = 8141\n",
        ),
    ],
)
def test_of_puppet_conf_four_keys_are_set_and_every_other_byte_stays(before: str, after: str) -> None:
    found = puppet(before)
    assert found == after.replace("{0}", ADDRESS)
    assert puppet(found) == found


def test_a_port_of_the_cluster_that_is_not_the_standard_one_is_added() -> None:
    assert puppet("", serverport="8240").splitlines()[1:3] == [f"server = {ADDRESS}", "serverport = 8240"]
    assert puppet("[agent]\nmasterport=1\n", serverport="8240").startswith("[agent]\nmasterport=8240\n")


def test_of_rhsm_conf_five_keys_are_set() -> None:
    before = (
        "# c\n[server]\n# hostname = x\nhostname = old\nport: 8443\nproxy_password =\n"
        "[rhsm]\nca_cert_dir = /etc/rhsm/ca/\n"
    )
    after = rhsm(before)
    assert after == (
        f"# c\n[server]\n# hostname = x\nhostname = {ADDRESS}\nport: 443\nproxy_password =\nprefix = /rhsm\n[rhsm]\n"
        f"ca_cert_dir = /etc/rhsm/ca/\nbaseurl = https://{ADDRESS}/pulp/content\nrepo_ca_cert = {bootstrap.RHSM_CA}\n"
    )
    assert rhsm(after) == after


# --- The options. ---


def options(*arguments: str) -> argparse.Namespace:
    return bootstrap.parsed(["--server", ADDRESS, *arguments])


def test_what_bootstrap_py_called_so_is_called_so() -> None:
    # docs/facts/deployment.md §4.1
    short = bootstrap.parsed(
        ["-s", "a.test", "-a", "k", "-o", "O", "-L", "L", "-g", "G", "-f", "--puppet-ca-port", "8141"]
    )
    assert (short.server, short.activationkey, short.organization, short.location) == (("a.test", None), "k", "O", "L")
    assert (short.hostgroup, short.force, short.puppet_ca_port) == ("G", True, 8141)


@pytest.mark.parametrize("given", ["puppet", "puppet,rhsm", "foreman", "register", "katello-agent"])
def test_steps_are_skipped_by_their_words_and_by_those_that_were(given: str) -> None:
    expected = {"foreman": ["register"]}.get(given, given.split(","))
    assert options("--skip", given).skip == expected


def test_a_step_that_there_is_not_is_refused() -> None:
    with pytest.raises(Trouble, match=r"--skip nonsense: there is no such step; there are ca, puppet, rhsm"):
        options("--skip", "nonsense")


@pytest.mark.parametrize("name", sorted(bootstrap.GONE))
def test_what_is_gone_gets_a_sentence_of_what_to_do(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Trouble) as raised:
        options(name, "sesame")
    assert str(raised.value).startswith(f"bootstrap.py had {name}; here ")
    # What may be a password is not said again.
    assert "sesame" not in str(raised.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize("argument", ["-psesame", "--password=sesame"])
def test_a_password_in_the_same_word_is_not_said_again_either(argument: str) -> None:
    with pytest.raises(Trouble) as raised:
        options(argument)
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--server", "a.test", "--new-address", "b.test")],
)
def test_one_address_is_named(arguments: Sequence[str]) -> None:
    with pytest.raises(Trouble, match="Name the cluster's address"):
        bootstrap.parsed(arguments)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a.test", ("a.test", None)), ("a.test:8443", ("a.test", 8443)), ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)), ("2001:db8::1", ("2001:db8::1", None)),
    ],
)  # fmt: skip
def test_an_address_is_a_name_or_an_ip_with_a_port(text: str, place: tuple[str, int | None]) -> None:
    assert options("--via", text).via == place


@pytest.mark.parametrize(
    "text", ["", "a b", "-a", "a.test:0", "a.test:65536", "a/b", "a\n", "a..b", "x" * 254, "a.test:", "a@b"]
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(SystemExit):
        options(f"--via={text}")


def test_a_fingerprint_is_read_as_openssl_prints_it() -> None:
    digits = "0aF1" * 16
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    for text in (digits, colons, f"sha256 Fingerprint={colons}"):
        assert options("--ca-fingerprint", text).ca_fingerprint == digits.lower()
    with pytest.raises(SystemExit):
        options("--ca-fingerprint", digits[:-1])


# --- Secrets. ---


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("Bearer abc.DEF-1_2\n")
    monkeypatch.setenv("MUSTER_TOKEN", "env.token")
    assert bootstrap.credentials(options("--register", "--token-file", str(file))) == "Bearer abc.DEF-1_2"
    assert bootstrap.credentials(options("--register")) == "Bearer env.token"
    assert "MUSTER_TOKEN" not in bootstrap._environment()


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "ä"])
def test_what_is_no_token_is_refused_and_not_said(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", token)
    with pytest.raises(Trouble, match="--register needs Foreman's token") as raised:
        bootstrap.credentials(options("--register"))
    assert not token or token not in str(raised.value)


def test_a_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda _: "pä:ss")
    # Of "admin:pä:ss" in UTF-8.
    assert bootstrap.credentials(options("--register", "-l", "admin")) == "Basic YWRtaW46cMOkOnNz"


def test_what_is_shown_of_a_file_has_no_password(capfd: pytest.CaptureFixture[str]) -> None:
    before = bootstrap.Found(b"hostname = old\nproxy_password = sesame\n", 0o600, 0, 0, 0, {})
    change = Change(bootstrap.RHSM, before, b"hostname = new\nproxy_password = sesame\n")
    bootstrap.show(Plan([change], [], [], None, [], []))
    said = capfd.readouterr().out
    assert "+hostname = new" in said
    assert " proxy_password = ***" in said
    assert "sesame" not in said


def test_what_is_said_does_not_command_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    bootstrap.say("a\x1b[2Jb\r\x9bc")
    assert capfd.readouterr().out == "a\\x1b[2Jb\\x0d\\x9bc\n"


def run_unheard(root: Path, stdout: int | str) -> tuple[int, str]:
    """Undo as a program whose standard output is this descriptor, or a redirection of a shell."""
    words = [sys.executable, bootstrap.__file__, "--undo", "--root", str(root)]
    if isinstance(stdout, str):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {stdout}', "sh", *words], stderr=subprocess.PIPE, text=True, timeout=60
        )
    else:
        done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stderr


def test_what_is_done_does_not_depend_on_whether_anybody_listens(root: Path, authority: bytes) -> None:
    before = tree(root)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for stdout in (writing, ">&-", ">/dev/full"):
            join(root, authority)
            code, said = run_unheard(root, stdout)
            assert (code, "Traceback" in said) == (0, False)
            assert ("No space left" in said) == (stdout == ">/dev/full")
            assert tree(root) == before
    finally:
        os.close(writing)


# --- What members tell. ---


class Said(Members):
    """Members that say what a test says."""

    def __init__(self, document: Any, authority: bytes) -> None:
        super().__init__(ADDRESS, 443, None, 1.0)
        self.texts = {
            bootstrap.DOCUMENT: json.dumps(document).encode(), bootstrap.CA: authority,
            "/pub/muster.repo": b"[a]\n", "/pub/bad": b"[a]\x00\n",
        }  # fmt: skip

    def fetched(self, path: str, context: ssl.SSLContext) -> bytes:
        return self.texts[path]


GOOD: dict[str, Any] = {
    "muster_client": 1, "address": ADDRESS, "puppet": PUPPET, "rhsm": RHSM, "repositories": {"dnf": "/pub/muster.repo"},
    "register": f"https://{ADDRESS}:9090/register",
}  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = ClusterCA.create(tmp_path_factory.mktemp("ca"), "client", now=datetime.now(UTC))
    return ca_paths(made.directory)[0].read_bytes()


def told(document: Any, authority: bytes) -> Told:
    return bootstrap.told(Said(document, authority), bootstrap.unverified())


def test_what_members_tell_is_read(authority: bytes) -> None:
    of = told(GOOD, authority)
    assert (of.address, of.puppet, of.rhsm, of.repositories) == (ADDRESS, PUPPET, RHSM, {"dnf": b"[a]\n"})
    nothing = told({**GOOD, "puppet": None, "rhsm": None, "repositories": {"dnf": None}, "register": None}, authority)
    assert (nothing.puppet, nothing.rhsm, nothing.repositories, nothing.register) == ({}, {}, {}, "")


@pytest.mark.parametrize(
    "otherwise",
    [
        {"address": "a b"}, {"address": None}, {"address": "../x"}, {"address": "fe80::1%eth0"},
        # A scope holds what it likes: Python takes it for part of an address.
        {"address": "fe80::1%a\nb: c"}, {"register": "https://a:65536/register"}, {"puppet": {"server": "a\nb = c"}},
        {"puppet": {"server": 1}}, {"rhsm": {"server": {"hostname": "a]"}, "rhsm": {"baseurl": "x\ny"}}}, {"rhsm": "x"},
        {"register": "http://a/register"}, {"register": "https://a/register?x=y z"},
        {"repositories": {"dnf": "/etc/passwd"}}, {"repositories": None}, {"puppet": []},
    ],
)  # fmt: skip
def test_a_value_that_is_not_what_it_has_to_be_is_refused(otherwise: dict[str, Any], authority: bytes) -> None:
    if otherwise == {"puppet": []}:
        # Nothing, in another form.
        assert told({**GOOD, **otherwise}, authority).puppet == {}
        return
    with pytest.raises(Trouble, match="says of its cluster what cannot be read"):
        told({**GOOD, **otherwise}, authority)


def test_what_is_nested_deeper_than_anybody_reads_is_refused(authority: bytes) -> None:
    members = Said(GOOD, authority)
    members.texts[bootstrap.DOCUMENT] = b"[" * 100_000
    with pytest.raises(Trouble, match="says of its cluster what cannot be read"):
        bootstrap.told(members, bootstrap.unverified())


def test_an_answer_that_trickles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trickling:
        """Has a byte whenever it is asked, and a time that goes on with it."""

        def read1(self, size: int) -> bytes:
            clock.advance(1)
            return b"x"

        def read(self, size: int) -> bytes:
            clock.advance(size)
            given.append(size)
            return b"x" * size if len(given) == 1 else b""

        def getheader(self, name: str) -> None:
            return None

    given: list[int] = []
    clock = FakeClock()
    monkeypatch.setattr(bootstrap, "time", SimpleNamespace(monotonic=clock.monotonic))
    with pytest.raises(Trouble, match="slower"):
        bootstrap._whole(Trickling())  # type: ignore[arg-type]
    # It would wait until all of that is there, whatever the time.
    assert given == []


class Plain(Members):
    """Members that answer so, over no TLS."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(ADDRESS, 443, None, 5.0)
        self.answer = answer

    @contextlib.contextmanager
    def connected(self, context: ssl.SSLContext, port: int | None = None) -> Iterator[Any]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(self.answer)
            theirs.shutdown(socket.SHUT_WR)
            yield ours


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"\r\nhello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"Content-Length: 6\r\n\r\nhello", None),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nl", None),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", None),
    ],
)
def test_an_answer_counts_when_all_of_it_came(answer: bytes, body: bytes | None) -> None:
    members = Plain(b"HTTP/1.1 200 OK\r\n" + answer)
    if body is None:
        with pytest.raises(Trouble, match="did not answer /pub/x"):
            members.asked("/pub/x", bootstrap.unverified())
    else:
        assert members.asked("/pub/x", bootstrap.unverified()) == (200, body)


def test_a_form_of_later_is_named_so(authority: bytes) -> None:
    with pytest.raises(Trouble, match=r"fetch this program anew from https://cluster\.test/pub/muster-bootstrap"):
        told({**GOOD, "muster_client": 2}, authority)


def test_a_file_of_repositories_is_text(authority: bytes) -> None:
    with pytest.raises(Trouble, match="that is no text"):
        told({**GOOD, "repositories": {"dnf": "/pub/bad"}}, authority)


def test_a_ca_is_a_ca(authority: bytes, tmp_path: Path) -> None:
    from muster.pki import bundles
    from muster.pki.bundles import BundleRequest

    made = ClusterCA.create(tmp_path / "ca", "client", now=datetime.now(UTC))
    leaf = made.issue(BundleRequest("client", "leaf.test"), now=datetime.now(UTC)).certificate_pem.encode()
    assert bundles
    with pytest.raises(Trouble, match="holds a certificate that is no CA's"):
        bootstrap.authorities(authority + leaf, "it")
    for text in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Trouble, match="holds"):
            bootstrap.authorities(text, "it")
    both = bootstrap.authorities(authority + ca_paths(made.directory)[0].read_bytes() + authority, "it")
    assert len(both) == 2


# --- A host. ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with what a host of both families has."""
    for directory in (
        "etc/pki/ca-trust/source/anchors", "etc/rhsm", "etc/puppet", "etc/yum.repos.d", "etc/apt/sources.list.d", "var/lib",
    ):  # fmt: skip
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/puppet/puppet.conf").write_text("[main]\nserver = old.test\n")
    (tmp_path / "etc/rhsm/rhsm.conf").write_text("[server]\nhostname = old.test\n[rhsm]\n")
    return tmp_path


def planned(root: Path, of: Told, *arguments: str) -> Plan:
    return bootstrap.planned(Host(str(root)), of, Said(GOOD, b""), options("--root", str(root), *arguments))


def test_steps_say_what_is_to_be_done_and_do_nothing(root: Path, authority: bytes) -> None:
    before = tree(root)
    plan = planned(root, told(GOOD, authority))
    assert tree(root) == before
    paths = [c.path for c in plan.changes]
    (anchor,) = [p for p in paths if "anchors" in p]
    assert bootstrap._OURS.match(Path(anchor).name)
    assert sorted(set(paths) - {anchor}) == [
        "/etc/puppet/puppet.conf", bootstrap.RHSM_CA, bootstrap.RHSM, "/etc/yum.repos.d/muster.repo",
    ]  # fmt: skip
    assert plan.commands == [("update-ca-trust", "extract")]
    assert plan.registration is None


@pytest.mark.parametrize("step", bootstrap.STEPS)
def test_each_step_can_be_left_out(step: str, root: Path, authority: bytes) -> None:
    of = told(GOOD, authority)
    everything = {c.path for c in planned(root, of).changes}
    rest = {c.path for c in planned(root, of, "--skip", step).changes}
    gone = {
        "ca": 2, "puppet": 1, "rhsm": 1, "repositories": 1, "register": 0,
    }  # fmt: skip
    assert rest < everything or step == "register"
    assert len(everything - rest) == gone[step]


def test_a_ca_of_ours_that_is_not_the_clusters_any_more_goes(root: Path, authority: bytes) -> None:
    anchors = root / "etc/pki/ca-trust/source/anchors"
    for name in (f"muster-{ADDRESS}-00000000.pem", "muster-old.test-12345678.pem", "muster-own.pem", "other.pem"):
        (anchors / name).write_text("x")
    gone = [c.path for c in planned(root, told(GOOD, authority)).changes if c.after is None]
    assert [Path(p).name for p in gone] == [f"muster-{ADDRESS}-00000000.pem", "muster-old.test-12345678.pem"]


def test_a_host_without_a_place_for_cas_is_told_what_to_do(root: Path, authority: bytes) -> None:
    (root / "etc/pki/ca-trust/source/anchors").rmdir()
    with pytest.raises(Trouble, match="Install ca-certificates; or leave that out, --skip ca"):
        planned(root, told(GOOD, authority))


def test_programs_that_are_not_here_are_said(root: Path, authority: bytes) -> None:
    (root / "etc/puppet/puppet.conf").unlink()
    (root / "etc/puppet").rmdir()
    (root / "etc/rhsm/rhsm.conf").unlink()
    plan = planned(root, told(GOOD, authority))
    assert [n.partition(" (")[0] for n in plan.notes] == ["No Puppet agent is here", "No subscription-manager is here"]


def test_an_agent_with_a_list_of_servers_is_said(root: Path, authority: bytes) -> None:
    (root / "etc/puppet/puppet.conf").write_text("[agent]\nserver_list = a,b\n")
    plan = planned(root, told(GOOD, authority))
    assert any("server_list in [agent]" in n for n in plan.notes), plan.notes


def test_a_new_address_is_set_where_the_old_one_stands_as_a_whole_name(root: Path, authority: bytes) -> None:
    scap = root / "etc/foreman_scap_client/config.yaml"
    scap.parent.mkdir()
    scap.write_text(":server: OLD.test\n:port: 9090\n:other: not-old.test\n:more: old.test.example\n:last: old.test\n")
    arguments = ["--new-address", ADDRESS, "--root", str(root)]
    plan = bootstrap.planned(Host(str(root)), told(GOOD, authority), Said(GOOD, b""), bootstrap.parsed(arguments))
    # First, since the others tell what it was.
    assert plan.changes[0].path == "/etc/foreman_scap_client/config.yaml"
    assert plan.changes[0].after == (
        b":server: cluster.test\n:port: 9090\n:other: not-old.test\n:more: old.test.example\n:last: cluster.test\n"
    )
    assert "/etc/foreman_scap_client/config.yaml" not in [c.path for c in planned(root, told(GOOD, authority)).changes]


# --- Told by a package. ---


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory, authority: bytes) -> list[str]:
    """What a package brings, and how it asks for it."""
    directory = tmp_path_factory.mktemp("package")
    told, ca = directory / "told.json", directory / "ca.pem"
    told.write_text(json.dumps(GOOD))
    ca.write_bytes(authority)
    return ["--told", str(told), "--ca-file", str(ca), "--skip", "puppet"]


def test_a_package_tells_without_asking_and_takes_back_what_it_told_alone(
    root: Path, authority: bytes, package: list[str]
) -> None:
    where = ["--root", str(root)]
    (root / "etc/yum.repos.d").mkdir(exist_ok=True)
    before = tree(root)
    assert bootstrap.ran([*package, *where]) == 0
    assert f"hostname = {ADDRESS}" in (root / "etc/rhsm/rhsm.conf").read_text()
    changed = {p for p, seen in tree(root).items() if before.get(p) != seen and stat.S_ISREG(seen[0])}
    assert changed - {"etc/rhsm/rhsm.conf", "etc/rhsm/ca/katello-server-ca.pem"} == {
        p
        for p in changed
        if p.startswith(("etc/pki/ca-trust", "usr/local/share", "var/lib/muster-bootstrap/0001.json"))
    }
    assert bootstrap.ran([*package, *where]) == 0
    assert len(Journal.all(Host(str(root)))) == 1

    # Somebody joins it for good.
    join(root, authority, "--skip", "rhsm,ca")
    joined = (root / "etc/puppet/puppet.conf").read_bytes()
    # A newer package, whose cluster says otherwise.
    elsewhere = {**RHSM, "server": {**RHSM["server"], "port": "8443"}}
    Path(package[1]).write_text(json.dumps({**GOOD, "rhsm": elsewhere}))
    assert bootstrap.ran([*package, *where]) == 0
    assert "port = 8443" in (root / "etc/rhsm/rhsm.conf").read_text()

    assert bootstrap.ran(["--undo", "--told", package[1], "--dry-run", *where]) == 0
    assert bootstrap.ran(["--undo", "--told", package[1], *where]) == 0
    now = tree(root)
    assert (root / "etc/puppet/puppet.conf").read_bytes() == joined
    assert {p: now.get(p) for p in changed if "muster-bootstrap" not in p} == {
        p: before.get(p) for p in changed if "muster-bootstrap" not in p
    }
    assert undo(root) == 0
    assert tree(root) == before
    assert bootstrap.ran(["--undo", "--told", package[1], *where]) == 0


@pytest.mark.parametrize("first", ["package", "person"])
def test_a_run_that_was_cut_short_is_gone_on_with_by_its_own_kind_alone(
    first: str, root: Path, authority: bytes, package: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what a person asked for went with a package, or what a package did stayed behind it."""

    def run(of: str) -> None:
        if of == "package":
            assert bootstrap.ran([*package, "--root", str(root)]) == 0
        else:
            join(root, authority)

    class Killed(BaseException): ...

    def killed(*_: object) -> None:
        raise Killed

    second = "person" if first == "package" else "package"
    before = tree(root)
    with monkeypatch.context() as cut:
        cut.setattr(bootstrap, "_apply", killed)
        with pytest.raises(Killed):
            run(first)
    run(second)
    there = Journal.all(Host(str(root)))
    assert all(j.is_done for j in there)
    # What the first had not come to yet, the second has done, and it is the second's.
    assert (there[-1].of["told"] != "") is (second == "package")
    assert there[-1].of["commands"]
    done = tree(root)
    run(first)
    assert first == "person" or tree(root) == done
    assert bootstrap.ran(["--undo", "--told", package[1], "--root", str(root)]) == 0
    assert [j for j in Journal.all(Host(str(root))) if j.of["told"]] == []
    assert (f"hostname = {ADDRESS}" in (root / "etc/rhsm/rhsm.conf").read_text()) is (second == "person")
    assert f"server = {ADDRESS}" in (root / "etc/puppet/puppet.conf").read_text()
    while Journal.all(Host(str(root))):
        assert undo(root) == 0
    undo(root)
    assert tree(root) == before


@pytest.mark.parametrize("kind", ["package", "person"])
def test_what_was_cut_short_when_all_was_written_is_ended_by_whoever_comes(
    kind: str, root: Path, authority: bytes, package: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(bootstrap, "_run", killed)
        with pytest.raises(Killed):
            join(root, authority)
    if kind == "package":
        assert bootstrap.ran([*package, "--root", str(root)]) == 0
    else:
        join(root, authority)
    (it,) = Journal.all(Host(str(root)))
    assert (it.is_done, it.of["told"]) == (True, "")


@pytest.mark.parametrize(
    ("also", "words"),
    [
        (["--server", ADDRESS], "--server asks the cluster"),
        (["--new-address", ADDRESS], "--new-address asks the cluster"),
        (["--register"], "--register asks the cluster"),
        (["--insecure"], "--insecure asks the cluster"),
    ],
)
def test_who_is_told_by_a_file_asks_nobody(also: list[str], words: str, package: list[str]) -> None:
    with pytest.raises(Trouble, match=words):
        bootstrap.parsed([*package, *also])
    with pytest.raises(Trouble, match="--told needs the cluster's CA beside it"):
        bootstrap.parsed(package[:2])


def test_a_file_that_tells_is_looked_at_as_a_member_is(root: Path, package: list[str]) -> None:
    file = Path(package[1])
    for said in ('{"muster_client": 2}', json.dumps({**GOOD, "address": "a b"}), "no JSON"):
        file.write_text(said)
        with pytest.raises(Trouble, match=re.escape(str(file))):
            bootstrap.ran([*package, "--root", str(root)])
    file.unlink()
    with pytest.raises(Trouble, match="cannot be read: No such file"):
        bootstrap.ran([*package, "--root", str(root)])


def test_a_host_registers_when_that_is_asked_for_and_by_numbers(root: Path, authority: bytes) -> None:
    of = told(GOOD, authority)
    host = Host("/")
    asked = options("--register", "-o", "1", "-L", "2", "-g", "3", "-a", "k1,k2", "--force")
    plan = bootstrap.register_step(host, of, Plan([], [], [], None, [], []), asked)
    assert plan.registration is not None
    assert plan.registration.url == (
        f"https://{ADDRESS}:9090/register?organization_id=1&location_id=2&hostgroup_id=3&activation_keys=k1%2Ck2&force=true"
    )
    with pytest.raises(Trouble, match="Foreman's registration knows organizations by number: hammer organization info"):
        bootstrap.register_step(host, of, plan, options("--register", "-o", "ACME"))
    with pytest.raises(Trouble, match="cannot be registered"):
        bootstrap.register_step(Host(str(root)), of, plan, options("--register"))


# --- Writing and taking back. ---


def tree(root: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Return every file below a directory: mode, owner, group, time and bytes; directories with their mode."""
    found = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        is_file = stat.S_ISREG(seen.st_mode)
        content = path.read_bytes() if is_file else os.fsencode(path.readlink()) if path.is_symlink() else b""
        found[str(path.relative_to(root))] = (
            seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns if is_file else 0, content,
        )  # fmt: skip
    return found


def join(root: Path, authority: bytes, *arguments: str) -> None:
    of = told(GOOD, authority)
    plan = planned(root, of, *arguments)
    bootstrap.applied(Host(str(root)), plan, of, None, Said(GOOD, b""), bootstrap.unverified())


def undo(root: Path, *, force: bool = False, dry: bool = False) -> int:
    return bootstrap.undone(Host(str(root)), force=force, dry=dry)


def test_everything_is_written_and_taken_back_to_the_byte(root: Path, authority: bytes) -> None:
    puppet_conf = root / "etc/puppet/puppet.conf"
    puppet_conf.chmod(0o640)
    os.utime(puppet_conf, ns=(1, 1_234_567_890_123_456_789))
    before = tree(root)
    join(root, authority)
    assert puppet_conf.stat().st_mode & 0o777 == 0o640
    assert f"server = {ADDRESS}" in puppet_conf.read_text()
    state = root / "var/lib/muster-bootstrap"
    assert state.stat().st_mode & 0o777 == 0o700
    assert [(p.name, p.stat().st_mode & 0o777) for p in state.iterdir()] == [("0001.json", 0o600)]
    assert planned(root, told(GOOD, authority)).is_empty
    assert undo(root, dry=True) == 0
    assert tree(root) != before
    assert undo(root) == 0
    assert tree(root) == before
    assert undo(root) == 0


def test_a_file_that_somebody_changed_since_is_not_taken_back_unless_forced(
    root: Path, authority: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    join(root, authority)
    edited = root / "etc/puppet/puppet.conf"
    edited.write_text(edited.read_text() + "environment = test\n")
    now = edited.read_text()
    assert undo(root) == 1
    assert "/etc/puppet/puppet.conf was changed since by somebody else" in capfd.readouterr().out
    assert edited.read_text() == now
    # Everything else is back, and it is known still what this one was.
    assert {p for p in tree(root) if "muster" not in p} == {p for p in before if "muster" not in p}
    assert not (root / "etc/yum.repos.d/muster.repo").exists()
    assert undo(root, force=True) == 0
    assert tree(root) == before


def test_each_run_is_taken_back_by_itself(root: Path, authority: bytes) -> None:
    first = tree(root)
    join(root, authority, "--skip", "puppet,rhsm,repositories")
    second = tree(root)
    join(root, authority)
    assert len(Journal.all(Host(str(root)))) == 2
    assert undo(root) == 0
    assert tree(root) == second
    assert undo(root) == 0
    assert tree(root) == first


def test_a_run_with_nothing_to_do_writes_nothing(root: Path, authority: bytes) -> None:
    join(root, authority)
    before = tree(root)
    assert planned(root, told(GOOD, authority)).is_empty
    assert tree(root) == before


def test_a_link_is_followed_to_a_file_and_stays(root: Path, authority: bytes) -> None:
    link = root / "etc/puppet/puppet.conf"
    real = root / "etc/puppet/real.conf"
    link.rename(real)
    link.symlink_to("real.conf")
    before = tree(root)
    join(root, authority)
    assert link.is_symlink()
    assert f"server = {ADDRESS}" in real.read_text()
    assert undo(root) == 0
    assert tree(root) == before


@pytest.mark.parametrize("to", ["/etc/hostname", "../../../../../../etc/hostname"])
def test_a_link_that_leads_out_of_the_tree_is_refused(to: str, root: Path, authority: bytes) -> None:
    link = root / "etc/puppet/puppet.conf"
    link.unlink()
    link.symlink_to(to)
    with pytest.raises(Trouble, match="is a link that leads out of"):
        planned(root, told(GOOD, authority))


def test_directories_are_for_everybody_whatever_the_mask(root: Path, authority: bytes) -> None:
    before = os.umask(0o077)
    try:
        join(root, authority)
    finally:
        os.umask(before)
    assert (root / "etc/rhsm/ca").stat().st_mode & 0o777 == 0o755
    assert (root / "var/lib/muster-bootstrap").stat().st_mode & 0o777 == 0o700


def test_large_files_come_back_too(root: Path, authority: bytes) -> None:
    # What is kept of them is larger than any of them may be.
    for file in ("etc/puppet/puppet.conf", "etc/rhsm/rhsm.conf"):
        text = (root / file).read_text()
        (root / file).write_text(text + "# \xe4\n" * ((bootstrap.MAX_FILE_BYTES - 1000) // 5))
    before = tree(root)
    join(root, authority)
    assert undo(root) == 0
    assert tree(root) == before


def test_nothing_is_written_that_could_not_be_taken_back(root: Path, authority: bytes) -> None:
    of = told(GOOD, authority)._replace(repositories={"dnf": b"# \n" * (bootstrap.MAX_FILE_BYTES // 3 + 1)})
    before = tree(root)
    with pytest.raises(Trouble, match=r"muster\.repo would be larger than such a file ever is"):
        planned(root, of)
    assert tree(root) == before


def test_a_file_whose_directory_went_comes_back_when_forced(root: Path, authority: bytes) -> None:
    before = tree(root)
    join(root, authority)
    shutil.rmtree(root / "etc/rhsm")
    assert undo(root) == 1
    assert not (root / "etc/rhsm").exists()
    assert undo(root, force=True) == 0
    assert {name: of[4] for name, of in tree(root).items()} == {name: of[4] for name, of in before.items()}


def test_programs_of_the_system_are_found_whatever_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As cron and su leave it: without the directories where these programs are.
    (tmp_path / "sbin").mkdir()
    program = tmp_path / "sbin/update-ca-certificates"
    program.write_text(f"#!/bin/sh\n: > {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setattr(bootstrap, "SYSTEM_PATH", str(tmp_path / "sbin"))
    for path in ("/nowhere", ""):
        monkeypatch.setenv("PATH", path)
        bootstrap._run(Host("/"), ("update-ca-certificates",))
        (tmp_path / "ran").unlink()
    monkeypatch.delenv("PATH")
    bootstrap._run(Host("/"), ("update-ca-certificates",))


def test_what_is_no_file_is_refused_and_waited_for_by_nobody(root: Path, authority: bytes) -> None:
    (root / "etc/puppet/puppet.conf").unlink()
    os.mkfifo(root / "etc/puppet/puppet.conf")
    with pytest.raises(Trouble, match="is no plain file"):
        planned(root, told(GOOD, authority))


def test_what_changes_meanwhile_is_not_overwritten(root: Path, authority: bytes) -> None:
    of = told(GOOD, authority)
    plan = planned(root, of)
    (root / "etc/puppet/puppet.conf").write_text("[main]\nserver = newer.test\n")
    with pytest.raises(Trouble, match=r"puppet\.conf was changed by somebody while this ran"):
        bootstrap.applied(Host(str(root)), plan, of, None, Said(GOOD, b""), bootstrap.unverified())
    assert (root / "etc/puppet/puppet.conf").read_text() == "[main]\nserver = newer.test\n"
    # The next run goes on with the same journal.
    join(root, authority)
    assert [j.is_done for j in Journal.all(Host(str(root)))] == [True]


def test_two_runs_at_once_are_one(root: Path, authority: bytes) -> None:
    with bootstrap.alone(Host(str(root))), pytest.raises(Trouble, match="Another run of this program is going on here"):
        join(root, authority)


def test_certificates_of_another_puppet_ca_are_put_aside_and_come_back(root: Path, authority: bytes) -> None:
    ssl_directory = root / "var/lib/puppet/ssl"
    (ssl_directory / "certs").mkdir(parents=True)
    (ssl_directory / "certs/ca.pem").write_bytes(authority)
    before = tree(root)
    of = told(GOOD, authority)
    moved = bootstrap.Move("/var/lib/puppet/ssl", "/var/lib/puppet/ssl.before-muster")
    plan = Plan([], [moved], [], None, [], [])
    bootstrap.applied(Host(str(root)), plan, of, None, Said(GOOD, b""), bootstrap.unverified())
    assert not ssl_directory.exists()
    # Those that the agent got since are not thrown away.
    ssl_directory.mkdir()
    assert undo(root) == 1
    assert undo(root, force=True) == 0
    (root / "var/lib/puppet/ssl.muster-undone").rmdir()
    assert tree(root) == before


def test_a_journal_that_cannot_be_read_is_said_and_nothing_done(root: Path, authority: bytes) -> None:
    join(root, authority)
    journal = root / "var/lib/muster-bootstrap/0001.json"
    journal.write_text("{")
    with pytest.raises(Trouble, match=r"0001\.json cannot be read"):
        undo(root)


# --- The file itself. ---


def test_it_imports_nothing_but_the_standard_library() -> None:
    code = ast.parse(Path(bootstrap.__file__).read_text())
    names = [
        name.partition(".")[0]
        for node in ast.walk(code)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    ]  # fmt: skip
    assert names
    assert set(names) <= sys.stdlib_module_names


def test_it_can_be_run_as_a_program() -> None:
    assert Path(bootstrap.__file__).read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_the_page_names_every_option_that_administrators_need() -> None:
    page = (Path(__file__).parents[3] / "docs" / "admin" / "clients.md").read_text()
    there = {o for a in bootstrap.parser()._actions for o in a.option_strings if o.startswith("--")}
    named = set(re.findall(r"(?<![a-z-])--[a-z-]+", page))
    assert there - named <= {"--help", "--timeout"}
    typed = [line for line in page.splitlines() if re.match(r"# python3 muster-bootstrap", line)]
    assert len(typed) > 3
    assert {o for line in typed for o in re.findall(r"--[a-z-]+", line)} <= there
