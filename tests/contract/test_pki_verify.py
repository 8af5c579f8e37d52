"""What ``verify_port`` says of real TLS servers with deliberately wrong certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from muster.pki.complaints import Complaint
from muster.pki.context import server_context
from muster.pki.verify import verify_files, verify_port

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
NAME = "proxy01.example.com"
DAY = timedelta(days=1)
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Site:
    """Our CA and the directory it lies in."""

    directory: Path
    ca: ClusterCA

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def member(self, *names: str, now: datetime = NOW, days: int = 825) -> BundlePaths:
        request = BundleRequest("member", names[0] if names else NAME, names[1:])
        return write(self.ca.issue(request, now=now, valid_days=days), self.directory)

    def client(self) -> BundlePaths:
        return write(self.ca.issue(BundleRequest("client", "foreman.example.com"), now=NOW), self.directory)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return made(tmp_path / "pki")


def made(directory: Path, name: str = "demo", since: datetime = NOW - 400 * DAY) -> Site:
    return Site(directory, ClusterCA.create(directory, name, now=since))


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One plain HTTP answer, whatever is asked."""
    with contextlib.suppress(OSError):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


@contextlib.asynccontextmanager
async def listening(tls: ssl.SSLContext | None, speak: Speak = answering) -> AsyncIterator[int]:
    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def serving(at: BundlePaths) -> ssl.SSLContext:
    return server_context(at.certificate, at.key, [at.ca])


async def asked(
    site: Site,
    port: int,
    *,
    name: str = NAME,
    client: BundlePaths | None = None,
    now: datetime = NOW,
    timeout_s: float = 5.0,
) -> list[Complaint]:
    return await verify_port(
        "127.0.0.1",
        port,
        server_name=name,
        ca_file=site.ca_file,
        certificate=client.certificate if client else None,
        key=client.key if client else None,
        now=now,
        timeout_s=timeout_s,
    )


def codes(found: Sequence[Complaint]) -> list[str]:
    return [c.code for c in found]


def one(found: Sequence[Complaint], code: str) -> str:
    assert codes(found) == [code], found
    assert found[0].cause
    assert found[0].remedy
    return found[0].sentence


def handmade(
    directory: Path,
    *,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    name: str = NAME,
    alternatives: bool = True,
) -> BundlePaths:
    """A self-signed certificate, as a package's installation makes one."""
    directory.mkdir(parents=True, exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 100 * DAY)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate, key_path = directory / "cert.pem", directory / "key.pem"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_path.chmod(0o600)
    return BundlePaths("member", name, directory, certificate, key_path, certificate)


async def test_a_sound_port_draws_no_complaint(site: Site) -> None:
    async with listening(serving(site.member())) as port:
        assert await asked(site, port) == []
        assert await asked(site, port, client=site.client()) == []


async def test_an_address_is_verified_as_an_address(site: Site) -> None:
    request = BundleRequest("member", NAME, (), ("127.0.0.1",))
    at = write(site.ca.issue(request, now=NOW), site.directory)
    async with listening(serving(at)) as port:
        assert await asked(site, port, name="127.0.0.1") == []
        assert "127.0.0.2" in one(await asked(site, port, name="127.0.0.2"), "TLS-NAME")


async def test_a_closed_port_is_refused(site: Site) -> None:
    async with listening(None) as port:
        pass
    assert f"127.0.0.1:{port}" in one(await asked(site, port), "TLS-REFUSED")


async def test_a_silent_port_times_out(site: Site) -> None:
    async with listening(None, silent) as port:
        assert "no TLS handshake came" in one(await asked(site, port, timeout_s=0.3), "TLS-TIMEOUT")


async def test_a_port_nobody_accepts_on_times_out(site: Site) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        assert "no answer within" in one(await asked(site, port, timeout_s=0.3), "TLS-TIMEOUT")
        for filler in fillers:
            filler.close()


async def test_plain_http_is_told_from_tls(site: Site) -> None:
    async with listening(None) as port:
        assert "speaks plain HTTP" in one(await asked(site, port), "TLS-NOT-TLS")


async def test_another_protocol_is_told_from_tls(site: Site) -> None:
    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9\r\n")
        await silent(reader, writer)

    async with listening(None, greeting) as port:
        assert "SSH-2.0" in one(await asked(site, port), "TLS-NOT-TLS")


