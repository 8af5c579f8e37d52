"""Certificate requests to a member's Puppet CA, as hosts and as those who mean no good make them.

``python -m tests.faults.enrolling`` sends many, in a process of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import sys
from collections import Counter

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey
_V1 = "/puppet-ca/v1"


def request_of(name: str, key: Key) -> bytes:
    """Return a certificate request in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM)


class Enrolment:
    """One client of the CA's port, without a certificate, on one connection; closed by its ``with``."""

    def __init__(self, host: str, port: int, source: str) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(host, port, context=tls, source_address=(source, 0), timeout=30)

    def __enter__(self) -> Enrolment:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, name: str, key: Key) -> int:
        """Send a request and return the status."""
        return self._called("PUT", f"certificate_request/{name}", request_of(name, key))[0]

    def certificate(self, name: str) -> x509.Certificate | None:
        """Return the certificate of a name, None while it has none."""
        status, body = self._called("GET", f"certificate/{name}")
        return x509.load_pem_x509_certificate(body) if status == 200 else None

    def _called(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        self._connection.request(method, f"{_V1}/{path}", body or None, {"Content-Type": "text/plain"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.enrolling", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--source", default="127.0.0.200")
    parser.add_argument("--requests", type=int, default=300)
    given = parser.parse_args()
    key = ec.generate_private_key(ec.SECP256R1())
    with Enrolment(given.host, given.port, given.source) as client:
        found = Counter(client.ask(f"flood{n}.muster.test", key) for n in range(given.requests))
    sys.stdout.write(json.dumps({str(status): count for status, count in sorted(found.items())}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
