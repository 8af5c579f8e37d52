"""Puppet CAs in this process: the recorded one taken over, or a small new one; calls to them as clients make them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from muster.authority import api
from muster.authority.authority import PuppetCA, opened
from muster.authority.hand import Hand
from muster.authority.ledger.ledger import Ledger
from muster.authority.lists import RevocationLists
from muster.authority.moves import transfer
from muster.authority.moves.directory import read_directory
from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import CAKey, Issuer
from muster.cluster.file import Authority
from muster.edge.request import Peer
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.secrets import Secret
from muster.store.engine import Store
from muster.store.engine import opened as stored
from tests.unit.edge import calls
from tests.wire import golden

RECORDED = golden.directory("puppet-ca")
"""The recordings of a real puppetserver."""

ANYBODY = "192.0.2.9"
AUTHORISED = x509.ObjectIdentifier("1.3.6.1.4.1.34380.1.3.39")


@cache
def client(name: str) -> bytes:
    """Return one of the recorded client certificates, DER: ``agent``, ``cli``, ``revoked``, ``expired`` or ``foreign``."""
    return x509.load_pem_x509_certificate((RECORDED / "tls" / f"{name}.pem").read_bytes()).public_bytes(Encoding.DER)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def content_type(self) -> str | None:
        return self.headers.get("content-type")


async def asked(
    ca: PuppetCA,
    method: str,
    path: str,
    *,
    by: bytes | None = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    address: str = ANYBODY,
) -> Answer:
    """Ask a CA over its HTTP API, without a socket; ``by`` is the client's certificate."""
    request = calls.request(
        method, path, by=Peer(address, by), headers=dict(headers or {}), body=(body,) if body else ()
    )
    reply = await api.answered(ca, request)
    return Answer(reply.status, {k.decode(): v.decode() for k, v in reply.headers}, reply.body.decode())


