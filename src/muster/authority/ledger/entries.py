"""What is written into the ledger: certificates, requests, entries of its lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from cryptography import x509

from muster.authority.ledger.lookup import Published
from muster.authority.x509 import profile
from muster.authority.x509.csr import CertificateRequest

_SERIAL_DIGITS = 40


class Revoked(NamedTuple):
    """One entry of a revocation list; the name is None when only the serial is known."""

    serial: int
    at: datetime
    certname: str | None


Builder = Callable[[Sequence[Revoked], int], tuple[str, str, float]]
"""Makes lists from what is revoked and the number: the own list, the infra list, and the next update."""

Outdated = Callable[[Sequence[Revoked], Published], bool]
"""Whether the lists in force are not those that the settings of now would make from what is revoked."""


@dataclass(frozen=True)
class Entry:
    """A certificate as it is written.

    Attributes:
        status: JSON of what a status object says of it, less its state.
    """

    serial: int
    certname: str
    pem: str
    not_before: datetime
    not_after: datetime
    status: str


@dataclass(frozen=True)
class Pending:
    """A request as it is written."""

    certname: str
    pem: str
    sha256: str
    status: str
    source: str
    flaw: str | None = None


def serial_text(serial: int) -> str:
    """Return a serial as the ledger's key: SQL integers are too small for it."""
    return f"{serial:0{_SERIAL_DIGITS}X}"


def certificate_row(entry: Entry, member: str, state: str = "live") -> dict[str, Any]:
    """Return a certificate's columns, less the time it was issued."""
    return {
        "serial": serial_text(entry.serial),
        "certname": entry.certname,
        "pem": entry.pem,
        "not_before": entry.not_before.timestamp(),
        "not_after": entry.not_after.timestamp(),
        "state": state,
        "status": entry.status,
        "issued_by": member,
    }


def entry_of(certificate: x509.Certificate, name: str | None = None) -> Entry:
    """Return a certificate as the ledger keeps it."""
    return Entry(
        serial=certificate.serial_number,
        certname=name or profile.common_name(certificate.subject),
        pem=profile.pem_of(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        status=_json(profile.status_of(certificate)),
    )


def pending_of(request: CertificateRequest, *, source: str = "", flaw: str | None = None) -> Pending:
    """Return a request as the ledger keeps it."""
    status = _json(profile.status_of_request(request))
    return Pending(request.name, request.pem, request.sha256, status, source, flaw)


def _json(content: dict[str, object]) -> str:
    prints = content["fingerprints"]
    assert isinstance(prints, dict)  # noqa: S101 - made by profile
    return json.dumps({**content, "fingerprint": prints["SHA256"]}, ensure_ascii=False, separators=(",", ":"))