async def test_a_port_that_hangs_up_fails_the_handshake(site: Site) -> None:
    async def rude(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(None, rude) as port:
        assert "closed by the other side" in one(await asked(site, port), "TLS-HANDSHAKE")


async def test_an_unknown_host_is_unresolved(site: Site) -> None:
    found = await verify_port("nowhere.invalid", 443, server_name=NAME, ca_file=site.ca_file, now=NOW)
    assert codes(found) == ["TLS-UNRESOLVED"]


async def test_expired_says_for_how_long(site: Site) -> None:
    at = site.member(now=NOW - 40 * DAY, days=35)
    async with listening(serving(at)) as port:
        assert "expired 5 days ago" in one(await asked(site, port), "TLS-EXPIRED")


async def test_not_yet_valid_suspects_the_clock(site: Site) -> None:
    at = site.member(now=NOW + 3 * DAY)
    async with listening(serving(at)) as port:
        found = await asked(site, port)
    assert "2 days from now" in one(found, "TLS-NOT-YET-VALID")
    assert "clock" in found[0].cause


@pytest.mark.parametrize(("left", "said"), [(0.5, "1 day left"), (6.5, "7 days left"), (29.5, "30 days left")])
async def test_a_near_end_is_a_warning(site: Site, left: float, said: str) -> None:
    at = site.member(days=100)
    async with listening(serving(at)) as port:
        found = await asked(site, port, now=NOW + timedelta(days=100 - left))
        assert await asked(site, port, now=NOW + timedelta(days=69)) == []
    assert said in one(found, "TLS-EXPIRES-SOON")
    assert found[0].severity == "warning"


async def test_wrong_names_lists_what_it_has_and_what_was_expected(site: Site) -> None:
    at = site.member("other.example.com", "alias.example.com")
    async with listening(serving(at)) as port:
        sentence = one(await asked(site, port), "TLS-NAME")
    assert f"does not name {NAME}; it names other.example.com, alias.example.com" in sentence


async def test_a_foreign_ca_is_named_beside_ours(site: Site, tmp_path: Path) -> None:
    foreign = made(tmp_path / "foreign", "elsewhere")
    async with listening(serving(foreign.member())) as port:
        sentence = one(await asked(site, port), "TLS-CA")
    assert "O=elsewhere" in sentence
    assert "O=demo" in sentence


async def test_a_ca_of_the_same_name_with_another_key_is_told_apart(site: Site, tmp_path: Path) -> None:
    twin = made(tmp_path / "twin")
    async with listening(serving(twin.member())) as port:
        assert "but another key" in one(await asked(site, port), "TLS-CA-KEY")


async def test_self_signed_is_said(site: Site, tmp_path: Path) -> None:
    async with listening(serving(handmade(tmp_path / "own"))) as port:
        assert "signed by itself" in one(await asked(site, port), "TLS-SELF-SIGNED")


async def test_a_common_name_alone_does_not_count(site: Site, tmp_path: Path) -> None:
    async with listening(serving(handmade(tmp_path / "own", alternatives=False))) as port:
        found = await asked(site, port)
    assert codes(found) == ["TLS-NAME", "TLS-SELF-SIGNED"]
    assert "common name" in found[0].sentence


async def test_a_weak_key_is_said(site: Site, tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    at = handmade(tmp_path / "weak", key=weak)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.load_cert_chain(at.certificate, at.key)
    async with listening(tls) as port:
        found = await asked(site, port)
    assert codes(found) == ["TLS-SELF-SIGNED", "TLS-WEAK"]
    assert "RSA 1024" in found[1].sentence


async def test_a_clients_certificate_on_a_server_is_said(site: Site) -> None:
    at = write(site.ca.issue(BundleRequest("client", NAME), now=NOW), site.directory)
    async with listening(serving(at)) as port:
        one(await asked(site, port), "TLS-PURPOSE")


@contextlib.contextmanager
def alerting(tls: ssl.SSLContext) -> Iterator[int]:
    """A server whose refusals carry a TLS alert; asyncio's hang up without one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), connection, tls.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(1024)
                    wrapped.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_refused_client_certificate_is_noticed(site: Site, tmp_path: Path, version: ssl.TLSVersion) -> None:
    foreign = made(tmp_path / "foreign", "elsewhere")
    at = site.member()
    tls = server_context(at.certificate, at.key, [foreign.ca_file])
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.minimum_version = tls.maximum_version = version
    with alerting(tls) as port:
        sentence = one(await asked(site, port, client=site.client()), "TLS-CLIENT-REFUSED")
        assert "unknown ca" in sentence
        one(await asked(site, port), "TLS-CLIENT-REQUIRED")
        assert await asked(site, port, client=foreign.client()) == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_refusal_without_an_alert_is_noticed(site: Site, tmp_path: Path, version: ssl.TLSVersion) -> None:
    foreign = made(tmp_path / "foreign", "elsewhere")
    at = site.member()
    tls = server_context(at.certificate, at.key, [foreign.ca_file])
    tls.minimum_version = tls.maximum_version = version
    async with listening(tls) as port:
        one(await asked(site, port, client=site.client()), "TLS-CLIENT-REFUSED")
        assert await asked(site, port) == []


async def test_a_port_that_only_dislikes_http_did_not_refuse_us(site: Site) -> None:
    async def choosy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with listening(serving(site.member()), choosy) as port:
        assert await asked(site, port, client=site.client(), timeout_s=0.5) == []


def with_intermediate(directory: Path) -> tuple[Site, Path]:
    """A site whose CA is an intermediate, and a file that holds only the root."""
    since = NOW - DAY
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root")])
    made_pems = []
    for name, public in ((root_name, root_key), (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sub")]), key)):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(root_name).public_key(public.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(since)
        builder = builder.not_valid_after(NOW + 365 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made_pems.append(builder.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    root, intermediate = made_pems
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    site = Site(directory, ClusterCA.adopt(directory, intermediate + root, key_pem))
    only_root = directory / "root.pem"
    only_root.write_bytes(root)
    return site, only_root


async def test_an_intermediate_that_is_not_sent_is_noticed(tmp_path: Path) -> None:
    site, only_root = with_intermediate(tmp_path / "pki")
    at = site.member()
    async with listening(serving(at)) as port:
        assert await asked(site, port) == []
        found = await verify_port("127.0.0.1", port, server_name=NAME, ca_file=only_root, now=NOW)
        assert found == []
    leaf = x509.load_pem_x509_certificates(at.certificate.read_bytes())[0]
    bare = at.certificate.with_name("bare.pem")
    bare.write_bytes(leaf.public_bytes(Encoding.PEM))
    async with listening(server_context(bare, at.key, [only_root])) as port:
        assert "CN=Sub" in one(await asked(site, port), "TLS-CHAIN")
        found = await verify_port("127.0.0.1", port, server_name=NAME, ca_file=only_root, now=NOW)
    assert "CN=Sub" in one(found, "TLS-CA")
    assert "does not send" in found[0].cause


async def test_an_old_tls_version_is_said(site: Site) -> None:
    at = site.member()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
    tls.load_cert_chain(at.certificate, at.key)
    async with listening(tls) as port:
        assert "TLSv1.1 at best" in one(await asked(site, port), "TLS-OLD")


def test_sound_files_draw_no_complaint(site: Site) -> None:
    assert verify_files(site.member(), site.ca_file, [NAME], NOW) == []
    assert verify_files(site.client(), site.ca_file, ["foreman.example.com"], NOW) == []
    balancer = write(site.ca.issue(BundleRequest("balancer", "balancer"), now=NOW), site.directory)
    assert verify_files(balancer, site.ca_file, ["balancer"], NOW) == []


def test_each_wrong_file_has_its_complaint(site: Site, tmp_path: Path) -> None:
    at = site.member()
    found = verify_files(at, site.ca_file, [NAME, "alias.example.com", "127.0.0.9"], NOW)
    assert "alias.example.com, 127.0.0.9" in one(found, "TLS-NAME")
    one(verify_files(at, site.ca_file, [NAME], NOW + 900 * DAY), "TLS-EXPIRED")
    at.key.chmod(0o640)
    assert "0640" in one(verify_files(at, site.ca_file, [NAME], NOW), "FILE-MODE")
    at.key.chmod(0o600)
    key = at.key.read_bytes()
    at.key.write_bytes(handmade(tmp_path / "own").key.read_bytes())
    one(verify_files(at, site.ca_file, [NAME], NOW), "FILE-MISMATCH")
    at.key.write_text("nonsense")
    one(verify_files(at, site.ca_file, [NAME], NOW), "FILE-UNREADABLE")
    at.key.unlink()
    one(verify_files(at, site.ca_file, [NAME], NOW), "FILE-MISSING")
    at.key.write_bytes(key)
    twin = made(tmp_path / "twin")
    at.key.chmod(0o600)
    assert codes(verify_files(at, twin.ca_file, [NAME], NOW)) == ["FILE-CA", "TLS-CA-KEY"]
