"""What of a file of trusted certificates is not used, in words an operator can act on."""

from __future__ import annotations

from pathlib import Path

from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.pki import pem as pems
from muster.pki.complaints import Complaint, unreadable

# Whoever put one into a CA file wants it trusted.
_HOLD_CERTIFICATES = frozenset({"TRUSTED CERTIFICATE", "PKCS7", "CMS", "PKCS #7 SIGNED DATA"})


def verify_trust_file(path: Path) -> list[Complaint]:
    """Return what of a file of trusted certificates is not used; empty when all is, or there is no such file."""
    if not path.exists():
        return []
    try:
        pem = read_bounded(path, what="CA file", limit_bytes=pems.MAX_PEM_BYTES)
        pems.certificates(pem, f"The CA file {path}")
    except Misconfigured as e:
        return [
            unreadable(
                e,
                "The file is damaged, or another one; nothing of it is used.",
                "Copy it again; openssl x509 -noout -subject shows whether a block can be read.",
            )
        ]
    blocks = pems.passed_over(pem)
    if not blocks:
        return []
    trusted = any(b.label in _HOLD_CERTIFICATES for b in blocks)
    return [
        Complaint(
            "FILE-PASSED-OVER",
            f"The CA file {path} holds what is not used: {pems.listed(blocks)}",
            "Only plain certificates (BEGIN CERTIFICATE) are trusted. OpenSSL's trusted certificates carry uses they are "
            "good for and uses they are rejected for, which would be lost.",
            "Make it plain, when it is to be trusted for everything: openssl x509 -in BLOCK -out PLAIN (for PKCS7: openssl "
            "pkcs7 -print_certs); put that in its place. Remove what shall not be trusted.",
            "error" if trusted else "warning",
        )
    ]