def key_pem(key: CAKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def put_key(home: Path, pem: bytes) -> None:
    """Put a CA's key where a member looks for it."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "ca_key.pem").write_bytes(pem)
    (home / "ca_key.pem").chmod(0o600)


async def take_over(store: Store, home: Path, directory: Path = RECORDED / "cadir-sample") -> None:
    """Take a CA directory over as ``muster ca import`` does, key included."""
    put_key(home, (directory / "ca_key.pem").read_bytes())
    found = read_directory(directory, now=datetime.now(UTC))
    assert found.key is not None
    await transfer.take_over(store, found, member="importer", key=found.key, crl_ttl_days=1825)


@dataclass(frozen=True)
class NewCA:
    """A CA of its own with a quick key."""

    issuer: Issuer
    key: CAKey


@cache
def new_ca(name: str = "Puppet CA: test", kind: str = "ec") -> NewCA:
    """Return a self-signed CA; the same one for the same arguments."""
    key: CAKey
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    elif kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    made = profile.self_signed(name, key, now=datetime.now(UTC), ttl=timedelta(days=1825))
    return NewCA(Issuer.read(profile.pem_of(made)), key)


async def begin(store: Store, home: Path, new: NewCA | None = None, settings: Authority | None = None) -> NewCA:
    """Begin a ledger with a new CA as ``muster ca init`` does."""
    new = new or new_ca()
    settings = settings or Authority()
    put_key(home, key_pem(new.key))
    ledger = Ledger(store, "maker")
    lists = RevocationLists(Hand(ledger, settings, new.issuer, new.key, SystemClock()))
    await ledger.create(new.issuer.chain_pem, build=lists.build)
    return new


@contextlib.asynccontextmanager
async def member(
    store: Store, home: Path, settings: Authority | None = None, *, name: str = "proxy01", clock: Clock | None = None
) -> AsyncIterator[PuppetCA]:
    """Hold one member's CA open; every request is taken unless the settings say otherwise."""
    settings = settings or Authority(requests_per_minute=0)
    async with opened(store, settings, member=name, home=home, clock=clock) as ca:
        yield ca


@dataclass(frozen=True)
class Agent:
    """A host that asks for a certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey
    csr: bytes


def agent(
    name: str,
    *,
    alternatives: tuple[x509.GeneralName, ...] = (),
    extensions: tuple[tuple[str, bytes], ...] = (),
    challenge: str | None = None,
    renews: bool = False,
) -> Agent:
    """Return a host with a request of its own; extension values are raw DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    for number, value in extensions:
        oid = x509.ObjectIdentifier(number)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    if challenge is not None:
        builder = builder.add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), challenge.encode())
    if renews:
        builder = builder.add_attribute(x509.ObjectIdentifier("1.3.6.1.4.1.34380.1.3.2"), b"true")
    return Agent(name, key, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


# Of no meaning to anybody, and refused by number where only known extensions are signed.
UNKNOWN, UNKNOWN_NEXT = x509.ObjectIdentifier("1.2.3.4.5"), x509.ObjectIdentifier("1.2.3.4.6")


async def begun_with(store: Secret, home: Path, name: str) -> tuple[str, bytes]:
    """Begin a CA in a store and sign for a name; return the chain, and certificate and key in one PEM."""
    async with stored(store) as opening:
        await begin(opening, home)
        async with member(opening, home, Authority(autosign=("all",))) as ca:
            host = agent(name)
            assert await ca.requests.submit(name, host.csr, source=ANYBODY)
            key = host.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            return ca.chain_pem, (await ca.certificates.pem(name)).encode() + key


async def revoked_by(store: Secret, home: Path, name: str) -> None:
    """Revoke a name's certificate, as on another member."""
    async with stored(store) as opening, member(opening, home, Authority()) as ca:
        await ca.certificates.revoke(name, actor="test")


def said_twice(tbs: bytes) -> bytes:
    """Return what is to be signed with ``UNKNOWN_NEXT`` renamed ``UNKNOWN``; no library writes an extension twice."""
    assert tbs.count(b"\x06\x04\x2a\x03\x04\x06") == 1
    return tbs.replace(b"\x06\x04\x2a\x03\x04\x06", b"\x06\x04\x2a\x03\x04\x05")


def request_with_extension_twice(name: str) -> bytes:
    """Return a PEM request that says ``UNKNOWN`` twice; signed, so that only its content is wrong."""
    key = ec.generate_private_key(ec.SECP256R1())
    value = b"\x0c\x01a"
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.UnrecognizedExtension(UNKNOWN, value), critical=False)
        .add_extension(x509.UnrecognizedExtension(UNKNOWN_NEXT, value), critical=False)
        .sign(key, hashes.SHA256())
    )
    tbs = said_twice(made.tbs_certrequest_bytes)
    # The signature is the last of three parts and may change its length, which the outer length counts.
    algorithm = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    content = tbs + algorithm + b"\x03" + _der_length(len(signature) + 1) + b"\0" + signature
    return csr.of_der(b"\x30" + _der_length(len(content)) + content).pem.encode()


def _der_length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    size_bytes = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(size_bytes)]) + size_bytes


def certificate_of(new: NewCA, name: str, *, cli_auth: bytes | None = None, ttl_s: int = 86_400) -> bytes:
    """Return a certificate the CA signed beside its ledger, DER; ``cli_auth`` is the raw value of pp_cli_auth."""
    extra = ((AUTHORISED.dotted_string, cli_auth),) if cli_auth is not None else ()
    made = profile.signed_leaf(
        csr.read(agent(name, extensions=extra).csr),
        new.issuer,
        new.key,
        serial=profile.random_serial(),
        now=datetime.now(UTC),
        ttl=timedelta(seconds=ttl_s),
    )
    return made.public_bytes(Encoding.DER)


ADMINISTRATOR = b"\x0c\x04true"
"""The value of pp_cli_auth that lets a certificate sign and revoke."""


def revoked_in(pem: str) -> set[int]:
    """Return the serials of the first list in a text."""
    return {r.serial_number for r in x509.load_pem_x509_crl(pem.encode())}


def number_in(pem: str) -> int:
    """Return the number of the first list in a text."""
    first = x509.load_pem_x509_crl(pem.encode())
    return first.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
