"""Hosts and administrators as they call a CA."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert

from muster.authority.authority import PuppetCA
from muster.authority.ledger.entries import certificate_row, entry_of
from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import Issuer
from muster.store.engine import Store
from muster.store.tables import certificates
from tests.servers import puppetca
from tests.servers.puppetca import ADMINISTRATOR, asked

V1 = "/puppet-ca/v1"
CRL = f"{V1}/certificate_revocation_list/ca"
ADMIN = "foreman.example.net"


def admin() -> bytes:
    return puppetca.certificate_of(puppetca.new_ca(), "proxy01.example.net", cli_auth=ADMINISTRATOR)


def somebody() -> bytes:
    return puppetca.certificate_of(puppetca.new_ca(), "agent01.example.net")


async def enrolled(ca: PuppetCA, name: str, **wishes: Any) -> tuple[puppetca.Agent, bytes]:
    """Have a host enrol over the API; return it with its certificate, DER."""
    host = puppetca.agent(name, **wishes)
    put = await asked(ca, "PUT", f"{V1}/certificate_request/{name}", body=host.csr)
    assert (put.status, put.body) == (200, ""), put
    got = await asked(ca, "GET", f"{V1}/certificate/{name}")
    assert got.status == 200
    return host, x509.load_pem_x509_certificate(got.body.encode()).public_bytes(Encoding.DER)


def another(name: str) -> puppetca.NewCA:
    key = ec.generate_private_key(ec.SECP256R1())
    made = profile.self_signed(name, key, now=datetime.now(UTC), ttl=timedelta(days=1))
    return puppetca.NewCA(Issuer.read(profile.pem_of(made)), key)


async def imported(store: Store, name: str, key: Any, extra: list[x509.GeneralName]) -> bytes:
    """Put a certificate into the ledger that no request would get; return it, DER."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *extra]), critical=False)
    request = csr.as_der(builder.sign(key, hashes.SHA256()))
    new = puppetca.new_ca()
    signed = profile.signed_leaf(
        request, new.issuer, new.key, serial=profile.random_serial(), now=datetime.now(UTC), ttl=timedelta(days=9)
    )
    async with store.write() as uow:
        row = certificate_row(entry_of(signed), "importer")
        await uow.connection.execute(insert(certificates).values(**row, issued_at=0.0))
    return signed.public_bytes(Encoding.DER)
