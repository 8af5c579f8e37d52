"""A puppetserver's CA directory: everything there is, and everything that is wrong with it. Nothing is changed.

Source: docs/facts/puppet-ca.md §2.5, §7.8.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from muster.authority.keys.contract import checked
from muster.authority.keys.file import in_file
from muster.authority.ledger.entries import Entry, entry_of
from muster.authority.x509 import csr, profile
from muster.authority.x509.csr import CertificateRequest
from muster.authority.x509.profile import CAKey, Issuer, crls_in
from muster.kernel.errors import Misconfigured, MusterError, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.names import shown
from muster.pki import pem as pems

Progress = Callable[[str, int, int], None]
"""Hears what is done, how much of it, and how much there is."""

BATCH = 500
"""How many certificates are read or written between two words about progress."""
CRL_LIMIT_BYTES = 256 << 20
_INVENTORY_LIMIT_BYTES = 512 << 20
_INVENTORY_LINE = re.compile(
    r"0x([0-9A-Fa-f]{1,40})\s+(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:UTC|GMT)"
    r"\s+(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:UTC|GMT)\s+(/\S.{1,1000})\Z"
)
# A subject as OpenSSL prints it in one line: a value may hold a slash, so an attribute begins where its type follows one.
_COMMON_NAME = re.compile(r"/CN=((?:[^/]|/(?![A-Za-z][A-Za-z0-9.]{0,40}=)){1,255})(?:/|\Z)")
# puppetserver reads the file with a signed parse of 32 bits.
LARGEST_COUNTER = 0x7FFF_FFFF
_BEGIN_CRL = "-----BEGIN X509 CRL-----"
UNREADABLE = (*pems.UNREADABLE, InvalidSignature)
"""What the library raises for bytes that are no certificate or list, or one that somebody else has signed."""


@dataclass(frozen=True)
class Issued:
    """A line of the inventory."""

    serial: int
    name: str
    not_before: datetime
    not_after: datetime


@dataclass
class Found:
    """A CA directory as it was read.

    Attributes:
        live: certificates that are taken over, by serial.
        gone: issued once and without a file: from the inventory alone.
        infra: names in ``infra_inventory.txt``: hosts whose revocations every agent must know.
        problems: what is wrong and left out, in sentences.
        notes: what is unusual and taken over.
    """

    issuer: Issuer
    key: CAKey | None
    own: x509.CertificateRevocationList | None
    ancestors_pem: str
    number: int
    counter: int
    live: dict[int, Entry] = field(default_factory=dict)
    gone: dict[int, Issued] = field(default_factory=dict)
    revoked: dict[int, datetime] = field(default_factory=dict)
    pending: list[tuple[CertificateRequest, str | None]] = field(default_factory=list)
    infra: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """Return what there is, for people and programs."""
        return {
            "ca": self.issuer.common_name,
            "chain": [profile.common_name(c.subject) for c in self.issuer.chain],
            "ends": profile.stamp(self.issuer.certificate.not_valid_after_utc),
            "key": self.key is not None,
            "certificates": len(self.live),
            "issued_without_file": len(self.gone),
            "revoked": len(self.revoked),
            "pending": len(self.pending),
            "pending_flawed": sum(flaw is not None for _, flaw in self.pending),
            "crl_number": self.number,
            "next_serial": self.counter,
            "infra_hosts": list(self.infra),
            "problems": self.problems,
            "notes": self.notes,
        }


def read_directory(directory: Path, *, now: datetime, progress: Progress = lambda *_: None) -> Found:
    """Read a CA directory; changes nothing.

    Raises:
        Misconfigured: it has no CA certificate, or its key or list is another CA's.
    """
    chain_pem = read_bounded(directory / "ca_crt.pem", what="CA bundle").decode("utf-8", "replace")
    issuer, chain_pem, notes = _issuer(chain_pem, directory)
    key_file = directory / "ca_key.pem"
    key = checked(in_file(key_file, guarded=False), issuer, str(key_file)) if key_file.exists() else None
    path = directory / "ca_crl.pem"
    own, others = _lists(path, issuer)
    number = (profile.list_number(own) or 0) if own is not None else 0
    found = Found(issuer, key, own, "", number, _counter(directory), notes=notes)
    if key is None:
        found.notes.append(f"{key_file} is missing: give every member the key by authority.key")
    if own is None:
        lacks = f"holds no list of {issuer.common_name}" if path.exists() else "is missing"
        found.problems.append(f"ca_crl.pem {lacks}: revocations are not known")
    else:
        found.revoked = {r.serial_number: r.revocation_date_utc for r in own}
    _take_ancestors(others, found, now)
    _read_signed(directory / "signed", found, progress)
    _read_inventory(directory / "inventory.txt", found)
    _read_requests(directory / "requests", found)
    _read_infra(directory / "infra_inventory.txt", found)
    ended = next((c for c in issuer.chain if c.not_valid_after_utc <= now), None)
    if ended is not None:
        name = profile.common_name(ended.subject)
        found.problems.append(f"{name} expired on {ended.not_valid_after_utc:%Y-%m-%d}")
    if own is not None and own.next_update_utc is not None and own.next_update_utc <= now:
        found.notes.append("The revocation list has ended; it is made anew")
    return found


def _issuer(chain_pem: str, directory: Path) -> tuple[Issuer, str, list[str]]:
    """Return the issuer whose key lies in the directory; puppetserver, too, picks it by the key."""
    issuer = Issuer.read(chain_pem)
    try:
        # Each signature looks at them, so better here than then.
        _ = [profile.key_identifier(c) for c in issuer.chain]
    except UNREADABLE as e:
        raise Misconfigured(f"ca_crt.pem holds a certificate that cannot be decoded: {e}") from e
    key_file = directory / "ca_key.pem"
    if len(issuer.chain) > 1 and key_file.exists():
        # Its public half is all that is asked of it here.
        key = in_file(key_file, guarded=False, examined=False)
        if not profile.belongs(key, issuer.certificate):
            for certificate in issuer.chain[1:]:
                if profile.belongs(key, certificate):
                    raise Misconfigured(
                        f"ca_key.pem belongs to {profile.common_name(certificate.subject)}, which is not the first "
                        "certificate of ca_crt.pem; put the signing CA first, the root last"
                    )
    for child, parent in zip(issuer.chain, issuer.chain[1:], strict=False):
        try:
            child.verify_directly_issued_by(parent)
        except UNREADABLE:
            text = f"{profile.common_name(child.subject)} is not issued by {profile.common_name(parent.subject)}"
            raise Misconfigured(f"The chain of ca_crt.pem does not verify: {text}") from None
    last = issuer.chain[-1]
    notes = [] if last.issuer == last.subject else ["ca_crt.pem does not reach the root; agents cannot check the chain"]
    return issuer, chain_pem, notes


def _lists(
    path: Path, issuer: Issuer
) -> tuple[x509.CertificateRevocationList | None, list[x509.CertificateRevocationList]]:
    """Return the issuer's own list, verified, and whatever else the file holds."""
    if not path.exists():
        return None, []
    pem = read_bounded(path, what="revocation list", limit_bytes=CRL_LIMIT_BYTES).decode("utf-8", "replace")
    try:
        every = crls_in(pem)
        _ = [profile.list_number(c) for c in every]
    except UNREADABLE as e:
        raise Misconfigured(f"{path} holds a revocation list that cannot be decoded") from e
    # Whoever looks for whole lists passes these over.
    if len(every) != pem.count(_BEGIN_CRL):
        raise Misconfigured(f"{path} holds a revocation list that cannot be decoded: it is cut off, or far too long")
    own = next((c for c in every if c.issuer == issuer.certificate.subject), None)
    if own is not None and not _signed_by(own, issuer.certificate):
        raise Misconfigured(f"The revocation list in {path} is not signed by {issuer.common_name}")
    return own, [c for c in every if c is not own]


