"""``muster ca`` from the operator's side: real stores, real files, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from muster.app.settings import cluster_store, loaded
from muster.authority.x509.profile import belongs
from muster.cli import NOT_DONE, WRONG, muster
from muster.cluster.file import Authority
from muster.kernel.errors import Conflict, Misconfigured, NotFound
from muster.kernel.secrets import Secret
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from muster.store.engine import opened
from tests.contract.test_doctor_names_every_fault import dropping
from tests.servers import puppetca
from tests.servers.haproxy import free_ports

SAMPLE = puppetca.RECORDED / "cadir-sample"


class Host:
    """A host with a cluster file; the CA's key is where the command puts it."""

    def __init__(self, directory: Path, url: str, authority: str = "{}") -> None:
        self.directory = directory
        self.url = url
        self.cluster = directory / "cluster.yaml"
        self.home = directory / "pki" / "puppet-ca"
        self.cluster.write_text(
            "schema: 1\ncluster: demo\naddress: proxy.example.net\naliases: [puppet.example.net]\n"
            f"store: {{url: '{url}'}}\nauthority: {authority}\n"
            "members:\n- {id: 1, name: proxy01.example.net, address: 127.0.0.11}\n"
        )

    def run(self, *arguments: str, code: int | None = 0) -> Result:
        result = CliRunner().invoke(muster, ["ca", *arguments, "--cluster", str(self.cluster)], standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        found = result.return_value if result.exit_code == 0 else result.exit_code
        assert code in (None, found or 0), result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def made(self) -> Self:
        """Make the store, as the first member or balancer does."""

        async def make() -> None:
            async with cluster_store(loaded(self.cluster)) as store:
                await store.ping()

        asyncio.run(make())
        return self

    async def submit(self, *hosts: puppetca.Agent) -> None:
        """Have hosts ask a member."""
        async with (
            opened(Secret(self.url)) as store,
            puppetca.member(store, self.home, Authority(requests_per_minute=0)) as ca,
        ):
            for host in hosts:
                await ca.requests.submit(host.name, host.csr, source="192.0.2.1")

    def names(self, state: str) -> list[str]:
        return [c["name"] for c in self.json("list", "--state", state)]


@pytest.fixture
def host(tmp_path: Path, url: str) -> Host:
    return Host(tmp_path, url).made()


@pytest.fixture
def begun(host: Host) -> Host:
    host.run("init", "--key", "ec-p256")
    return host


@pytest.fixture
def cadir(tmp_path: Path) -> Path:
    copy = tmp_path / "ca"
    shutil.copytree(SAMPLE, copy)
    return copy


def asking(host: Host, *names: str) -> None:
    asyncio.run(host.submit(*(puppetca.agent(n) for n in names)))


def secret(directory: Path, content: str = "open sesame\n") -> Path:
    path = directory / "passphrase"
    path.write_text(content)
    path.chmod(0o600)
    return path


@contextlib.contextmanager
def signing(pem: bytes) -> Iterator[Path]:
    """Run a signer with this key and yield its socket, whose path is short enough whatever pytest's is."""
    with tempfile.TemporaryDirectory(prefix="muster-signer-") as name:
        key, path = Path(name) / "key.pem", Path(name) / "socket"
        key.write_bytes(pem)
        key.chmod(0o600)
        command = [sys.executable, "-m", "muster", "ca", "signer", "--socket", str(path), "--key", str(key)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"Signing for")
                yield path
            finally:
                process.terminate()
                process.wait(20)


@contextlib.contextmanager
def answering(directory: Path, address: str, port: int, bundle: str) -> Iterator[None]:
    """Run a server that hands out a Puppet CA's bundle, as a puppetserver does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/puppet-ca/v1/certificate/ca"
            self.send_response(200 if there else 404)
            self.end_headers()
            self.wfile.write(bundle.encode() if there else b"")

        def log_message(self, *_: Any) -> None:
            return

    made = ClusterCA.create(directory / f"tls-{address}", "anything", now=datetime.now(UTC))
    files = write(made.issue(BundleRequest("member", "x.example.net", ("x.example.net",)), now=datetime.now(UTC)),
                  directory / f"tls-{address}")  # fmt: skip
    server = ThreadingHTTPServer((address, port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ------------------------------------------------------------------ init


def test_a_ca_is_made_once(host: Host) -> None:
    said = host.run("init", "--key", "ec-p256", "--dry-run").stdout
    assert said.startswith("Would make Puppet CA: proxy.example.net, ec-p256, 5475 days")
    assert not host.home.exists()
    said = host.run("init", "--key", "ec-p256").stdout
    assert "Copy the key to every member, mode 0600." in said
    key = host.home / "ca_key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert host.home.stat().st_mode & 0o777 == 0o700
    before = key.read_bytes()
    with pytest.raises(Conflict, match="holds a Puppet CA already"):
        host.run("init")
    assert key.read_bytes() == before
    assert host.json("list") == []
    assert [e["event"] for e in host.json("audit")] == ["created"]


def test_how_the_ca_stands_is_said_before_there_is_one_and_after(host: Host) -> None:
    none = {"signer": "any", "ca": None, "list": None, "live": 0, "revoked": 0, "waiting": 0}
    assert host.json("status") == none
    assert "there is none yet" in host.run("status").stdout
    host.run("init")
    agents = [puppetca.agent(f"web0{n}.example.net") for n in (1, 2)]
    asyncio.run(host.submit(*agents))
    host.run("sign", agents[0].name)
    found = host.json("status")
    assert (found["live"], found["revoked"], found["waiting"]) == (1, 0, 1)
    ends = datetime.fromisoformat(found["ca"]["not_after"])
    assert ends > datetime.now(UTC) + timedelta(days=365)
    assert datetime.fromisoformat(found["list"]["not_after"]) > datetime.now(UTC)
    assert host.json("revoke", agents[0].name) is not None
    assert host.json("status")["revoked"] == 1
    assert "every member" in host.run("status").stdout


def test_a_key_that_lies_there_is_not_overwritten(host: Host) -> None:
    puppetca.put_key(host.home, b"somebody's")
    with pytest.raises(Conflict, match="a new CA would overwrite"):
        host.run("init", "--key", "ec-p256")
    assert (host.home / "ca_key.pem").read_bytes() == b"somebody's"


def test_without_the_section_the_remedy_is_said(tmp_path: Path) -> None:
    host = Host(tmp_path, f"sqlite:///{tmp_path}/x.db")
    host.cluster.write_text(host.cluster.read_text().replace("authority: {}\n", ""))
    with pytest.raises(Misconfigured, match="has no authority: section"):
        host.run("init")


def test_a_ca_made_with_a_passphrase_has_an_encrypted_key_and_signs(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url, f"{{key: {{passphrase_file: {secret(tmp_path, '')}}}}}")
    for more in (("--dry-run",), ()):
        with pytest.raises(Misconfigured, match=r"passphrase file .* is empty"):
            host.run("init", "--key", "ec-p256", *more)
    assert host.run("list").stdout == "There are none.\n"
    assert not (host.home / "ca_key.pem").exists()
    file = secret(tmp_path)
    said = host.run("init", "--key", "ec-p256").stdout
    assert f"ca_key.pem, encrypted. Copy the key and {file} to every member, mode 0600." in said
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (host.home / "ca_key.pem").read_bytes()
    host.run("issue-member", "proxy01", "--output", str(tmp_path / "ssl"))
    out = tmp_path / "out"
    said = host.run("export", str(out)).stdout
    assert "Its ca_key.pem is not encrypted, because puppetserver knows no passphrase." in said
    assert load_pem_private_key((out / "ca_key.pem").read_bytes(), None)
    assert (out / "ca_key.pem").stat().st_mode & 0o777 == 0o600


def test_a_ca_is_made_with_the_key_that_a_signer_holds(tmp_path: Path, url: str) -> None:
    given = puppetca.new_ca().key
    with signing(puppetca.key_pem(given)) as socket:
        host = Host(tmp_path, url, f"{{key: {{kind: signer, socket: {socket}}}}}")
        with pytest.raises(click.UsageError, match="--key is for a key that is made in a file"):
            host.run("init", "--key", "ec-p256")
        said = host.run("init", "--days", "30", "--dry-run").stdout
        assert said == f"Would make Puppet CA: proxy.example.net, 30 days, with the key of the signer at {socket}.\n"
        said = host.run("init").stdout
        assert f"with the key of the signer at {socket}. Every member needs one that holds this key." in said
        host.run("issue-member", "proxy01", "--output", str(tmp_path / "ssl"))
        (certificate,) = x509.load_pem_x509_certificates((tmp_path / "ssl" / "certs" / "ca.pem").read_bytes())
        assert belongs(given, certificate)
        certificate.verify_directly_issued_by(certificate)
        done = host.json("export", str(tmp_path / "out"))
        assert done["key"] is False
        assert f"Its key is missing: the signer at {socket} gives it to nobody." in done["sentence"]
    assert not list(tmp_path.rglob("ca_key.pem"))


def test_a_signer_that_is_away_makes_no_ca(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url, f"{{key: {{kind: signer, socket: {tmp_path}/none}}}}")
    for more in (("--dry-run",), ()):
        with pytest.raises(Misconfigured, match=r"did not answer.*start it with: muster ca signer"):
            host.run("init", *more)
    assert not list(tmp_path.rglob("ca_key.pem"))
    with pytest.raises(Misconfigured, match="nothing to export"):
        host.run("export", str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["x" * 65, "a\nb", "\udcff", ""])
def test_a_common_name_that_no_certificate_can_have_is_wrong_usage(host: Host, name: str) -> None:
    if not name:
        host.cluster.write_text(host.cluster.read_text().replace("proxy.example.net", f"{'p' * 52}.example.net"))
    with pytest.raises(click.UsageError, match="--common-name must be"):
        host.run("init", "--key", "ec-p256", *(("--common-name", name) if name else ()))


# ------------------------------------------------------------------ import


def test_a_puppetservers_ca_is_taken_over(host: Host, cadir: Path) -> None:
    seen = host.json("import", str(cadir), "--dry-run")
    assert (seen["certificates"], seen["revoked"], seen["pending_flawed"], seen["done"]) == (9, 3, 4, True)
    assert not host.home.exists()
    done = host.json("import", str(cadir))
    assert done["problems"] == []
    assert (host.home / "ca_key.pem").read_bytes() == (cadir / "ca_key.pem").read_bytes()
    assert not (host.home / "root_key.pem").exists()
    assert host.names("revoked") == ["revoked01.example.net"]
    assert len(host.names("requested")) == 6
    with pytest.raises(Conflict, match="already; nothing was changed"):
        host.run("import", str(cadir))


def test_what_is_wrong_stops_an_import_until_forced(host: Host, cadir: Path) -> None:
    (cadir / "signed" / "junk.example.net.pem").write_text("junk")
    seen = host.json("import", str(cadir), "--dry-run", code=WRONG)
    assert "junk.example.net.pem" in seen["problems"][0]
    refused = host.run("import", str(cadir), code=NOT_DONE)
    assert "  wrong: signed/junk.example.net.pem" in refused.stdout
    assert "Nothing was taken over: --force leaves out what is wrong." in refused.stdout
    assert not host.home.exists()
    assert host.run("list").stdout == "There are none.\n"
    forced = host.run("import", str(cadir), "--force", code=WRONG)
    assert "Taken over." in forced.stdout
    assert len(host.json("list")) == 9 + 6


def test_another_key_in_place_is_not_overwritten_by_an_import(host: Host, cadir: Path) -> None:
    for pem in (b"somebody's", puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key)):
        puppetca.put_key(host.home, pem)
        with pytest.raises(Misconfigured, match=r"CA's key .*ca_key\.pem .*; nothing was changed"):
            host.run("import", str(cadir))
        assert (host.home / "ca_key.pem").read_bytes() == pem
    assert host.run("list").stdout == "There are none.\n"
    # Ours may lie there already.
    puppetca.put_key(host.home, (cadir / "ca_key.pem").read_bytes())
    host.run("import", str(cadir))


def test_an_import_encrypts_the_key_under_the_passphrase(tmp_path: Path, url: str, cadir: Path) -> None:
    host = Host(tmp_path, url, f"{{key: {{passphrase_file: {secret(tmp_path)}}}}}")
    done = host.json("import", str(cadir))
    assert f"ca_key.pem, encrypted. Copy the key and {tmp_path}/passphrase to every member" in done["sentence"]
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (host.home / "ca_key.pem").read_bytes()
    host.run("sign", "pend-plain.example.net")


def test_an_import_wants_the_key_of_the_signer_to_be_the_cas(tmp_path: Path, url: str, cadir: Path) -> None:
    with signing(puppetca.key_pem(puppetca.new_ca().key)) as socket:
        host = Host(tmp_path, url, f"{{key: {{kind: signer, socket: {socket}}}}}")
        refused = host.json("import", str(cadir), "--dry-run", code=NOT_DONE)
        assert (refused["done"], refused["certificates"]) == (False, 9)
        assert "As things are it would be refused: The CA's key of the signer at" in refused["sentence"]
        with pytest.raises(Misconfigured, match=r"does not belong to Puppet CA: .*; nothing was changed"):
            host.run("import", str(cadir))
        assert host.run("list").stdout == "There are none.\n"
    with signing((cadir / "ca_key.pem").read_bytes()) as socket:
        host = Host(tmp_path, url, f"{{key: {{kind: signer, socket: {socket}}}}}")
        done = host.json("import", str(cadir))
        assert f"Its key is that of the signer at {socket}. Every member needs one that holds it." in done["sentence"]
        assert f"Take {cadir}/ca_key.pem off this host." in done["sentence"]
        host.run("sign", "pend-plain.example.net")
    assert not list(host.home.rglob("ca_key.pem"))


def test_an_import_into_a_store_with_a_ca_writes_no_key(begun: Host, tmp_path: Path, cadir: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Host(tmp_path / "second", begun.url)
    for more in (("--dry-run",), ()):
        if more:
            said = second.json("import", str(cadir), *more, code=NOT_DONE)["sentence"]
            assert "The store holds a Puppet CA already" in said
            continue
        with pytest.raises(Conflict, match="holds a Puppet CA already; nothing was changed"):
            second.run("import", str(cadir))
    assert not list((tmp_path / "second").rglob("*.pem"))


def test_an_import_is_refused_while_the_old_ca_answers(host: Host, tmp_path: Path, cadir: Path) -> None:
    (port,) = free_ports("127.0.0.31", 1)
    url = f"https://127.0.0.31:{port}"
    with answering(tmp_path, "127.0.0.31", port, (cadir / "ca_crt.pem").read_text()):
        with pytest.raises(Conflict, match=f"127.0.0.31 port {port} still answers as Puppet CA: proxy01"):
            host.run("import", str(cadir), "--from-server", url)
        assert not host.home.exists()
        said = host.json("import", str(cadir), "--from-server", url, "--dry-run", code=NOT_DONE)
        assert "--although-it-answers takes it over all the same" in said["sentence"]
        host.run("import", str(cadir), "--from-server", url, "--although-it-answers")
    assert len(host.names("requested")) == 6


def test_another_ca_that_answers_is_no_reason(host: Host, tmp_path: Path, cadir: Path) -> None:
    (port,) = free_ports("127.0.0.31", 1)
    with answering(tmp_path, "127.0.0.31", port, puppetca.new_ca("Puppet CA: other").issuer.chain_pem):
        host.run("import", str(cadir), "--from-server", f"https://127.0.0.31:{port}")


def test_members_are_asked_whether_the_old_ca_answers(host: Host, tmp_path: Path, cadir: Path) -> None:
    (port,) = free_ports("127.0.0.11", 1)
    host.cluster.write_text(host.cluster.read_text() + f"services: {{puppet: {{member_port: {port}}}}}\n")
    with (
        answering(tmp_path, "127.0.0.11", port, (cadir / "ca_crt.pem").read_text()),
        pytest.raises(Conflict, match=f"127.0.0.11 port {port} still answers"),
    ):
        host.run("import", str(cadir))


@pytest.mark.parametrize("url", ["http://a:1", "https://", "https://a:x", "https://a:99999", "https://\udcff", "a"])
def test_a_server_that_is_no_url_is_wrong_usage(tmp_path: Path, url: str, cadir: Path) -> None:
    host = Host(tmp_path, f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(click.UsageError, match="--from-server is not https"):
        host.run("import", str(cadir), "--from-server", url)


def test_infra_hosts_that_the_cluster_file_does_not_name_are_noted(tmp_path: Path, url: str, cadir: Path) -> None:
    (cadir / "infra_inventory.txt").write_text("a.example.net\nb.example.net\n")
    host = Host(tmp_path, url, "{infra_hosts: [b.example.net]}")
    said = host.run("import", str(cadir)).stdout
    assert "  note: infra_inventory.txt names a.example.net: authority.infra_hosts does not\n" in said
    host.run("export", str(tmp_path / "out"))
    assert (tmp_path / "out" / "infra_inventory.txt").read_text() == "b.example.net\n"


# ------------------------------------------------------------------ list, show, audit


def test_a_certificate_is_shown_with_what_was_done_to_it(begun: Host) -> None:
    asking(begun, "a.example.net", "b.example.net")
    begun.run("sign", "a.example.net")
    assert [(c["name"], c["state"]) for c in begun.json("list")] == [
        ("b.example.net", "requested"),
        ("a.example.net", "signed"),
    ]
    assert begun.names("signed") == ["a.example.net"]
    lines = begun.run("list").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["requested", "b.example.net"], ["signed", "a.example.net"]]
    shown = begun.json("show", "a.example.net")
    assert (shown["state"], shown["name"]) == ("signed", "a.example.net")
    assert [h["event"] for h in shown["history"]] == ["signed", "requested"]
    assert "signed" in begun.run("show", "a.example.net").stdout
    with pytest.raises(NotFound, match=r"Nothing is known of nobody\.example\.net"):
        begun.run("show", "nobody.example.net")
    events = begun.json("audit", "--certname", "a.example.net")
    assert [e["event"] for e in events] == ["signed", "requested"]
    assert len(begun.json("audit", "--most", "1")) == 1
    assert "a.example.net" in begun.run("audit").stdout


def test_a_cleaned_name_is_still_known_by_its_history(begun: Host) -> None:
    asking(begun, "a.example.net")
    begun.run("sign", "a.example.net")
    begun.run("clean", "a.example.net")
    shown = begun.json("show", "a.example.net")
    assert shown["state"] == "none"
    assert [h["event"] for h in shown["history"]] == ["removed", "revoked", "signed", "requested"]


# ------------------------------------------------------------------ sign, reject, revoke, clean


def test_each_name_is_done_by_itself_and_the_exit_code_says_when_one_was_not(begun: Host) -> None:
    asking(begun, "a.example.net", "b.example.net", "c.example.net")
    assert begun.run("sign", "a.example.net", "--dry-run").stdout == "Would sign a.example.net.\n"
    assert begun.names("signed") == []
    said = begun.run("sign", "nobody.example.net", "a.example.net", code=NOT_DONE)
    assert said.stdout == "a.example.net: signed\n"
    assert "nobody.example.net: there is no certificate and no request of that name" in said.stderr
    told = json.loads(begun.run("sign", "nobody.example.net", "--json", code=NOT_DONE).stdout)
    assert [(r["name"], r["done"]) for r in told["results"]] == [("nobody.example.net", False)]
    assert begun.run("reject", "b.example.net").stdout == "b.example.net: rejected\n"
    begun.run("sign", "--all", "--ttl-days", "7")
    (c,) = [x for x in begun.json("list") if x["name"] == "c.example.net"]
    assert c["state"] == "signed"
    assert begun.names("requested") == []
    assert begun.run("revoke", "a.example.net", "--dry-run").stdout == "Would revoke a.example.net.\n"
    assert begun.names("revoked") == []
    assert begun.run("revoke", "a.example.net").stdout == "a.example.net: revoked\n"
    assert begun.names("revoked") == ["a.example.net"]
    begun.run("revoke", "nobody.example.net", code=NOT_DONE)
    assert begun.run("clean", "c.example.net", "--dry-run").stdout == "Would clean c.example.net.\n"
    said = begun.run("clean", "c.example.net", "nobody.example.net", code=NOT_DONE)
    assert said.stdout == "c.example.net: cleaned\n"
    assert "nobody.example.net: has no certificate" in said.stderr
    assert [x["name"] for x in begun.json("list")] == ["a.example.net"]


def test_a_renewed_certificate_has_a_new_number_and_end_and_both_are_revoked(begun: Host) -> None:
    asking(begun, "a.example.net")
    begun.run("sign", "a.example.net", "--ttl-days", "7")
    before = begun.json("show", "a.example.net")
    assert begun.run("renew", "a.example.net", "--dry-run").stdout == "Would renew a.example.net.\n"
    assert begun.json("show", "a.example.net")["serial_number"] == before["serial_number"]
    assert begun.run("renew", "a.example.net").stdout == "a.example.net: renewed\n"
    after = begun.json("show", "a.example.net")
    assert after["serial_number"] != before["serial_number"]
    assert after["not_after"] > before["not_after"]
    begun.run("revoke", "a.example.net")
    events = [e["event"] for e in begun.json("audit", "--certname", "a.example.net")]
    assert events == ["revoked", "revoked", "renewed", "signed", "requested"]
    said = begun.run("renew", "a.example.net", "nobody.example.net", code=NOT_DONE)
    assert "a.example.net: The certificate of a.example.net is revoked" in said.stderr
    assert "nobody.example.net: Could not find certificate nobody.example.net" in said.stderr


@pytest.mark.parametrize("verb", ["sign", "renew", "reject", "revoke", "clean"])
def test_a_dry_run_refuses_what_the_real_run_would(begun: Host, verb: str) -> None:
    asking(begun, "signed.example.net", "gone.example.net", "waits.example.net")
    begun.run("sign", "signed.example.net", "gone.example.net")
    begun.run("revoke", "gone.example.net")
    names = ("nobody.example.net", "signed.example.net", "gone.example.net", "waits.example.net")
    for name in names:
        before = begun.json("list")
        foreseen = begun.run(verb, name, "--dry-run", code=None)
        assert begun.json("list") == before
        real = begun.run(verb, name, code=None)
        assert (foreseen.return_value or 0, foreseen.stderr) == (real.return_value or 0, real.stderr), name
        assert foreseen.stdout == ("" if real.return_value else f"Would {verb} {name}.\n")


def test_a_request_that_may_not_be_signed_is_foreseen(host: Host, cadir: Path) -> None:
    host.run("import", str(cadir))
    for name in ("pend-san.example.net", "pend-auth.example.net", "pend-badsig.example.net", "pend-oid.example.net"):
        foreseen, real = (host.run("sign", name, *more, code=NOT_DONE) for more in (("--dry-run",), ()))
        assert (foreseen.stdout, foreseen.stderr) == ("", real.stderr)


def test_a_certificate_that_would_not_be_signed_today_is_foreseen(host: Host, cadir: Path) -> None:
    issuer = x509.load_pem_x509_certificates((cadir / "ca_crt.pem").read_bytes())[0]
    key = load_pem_private_key((cadir / "ca_key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak.example.net")]))
        .issuer_name(issuer.subject)
        .public_key(ec.generate_private_key(ec.SECP224R1()).public_key())
        .serial_number(99)
        .not_valid_before(datetime.now(UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(days=9))
        .sign(key, hashes.SHA256())
    )
    (cadir / "signed" / "weak.example.net.pem").write_bytes(made.public_bytes(Encoding.PEM))
    host.run("import", str(cadir))
    foreseen, real = (host.run("renew", "weak.example.net", *more, code=NOT_DONE) for more in (("--dry-run",), ()))
    assert (foreseen.stdout, foreseen.stderr) == ("", real.stderr)
    assert "is not issued anew" in real.stderr


@pytest.mark.parametrize("name", ["\udcff", "a\x00b", "a\nb", "ä.example.net", "../a", "", "x" * 256])
def test_a_name_that_no_certificate_has_is_wrong_usage(begun: Host, name: str) -> None:
    for verb in ("show", "sign", "renew", "reject", "revoke", "clean"):
        with pytest.raises(click.UsageError, match="is no certname"):
            begun.run(verb, "--", name)
    with pytest.raises(click.UsageError, match="is no certname"):
        begun.run("audit", "--certname", name)


# ------------------------------------------------------------------ one member's puppetserver signs


def test_where_one_puppetserver_signs_nothing_is_changed_and_it_is_said_where(begun: Host, tmp_path: Path) -> None:
    asking(begun, "a.example.net", "b.example.net")
    begun.run("sign", "a.example.net")
    begun.cluster.write_text(begun.cluster.read_text() + "signer: proxy01.example.net\n")
    before = begun.json("list")
    out = str(tmp_path / "ssl")
    for arguments, there in (
        (("sign", "b.example.net"), "On proxy01.example.net: puppetserver ca sign --certname NAME"),
        (("sign", "--all"), "puppetserver ca sign"),
        (("revoke", "a.example.net"), "On proxy01.example.net: puppetserver ca revoke --certname NAME"),
        (("clean", "a.example.net"), "puppetserver ca clean"),
        (("renew", "a.example.net"), "let it ask anew"),
        (("reject", "b.example.net"), "in Foreman"),
        (("issue-member", "proxy01", "--output", out), "puppetserver ca generate"),
        (("init",), "Set signer: any first"),
        (("import", str(tmp_path)), "set signer: any first"),
    ):
        for more in ((), ("--dry-run",)):
            with pytest.raises(Conflict, match=r"proxy01\.example\.net signs .* nothing was changed") as refused:
                begun.run(*arguments, *more)
            assert there in str(refused.value)
    shown = begun.run("list")
    assert "Not in force: proxy01.example.net signs." in shown.stderr
    assert begun.json("list") == before
    # The way back is open: signer is set first.
    begun.run("export", str(tmp_path / "out"))


@pytest.mark.parametrize("arguments", [(), ("a.example.net", "--all")])
def test_sign_wants_names_or_all(begun: Host, arguments: Sequence[str]) -> None:
    with pytest.raises(click.UsageError, match="Name who is signed, or use --all"):
        begun.run("sign", *arguments)


def test_the_key_of_another_ca_signs_nothing(begun: Host) -> None:
    asking(begun, "a.example.net")
    puppetca.put_key(begun.home, puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
    with pytest.raises(Misconfigured, match="does not belong to"):
        begun.run("sign", "a.example.net")
    # Looking needs no key.
    assert begun.names("requested") == ["a.example.net"]


# ------------------------------------------------------------------ export, issue-member


def test_an_export_is_a_ca_directory(begun: Host, tmp_path: Path) -> None:
    asking(begun, "a.example.net")
    begun.run("sign", "a.example.net")
    out = tmp_path / "out"
    assert begun.run("export", str(out), "--dry-run").stdout == f"Would write the CA to {out}.\n"
    assert not out.exists()
    planned = begun.json("export", str(out), "--dry-run")
    assert planned == {
        "directory": str(out), "key": True, "dry_run": True, "done": True, "sentence": f"Would write the CA to {out}.",
    }  # fmt: skip
    assert not out.exists()
    done = begun.json("export", str(out))
    assert done.pop("sentence").startswith("Wrote 1 certificates, 0 requests and 0 revocations")
    assert done == {
        "certificates": 1, "requests": 0, "revocations": 0, "directory": str(out), "key": True, "dry_run": False,
        "done": True,
    }  # fmt: skip
    assert (out / "ca_key.pem").read_bytes() == (begun.home / "ca_key.pem").read_bytes()
    for more in (("--dry-run",), ()):
        with pytest.raises(Conflict, match="is not empty"):
            begun.run("export", str(out), *more)
    without = begun.json("export", str(tmp_path / "without"), "--without-key")
    assert without["key"] is False
    assert not (tmp_path / "without" / "ca_key.pem").exists()


def test_a_key_that_is_not_the_cas_is_not_exported(begun: Host, tmp_path: Path) -> None:
    puppetca.put_key(begun.home, puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
    with pytest.raises(Misconfigured, match="does not belong to"):
        begun.run("export", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    said = begun.run("export", str(tmp_path / "out"), "--without-key").stdout
    assert "Its key was left out" in said


def test_an_export_is_taken_over_by_another_cluster(begun: Host, tmp_path: Path) -> None:
    asking(begun, "a.example.net", "b.example.net")
    begun.run("sign", "--all")
    begun.run("clean", "b.example.net")
    out = tmp_path / "out"
    begun.run("export", str(out))
    (tmp_path / "second").mkdir()
    second = Host(tmp_path / "second", f"sqlite:///{tmp_path}/second.db")
    seen = second.json("import", str(out))
    assert (seen["problems"], seen["certificates"], seen["revoked"]) == ([], 1, 1)
    assert second.names("signed") == ["a.example.net"]


def test_a_member_gets_its_host_certificate_with_the_clusters_names(begun: Host, tmp_path: Path) -> None:
    out = tmp_path / "ssl"
    said = begun.run("issue-member", "proxy01", "--output", str(out), "--dry-run").stdout
    assert said.startswith(
        "Would issue proxy01.example.net with proxy01.example.net, proxy.example.net, puppet.example.net"
    )
    assert not out.exists()
    begun.run("issue-member", "proxy01", "--output", str(out))
    certificate = x509.load_pem_x509_certificate((out / "certs" / "proxy01.example.net.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["proxy01.example.net", "proxy.example.net", "puppet.example.net"]
    assert (out / "private_keys" / "proxy01.example.net.pem").stat().st_mode & 0o777 == 0o600
    verify = subprocess.run(
        ["openssl", "verify", "-crl_check_all", "-CAfile", out / "certs" / "ca.pem", "-CRLfile", out / "crl.pem",
         out / "certs" / "proxy01.example.net.pem"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert verify.returncode == 0, verify.stderr
    with pytest.raises(Conflict, match="exists; nothing was changed"):
        begun.run("issue-member", "proxy01", "--output", str(out))


# ------------------------------------------------------------------ promote


OLD, NEW = "127.0.0.41", "127.0.0.42"


class Site(Host):
    """Two members with puppetservers, the first of which signs; ``home`` of the second is this host."""

    def __init__(self, directory: Path, cadir: Path) -> None:
        self.directory = directory
        self.cluster = directory / "cluster.yaml"
        self.cadir, self.into = cadir, directory / "server" / "ca"
        (self.port,) = free_ports(OLD, 1)
        self.cluster.write_text(
            f"schema: 1\ncluster: demo\naddress: proxy.example.net\nstore: {{url: 'sqlite:///{directory}/store.db'}}\n"
            f"members:\n- {{id: 1, name: proxy01.example.net, address: {OLD}, kind: foreman}}\n"
            f"- {{id: 2, name: proxy02.example.net, address: {NEW}, kind: foreman}}\n"
            f"services: {{puppetca: {{member_port: {self.port}}}}}\nsigner: proxy01.example.net\n"
        )
        self.into.parent.mkdir()

    def promote(self, *more: str, code: int = NOT_DONE) -> dict[str, Any]:
        """Promote the second member from the directory."""
        wish = ("proxy02.example.net", "--copy", str(self.cadir), "--into", str(self.into), "--wait", "1")
        found: dict[str, Any] = self.json("promote", *wish, *more, code=code)
        return found


@pytest.fixture
def site(tmp_path: Path, cadir: Path) -> Site:
    return Site(tmp_path, cadir).made()


def test_a_signer_that_refuses_connections_is_fenced(site: Site) -> None:
    # There the new one is started next, which nobody does here.
    assert site.promote()["stopped_at"] == "start"
    assert site.into.is_dir()


def test_a_signer_that_answers_nothing_is_fenced_only_when_somebody_says_so(site: Site) -> None:
    with dropping(OLD, site.port):
        stopped = site.promote()
        assert stopped["stopped_at"] == "fence"
        assert "does not answer (127.0.0.41" in stopped["sentence"]
        assert "--it-is-off" in stopped["sentence"]
        assert not site.into.exists()
        assert site.json("promote", "--resume", "--wait", "1", code=NOT_DONE)["stopped_at"] == "fence"
        going = site.json("promote", "--resume", "--it-is-off", "--wait", "1", code=NOT_DONE)
        assert going["stopped_at"] == "start"
    assert site.into.is_dir()


def test_a_fence_that_succeeded_may_leave_a_silent_host_and_one_that_failed_may_not(site: Site) -> None:
    with dropping(OLD, site.port):
        stopped = site.promote("--fence", "false {member}")
        assert (stopped["stopped_at"], "false ended with 1" in stopped["sentence"]) == ("fence", True)
        site.run("promote", "--forget")
        assert site.promote("--fence", "true {member}")["stopped_at"] == "start"


def test_a_signer_that_still_signs_is_not_off_whatever_anybody_says(site: Site) -> None:
    with answering(site.directory, OLD, site.port, (site.cadir / "ca_crt.pem").read_text()):
        stopped = site.promote("--it-is-off", "--fence", "true {member}")
    assert stopped["stopped_at"] == "fence"
    assert "still answers as a Puppet CA on 127.0.0.41" in stopped["sentence"]


def test_forgetting_a_promotion_on_trial_keeps_it(site: Site) -> None:
    assert site.json("promote", "--forget", "--dry-run")["sentence"] == "There is no promotion."
    site.promote()
    tried = site.json("promote", "--forget", "--dry-run")
    assert tried["sentence"].startswith("Would forget the promotion of proxy02.example.net by ")
    assert site.json("promote", "--resume", "--wait", "1", code=NOT_DONE)["stopped_at"] == "start"
    assert site.json("promote", "--forget")["sentence"] == "Forgotten."
    assert site.json("promote", "--forget")["sentence"] == "There was no promotion."


def test_the_cluster_file_is_to_be_copied_before_balancers_are_asked(site: Site) -> None:
    planned = site.promote("--dry-run", code=0)
    assert planned["steps"][4].endswith(f"copy {site.cluster} to all other hosts first")
    with answering(site.directory, NEW, site.port, (site.cadir / "ca_crt.pem").read_text()):
        wish = ("proxy02.example.net", "--copy", str(site.cadir), "--into", str(site.into), "--wait", "5")
        said = site.run("promote", *wish).stderr.splitlines()
    copied = next(n for n, line in enumerate(said) if line.startswith(f"copy {site.cluster} to every other host now"))
    asked = next(n for n, line in enumerate(said) if line.startswith("ask for the CA through every balancer"))
    assert copied < asked
    assert "signer: proxy02.example.net" in site.cluster.read_text()
