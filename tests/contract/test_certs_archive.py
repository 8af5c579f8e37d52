"""Archives for Ruby members: made and installed by us, unpacked by tar, judged by openssl; one of the real layout."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muster.cli import muster
from muster.kernel.errors import Rejected

RUBY, OURS = "proxy01.example.net", "proxy02.example.net"
ADDRESS, ALIAS = "proxies.example.net", "smartproxy.example.net"

CLUSTER = f"""\
schema: 1
cluster: demo
address: {ADDRESS}
aliases: [{ALIAS}]
store: {{url: "sqlite:////nowhere/x.db"}}
members:
- {{id: 1, name: {RUBY}, address: 127.0.0.21, kind: foreman}}
- {{id: 2, name: {OURS}, address: {OURS}}}
signer: {RUBY}
"""


class Site:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "cluster.yaml"
        self.file.write_text(CLUSTER)
        assert self.certs("init").exit_code == 0

    def certs(self, *arguments: str | Path) -> Result:
        given = ["certs", *map(str, arguments), "--cluster", str(self.file), "--pki", str(self.directory / "pki")]
        return CliRunner().invoke(muster, given)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def openssl(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, input=given, check=False, timeout=60
    )


def good_for(purpose: str, certificate: Path, ca: Path) -> bool:
    return openssl("verify", "-CAfile", ca, "-purpose", purpose, certificate).returncode == 0


def test_an_archive_of_ours_is_unpacked_and_every_certificate_is_what_it_is_for(site: Site, tmp_path: Path) -> None:
    file = tmp_path / f"{RUBY}.tar.gz"
    dry = site.certs("archive", "create", "proxy01", "--output", file, "--dry-run")
    assert (dry.exit_code, file.exists()) == (0, False)
    said = site.certs("archive", "create", "proxy01", "--output", file)
    assert said.exit_code == 0, said.output
    assert (file.stat().st_mode & 0o777, "BEGIN" in said.output) == (0o600, False)
    # What the installer does first.
    subprocess.run(["tar", "-xf", file, "-C", tmp_path], check=True)
    below = tmp_path / "ssl-build" / RUBY
    for name, cas, purpose, other in (
        ("apache", "katello-server-ca.crt", "sslserver", None),
        ("foreman-proxy", "katello-server-ca.crt", "sslserver", None),
        ("foreman-proxy-client", "katello-default-ca.crt", "sslclient", "sslserver"),
        ("puppet-client", "katello-default-ca.crt", "sslclient", "sslserver"),
    ):
        certificate, ca = below / f"{RUBY}-{name}.crt", tmp_path / "ssl-build" / cas
        assert good_for(purpose, certificate, ca)
        assert other is None or not good_for(other, certificate, ca)
        text = openssl("x509", "-in", certificate, "-noout", "-text").stdout
        assert all(f"DNS:{one}" in text for one in (RUBY, ADDRESS, ALIAS))
        assert "Public-Key: (4096 bit)" in text
        modulus = [openssl(kind, "-in", f, "-noout", "-modulus").stdout for kind, f in (
            ("x509", certificate), ("rsa", below / f"{RUBY}-{name}.key"))]  # fmt: skip
        assert modulus[0] == modulus[1]
    inspected = site.certs("archive", "inspect", file)
    assert (inspected.exit_code, f"good for {RUBY} behind {ADDRESS}" in inspected.output) == (0, True)
    assert type(site.certs("archive", "create", "proxy01", "--output", file).exception).__name__ == "Conflict"


def test_an_archive_is_put_where_the_installer_would_and_what_lay_there_stays_beside(
    site: Site, tmp_path: Path
) -> None:
    file, root = tmp_path / "a.tgz", tmp_path / "root"
    assert site.certs("archive", "create", RUBY, "--output", file).exit_code == 0
    before = root / "etc/foreman-proxy/ssl_cert.pem"
    before.parent.mkdir(parents=True)
    before.write_text("the one before")
    dry = site.certs("archive", "install", file, "--root", root, "--dry-run")
    assert (dry.exit_code, before.read_text()) == (0, "the one before")
    for _ in range(2):
        said = site.certs("archive", "install", file, "--root", root, "--json")
        assert said.exit_code == 0, said.output
    assert (before.parent / "ssl_cert.pem.before-muster").read_text() == "the one before"
    written = json.loads(said.stdout)["written"]
    assert len(written) == 11
    assert all(not Path(p).stat().st_mode & 0o007 for p in written if "PRIVATE KEY" in Path(p).read_text())
    own = root / "etc/foreman-proxy"
    assert good_for("sslserver", own / "ssl_cert.pem", own / "foreman_ssl_ca.pem")
    assert good_for("sslclient", own / "foreman_ssl_cert.pem", own / "ssl_ca.pem")
    bundle = root / f"etc/pki/katello/private/{RUBY}-foreman-proxy-client-bundle.pem"
    assert openssl("rsa", "-in", bundle, "-noout", "-check").returncode == 0


def test_what_is_put_there_again_is_root_s_and_nothing_of_ours_is_kept_beside(site: Site, tmp_path: Path) -> None:
    file, root = tmp_path / "a.tgz", tmp_path / "root"
    assert site.certs("archive", "create", RUBY, "--output", file).exit_code == 0
    before = root / "etc/foreman-proxy/ssl_key.pem"
    before.parent.mkdir(parents=True)
    before.write_text("the one before")
    if os.geteuid() == 0:
        os.chown(before, 12_345, 12_345)
    # The second time stands for a run after one that was interrupted.
    for _ in range(2):
        assert site.certs("archive", "install", file, "--root", root).exit_code == 0
    assert [p.name for p in root.rglob("*.before-muster")] == ["ssl_key.pem.before-muster"]
    found = before.stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o440, os.geteuid())


def real_layout(directory: Path, *names: str) -> Path:
    """An archive as katello's tool makes one: a text in front of each certificate, Netscape's type, both usages."""
    build = directory / "ssl-build"
    (build / RUBY).mkdir(parents=True)
    ca = build / "katello-default-ca.crt"
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", directory / "ca.key", "-out", ca, "-days", "900",
        "-subj", "/C=US/ST=North Carolina/L=Raleigh/O=Katello/OU=SomeOrgUnit/CN=foreman.example.net",
    )  # fmt: skip
    for name in ("katello-server-ca.crt", "ca-bundle.crt"):
        (build / name).write_bytes(ca.read_bytes())
    for name, kind, unit in (
        ("apache", "server", "SomeOrgUnit"), ("foreman-proxy", "server", "SMART_PROXY"),
        ("foreman-proxy-client", "client", "FOREMAN_PROXY"), ("puppet-client", "client", "PUPPET"),
    ):  # fmt: skip
        below = build / RUBY / f"{RUBY}-{name}"
        (directory / "ext").write_text(
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n"
            f"nsCertType={kind}\nsubjectAltName={','.join(f'DNS:{n}' for n in (RUBY, *names))}\n"
        )
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{below}.key", "-out", directory / "csr",
            "-subj", f"/C=US/ST=North Carolina/O=FOREMAN/OU={unit}/CN={RUBY}",
        )  # fmt: skip
        made = openssl(
            "x509", "-req", "-in", directory / "csr", "-CA", ca, "-CAkey", directory / "ca.key", "-CAcreateserial",
            "-days", "800", "-extfile", directory / "ext", "-text",
        )  # fmt: skip
        Path(f"{below}.crt").write_text(made.stdout)
    file = directory / "real.tar.gz"
    subprocess.run(["tar", "-caf", file, "-C", directory, "ssl-build"], check=True)
    return file


def test_one_of_the_real_layout_is_inspected_and_put_into_place(site: Site, tmp_path: Path) -> None:
    file = real_layout(tmp_path / "made", ADDRESS, ALIAS)
    said = site.certs("archive", "inspect", file, "--json")
    found: dict[str, Any] = json.loads(said.stdout)
    assert (said.exit_code, found["format"], found["member"], found["complaints"]) == (0, "installer", RUBY, [])
    root = tmp_path / "root"
    assert site.certs("archive", "install", file, "--root", root).exit_code == 0
    own = root / "etc/foreman-proxy"
    assert (own / "ssl_cert.pem").read_text().startswith("Certificate:")
    assert good_for("sslserver", own / "ssl_cert.pem", own / "foreman_ssl_ca.pem")


def test_the_forgotten_name_is_found_before_it_is_installed(site: Site, tmp_path: Path) -> None:
    file = real_layout(tmp_path / "made")
    said = site.certs("archive", "inspect", file)
    assert said.exit_code == 1
    assert f"does not name {ADDRESS}, {ALIAS}" in said.output
    assert f"--foreman-proxy-cname {ADDRESS} --foreman-proxy-cname {ALIAS}" in said.output
    refused = site.certs("archive", "install", file, "--root", tmp_path / "root")
    assert isinstance(refused.exception, Rejected)
    assert not (tmp_path / "root").exists()


def test_a_member_of_ours_gets_a_bundle(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    assert site.certs("archive", "create", OURS, "--output", file, "--format", "foremanctl").exit_code == 0
    said = site.certs("archive", "install", file)
    assert said.exit_code == 0, said.output
    assert site.certs("verify", OURS).exit_code == 0
    bundle = site.directory / "pki" / "members" / OURS
    assert good_for("sslserver", bundle / "cert.pem", bundle / "ca.pem")


def test_a_browser_s_file_is_read_by_openssl_under_its_password(
    site: Site, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    said = site.certs("issue", "--client", "admin.example.net", "--p12", "--p12-password-file", password)
    assert said.exit_code == 0, said.output
    file = site.directory / "pki/clients/admin.example.net/admin.example.net.p12"
    assert (file.stat().st_mode & 0o777, "correct" in said.output) == (0o600, False)
    read = openssl("pkcs12", "-in", file, "-nodes", "-passin", f"file:{password}")
    assert (read.returncode, read.stdout.count("BEGIN CERTIFICATE"), "PRIVATE KEY" in read.stdout) == (0, 2, True)
    password.write_text("wrong\n")
    assert openssl("pkcs12", "-in", file, "-nodes", "-passin", f"file:{password}").returncode != 0
    # Read somehow it would be another password, which nobody knows.
    password.write_bytes("motörhead\n".encode("latin-1"))
    said = site.certs("issue", "--client", "other.example.net", "--p12", "--p12-password-file", password)
    assert "no UTF-8" in str(said.exception)
    assert not (site.directory / "pki/clients/other.example.net").exists()
    assert site.certs("issue", "--client", "other.example.net", "--p12-password-file", password).exit_code == 2
    assert site.certs("issue", "proxy01", "--p12", "--p12-password-file", password).exit_code == 2


def test_a_certificate_for_another_host_is_named_by_the_option_that_brought_it(site: Site, tmp_path: Path) -> None:
    assert site.certs("issue", "--client", "other.example.net").exit_code == 0
    other, file = site.directory / "pki/clients/other.example.net", tmp_path / "a.tar.gz"
    own = ("--server-cert", other / "cert.pem", "--server-key", other / "key.pem", "--server-ca-cert", other / "ca.pem")
    said = site.certs("archive", "create", "proxy01", "--output", file, *own)
    assert file.exists() is False
    assert str(said.exception).startswith(f"--server-cert is no server certificate for {RUBY}, ")
    assert f"The certificate of --server-cert does not name {RUBY}" in str(said.exception)
