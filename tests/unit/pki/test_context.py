from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from structlog.testing import capture_logs

from muster.kernel.errors import Misconfigured
from muster.pki import context as context_room
from muster.pki import pem as pems
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from muster.pki.context import RenewedContext, client_context, server_context
from muster.pki.trust_files import verify_trust_file

NOW = datetime.now(UTC)


@pytest.fixture
def ca(tmp_path: Path) -> ClusterCA:
    return ClusterCA.create(tmp_path, "demo", now=NOW)


@pytest.fixture
def member(ca: ClusterCA, tmp_path: Path) -> BundlePaths:
    return write(ca.issue(BundleRequest("member", "p1.example.com"), now=NOW), tmp_path)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes | None:
    """Shake hands in memory; return the client's certificate as the server saw it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    s = server.wrap_bio(to_server, to_client, server_side=True)
    c = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [c, s]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            break
    assert not waiting
    return s.getpeercert(True)


def test_every_cipher_has_forward_secrecy_whatever_python_takes_by_default(
    member: BundlePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_debian_builds_it(protocol: int) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.set_ciphers("DEFAULT")
        return made

    assert {c["kea"] for c in as_debian_builds_it(ssl.PROTOCOL_TLS_SERVER).get_ciphers()} > {"kx-rsa"}
    monkeypatch.setattr(context_room, "ssl", SimpleNamespace(**{**vars(ssl), "SSLContext": as_debian_builds_it}))
    context = server_context(member.certificate, member.key, [member.ca])
    assert {c["kea"] for c in context.get_ciphers()} == {"kx-any", "kx-ecdhe", "kx-dhe"}


def test_the_contexts_shake_hands_with_and_without_a_client_certificate(
    ca: ClusterCA, member: BundlePaths, tmp_path: Path
) -> None:
    foreman = write(ca.issue(BundleRequest("client", "foreman.example.com"), now=NOW), tmp_path)
    server = server_context(member.certificate, member.key, [member.ca])
    assert shaken(server, client_context(foreman.ca), "p1.example.com") is None
    with_certificate = client_context(foreman.ca, foreman.certificate, foreman.key)
    assert shaken(server, with_certificate, "p1.example.com") is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, client_context(foreman.ca), "other.example.com")


def test_without_a_ca_file_it_is_the_hosts_trust_and_further_files(
    ca: ClusterCA, member: BundlePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_context(member.certificate, member.key, [member.ca])
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, client_context(None), "p1.example.com")
    assert shaken(server, client_context(None, also=[member.ca]), "p1.example.com") is None
    # What the host trusts, as OpenSSL is told.
    monkeypatch.setenv("SSL_CERT_FILE", str(member.ca))
    assert shaken(server, RenewedContext(None)(), "p1.example.com") is None
    assert shaken(server, client_context(None, member.certificate, member.key), "p1.example.com") is not None


def test_a_client_of_another_ca_ends_the_handshake(member: BundlePaths, tmp_path: Path) -> None:
    other = ClusterCA.create(tmp_path / "other", "demo", now=NOW)
    foreign = write(other.issue(BundleRequest("client", "foreman.example.com"), now=NOW), tmp_path / "other")
    server = server_context(member.certificate, member.key, [member.ca])
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, client_context(member.ca, foreign.certificate, foreign.key), "p1.example.com")


def test_the_listener_context_is_strict(member: BundlePaths) -> None:
    context = server_context(member.certificate, member.key, [member.ca])
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert context.num_tickets == 1
    assert context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_the_environments_cas_are_not_trusted(
    member: BundlePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ClusterCA.create(tmp_path / "other", "demo", now=NOW)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other" / "ca.pem"))
    found = client_context(member.ca).get_ca_certs(binary_form=True)
    assert found == [ClusterCA.open(tmp_path).certificate.public_bytes(Encoding.DER)]
    assert other.certificate.public_bytes(Encoding.DER) not in found


def test_each_unusable_file_has_its_sentence(ca: ClusterCA, member: BundlePaths, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    other = write(ca.issue(BundleRequest("member", "p2.example.com"), now=NOW), tmp_path)
    key = pems.private_key(member.key.read_bytes(), "key")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    absent = tmp_path / "absent.pem"
    for certificate, key_path, ca_files, said in (
        (absent, member.key, [member.ca], r"absent\.pem failed: No such file"),
        (empty, member.key, [member.ca], "not a PEM certificate"),
        (garbage, member.key, [member.ca], "cannot be read"),
        (member.certificate, other.key, [member.ca], "does not belong to the certificate"),
        (member.certificate, empty, [member.ca], "not a PEM private key"),
        (member.certificate, locked, [member.ca], "encrypted with a passphrase"),
        (member.certificate, member.key, [absent], r"absent\.pem failed: No such file"),
        (member.certificate, member.key, [garbage], "cannot be read"),
        (member.certificate, member.key, [], "no CA to verify clients"),
    ):
        with pytest.raises(Misconfigured, match=said):
            server_context(certificate, key_path, ca_files)


def test_an_expired_certificate_is_served_with_a_warning(member: BundlePaths) -> None:
    with capture_logs() as logs:
        server_context(member.certificate, member.key, [member.ca], now=NOW + timedelta(days=1000))
    assert [(r["log_level"], "expired on" in r["event"]) for r in logs] == [("warning", True)]
    with capture_logs() as logs:
        server_context(member.certificate, member.key, [member.ca], now=NOW)
    assert logs == []


def test_the_balancers_one_file_is_certificate_and_key(ca: ClusterCA, tmp_path: Path) -> None:
    at = write(ca.issue(BundleRequest("balancer", "balancer"), now=NOW), tmp_path)
    client_context(at.ca, at.certificate)


def test_a_renewed_context_follows_its_files_and_outlives_garbage(ca: ClusterCA, member: BundlePaths) -> None:
    renewed = RenewedContext(member.ca, member.certificate, member.key)
    first = renewed()
    assert renewed() is first
    write(ca.issue(BundleRequest("member", member.name), now=datetime.now(UTC)), ca.directory)
    second = renewed()
    assert second is not first
    member.certificate.write_text("garbage")
    assert renewed() is second
    write(ca.issue(BundleRequest("member", member.name), now=datetime.now(UTC)), ca.directory)
    assert renewed() not in (first, second)


def trusted_form(certificate: Path, *how: str) -> str:
    """The certificate as OpenSSL writes one with the uses it is trusted, or rejected, for."""
    command = ["openssl", "x509", "-in", str(certificate), "-trustout", *how]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.mark.parametrize(
    "how", [("-addtrust", "clientAuth"), ("-addreject", "clientAuth")], ids=["trusted", "rejected"]
)
def test_a_ca_that_only_openssl_s_own_form_has_is_named_and_not_trusted(
    ca: ClusterCA, member: BundlePaths, tmp_path: Path, how: tuple[str, str]
) -> None:
    site = ClusterCA.create(tmp_path / "site", "site", now=NOW)
    foreman = write(site.issue(BundleRequest("client", "foreman.example.com"), now=NOW), tmp_path / "site")
    file = tmp_path / "foreman-ca.pem"
    file.write_text(f"{ca.chain_pem}Foreman's:\n{trusted_form(site.directory / 'ca.pem', *how)}")
    line = ca.chain_pem.count("\n") + 2
    with capture_logs() as logs:
        server = server_context(member.certificate, member.key, [member.ca, file])
    (said,) = [record["event"] for record in logs]
    assert f"{file} holds what is not used: block 2 (line {line}, TRUSTED CERTIFICATE)" in said
    assert "openssl x509 -in" in said
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, client_context(ca.directory / "ca.pem", foreman.certificate, foreman.key), "p1.example.com")
    assert [(c.code, c.severity) for c in verify_trust_file(file)] == [("FILE-PASSED-OVER", "error")]


def test_a_client_that_follows_its_files_names_what_it_passes_over(ca: ClusterCA, tmp_path: Path) -> None:
    file = tmp_path / "puppet-ca.pem"
    file.write_text(ca.chain_pem)
    renewed = RenewedContext(file)
    with capture_logs() as logs:
        file.write_text(f"{ca.chain_pem}-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n")
        renewed()
    assert ["PKCS7" in record["event"] for record in logs] == [True]