def _take_ancestors(lists: list[x509.CertificateRevocationList], found: Found, now: datetime) -> None:
    """Take each ancestor's newest list; agents check the whole chain, and refuse everything when one is missing."""
    out = []
    for ancestor in found.issuer.chain[1:]:
        name = profile.common_name(ancestor.subject)
        named = [c for c in lists if c.issuer == ancestor.subject]
        signed = [c for c in named if _signed_by(c, ancestor)]
        if len(signed) < len(named):
            found.problems.append(f"A revocation list of {name} in ca_crl.pem is not signed by it; left out")
        if not signed:
            found.problems.append(
                f"ca_crl.pem lacks the revocation list of {name}: agents with certificate_revocation = chain, which is "
                "their default, refuse every certificate without it"
            )
            continue
        newest = max(signed, key=lambda c: profile.list_number(c) or 0)
        ends = newest.next_update_utc
        if ends is not None and profile.is_late(newest, now):
            verb, when = ("ended", "until") if ends <= now else ("ends", "from then on unless")
            found.notes.append(
                f"The revocation list of {name} {verb} on {ends:%Y-%m-%d}: agents refuse every certificate {when} they get "
                "a newer one (PUT certificate_revocation_list)"
            )
        out.append(profile.pem_of(newest))
    found.ancestors_pem = "".join(out)


