"""What is read out of what a port shows; tests/contract/test_pki_verify.py asks ports."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from muster.kernel.errors import Misconfigured
from muster.pki import pem as pems
from muster.pki.port import _chain

_A_NAME_OF_NO_KIND = bytes.fromhex("3004a3020500")
_NO_LIST = b"\x04\x01x"


def made(*alternatives: bytes) -> x509.Certificate:
    """Return a certificate with these alternative names, as they are."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    for one in alternatives:
        oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, one), critical=False)
    return builder.sign(key, hashes.SHA256())


class Showing:
    def __init__(self, certificate: x509.Certificate) -> None:
        self._der = certificate.public_bytes(serialization.Encoding.DER)

    def getpeercert(self, binary: bool) -> bytes:
        assert binary
        return self._der


def shown(certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
    return _chain(cast("Any", Showing(certificate)))


@pytest.mark.parametrize("alternatives", [_NO_LIST, _A_NAME_OF_NO_KIND])
def test_a_certificate_that_could_not_be_judged_later_is_none(alternatives: bytes) -> None:
    fine, certificate = made(), made(alternatives)
    assert shown(fine) == (fine,)
    with pytest.raises(ssl.SSLError, match="unreadable certificate"):
        shown(certificate)
    with pytest.raises(Misconfigured, match="holds a certificate that cannot be read"):
        pems.certificates(certificate.public_bytes(serialization.Encoding.PEM), "The file")
