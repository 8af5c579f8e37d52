"""Who spoke in the recordings: the client certificates by their word in ``client_cert``, and the lab's names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.pki.authority import ClusterCA
from tests.servers.member import TRUSTED, FixedNames, Member, certificate

# Reverse and forward agree for .1, .2 and .5; .3 has another address under its name; .4 has no name.
NAMES = FixedNames(
    by_address={
        "127.0.0.1": "localhost",
        "127.0.0.2": TRUSTED,
        "127.0.0.3": "fwd.example.com",
        "127.0.0.5": "other.example.com",
    },
    by_name={
        "localhost": ["127.0.0.1"],
        TRUSTED: ["127.0.0.2"],
        "fwd.example.com": ["127.0.0.99"],
        "other.example.com": ["127.0.0.5"],
    },
)


def _named(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


_CN, _O, _OU, _C = (
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.COUNTRY_NAME,
)
_PLAIN = _named((_CN, TRUSTED))


def certificates(member: Member) -> Mapping[str, Path]:
    """Write one certificate per kind, the rogue one of another CA, and return their files."""
    home = member.directory
    ours = member.authority.directory
    rogue = ClusterCA.create(home / "rogue-ca", "rogue", now=datetime.now(UTC)).directory

    def path(kind: str) -> Path:
        return home / f"{kind}.pem"

    return {
        "foreman": certificate(ours, path("foreman"), _PLAIN, key_kind="rsa-2048"),
        "foreman-ec": certificate(ours, path("ec"), _PLAIN),
        "foreman-upper": certificate(ours, path("upper"), _named((_CN, TRUSTED.upper()))),
        "foreman-dn": certificate(ours, path("dn"), _named((_C, "DE"), (_O, "Lab"), (_OU, "Ops"), (_CN, TRUSTED))),
        "foreman-dn2": certificate(ours, path("dn2"), _named((_CN, TRUSTED), (_O, "Lab, Inc."), (_OU, "Ops"))),
        "foreman-expired": certificate(ours, path("expired"), _PLAIN, expired=True),
        "foreman-rogue": certificate(rogue, path("rogue"), _PLAIN),
        "other": certificate(ours, path("other"), _named((_CN, "other.example.com"))),
        "evilcn": certificate(ours, path("evilcn"), _named((_CN, f"{TRUSTED}.evil.test"))),
        "sanonly": certificate(ours, path("sanonly"), _named((_O, "Lab")), dns_names=[TRUSTED]),
    }