def _signed_by(one: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    try:
        return one.is_signature_valid(certificate.public_key())  # type: ignore[arg-type]
    except UNREADABLE:
        return False


def _counter(directory: Path) -> int:
    path = directory / "serial"
    if not path.exists():
        return 1
    text = read_bounded(path, what="serial", limit_bytes=64).decode("ascii", "replace").strip()
    if not re.match(r"[0-9A-Fa-f]{1,40}\Z", text):
        raise Misconfigured(f"{path} holds no hexadecimal number")
    counter = int(text, 16)
    if counter > LARGEST_COUNTER:
        raise Misconfigured(
            f"{path} holds {text}, and a puppetserver counts to {LARGEST_COUNTER:X}; write the next serial there"
        )
    return counter


def _read_signed(directory: Path, found: Found, progress: Progress) -> None:
    if not directory.is_dir():
        what = "is no directory" if directory.exists() else "is missing"
        found.problems.append(f"signed {what}: what was issued is known from the inventory alone")
    files = sorted(directory.glob("*.pem")) if directory.is_dir() else []
    for count, path in enumerate(files, 1):
        if count % BATCH == 0 or count == len(files):
            progress("certificates read", count, len(files))
        name = path.name.removesuffix(".pem")
        try:
            certificate = x509.load_pem_x509_certificate(read_bounded(path, what="certificate", limit_bytes=1 << 20))
            certificate.verify_directly_issued_by(found.issuer.certificate)
            entry = entry_of(certificate, name)
            subject = profile.common_name(certificate.subject)
        except x509.DuplicateExtension:
            found.problems.append(f"signed/{shown(path.name)} has an extension twice; left out")
            continue
        except (*UNREADABLE, MusterError):
            found.problems.append(
                f"signed/{shown(path.name)} is no certificate of {found.issuer.common_name}; left out"
            )
            continue
        if subject != name:
            found.problems.append(f"signed/{shown(path.name)} is the certificate of {shown(subject)}; left out")
            continue
        other = found.live.get(entry.serial)
        if other is not None:
            found.problems.append(
                f"Serial {entry.serial:X} was given twice, to {other.certname} and to {name}: two puppetservers signed at "
                f"once. {name} is left out; give it a new certificate, revoking one would revoke both"
            )
            continue
        found.live[entry.serial] = entry


def _read_inventory(path: Path, found: Found) -> None:
    if not path.exists():
        found.notes.append("inventory.txt is missing: what was issued and cleaned is not known by name")
        return
    lines = (
        read_bounded(path, what="inventory", limit_bytes=_INVENTORY_LIMIT_BYTES).decode("utf-8", "replace").splitlines()
    )
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        # The Ruby CAs began the file with two lines of comment.
        if not line.strip() or line.startswith("#"):
            continue
        match = _INVENTORY_LINE.match(line.rstrip())
        named = match and _COMMON_NAME.search(match[4])
        if not match or not named:
            found.problems.append(f"inventory.txt line {number} is none; passed over")
            continue
        # The CA's own row names it with blanks (Puppet CA: NAME); of further attributes only the first name counts.
        serial, name = int(match[1], 16), named[1]
        try:
            before, after = (datetime.fromisoformat(match[n]).replace(tzinfo=UTC) for n in (2, 3))
        except ValueError:
            found.problems.append(f"inventory.txt line {number} has a date that is none; passed over")
            continue
        if names.setdefault(serial, name) != name and serial not in found.live:
            found.problems.append(f"Serial {serial:X} stands in the inventory for {names[serial]} and for {name}")
            continue
        if serial not in found.live:
            found.gone[serial] = Issued(serial, name, before, after)


def _read_requests(directory: Path, found: Found) -> None:
    if not directory.is_dir():
        if directory.exists():
            found.problems.append("requests is no directory: who waits is not known")
        else:
            found.notes.append("requests is missing: nobody waits")
    for path in sorted(directory.glob("*.pem")) if directory.is_dir() else []:
        name = path.name.removesuffix(".pem")
        try:
            request = csr.read(read_bounded(path, what="certificate request", limit_bytes=1 << 20))
            _ = request.extensions, request.name
        except (*UNREADABLE, MusterError) as e:
            found.problems.append(f"requests/{shown(path.name)}: {e}; left out")
            continue
        flaw = None
        try:
            csr.refuse_subject(request, name)
            csr.refuse_content(request, allow_alternatives=False, allow_authorisations=False)
        except Rejected as e:
            flaw = str(e)
        if request.name != name:
            found.problems.append(f"requests/{shown(path.name)}: {flaw}; left out")
            continue
        found.pending.append((request, flaw))


def _read_infra(path: Path, found: Found) -> None:
    if not path.exists():
        return
    lines = read_bounded(path, what="infra inventory").decode("utf-8", "replace").splitlines()
    found.infra = tuple(dict.fromkeys(name for line in lines if (name := line.strip())))
