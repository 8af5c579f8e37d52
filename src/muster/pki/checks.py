"""What the doctor can find out about certificate files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from muster.kernel.findings import Check, Finding
from muster.pki.bundles import paths
from muster.pki.complaints import Complaint
from muster.pki.trust_files import verify_trust_file
from muster.pki.verify import verify_files


def of_complaint(complaint: Complaint, place: str) -> Finding:
    """Return what is wrong with a certificate as a finding."""
    c = complaint
    return Finding(c.code, place, c.sentence, c.cause, c.remedy, c.severity)


def checks(pki: Path, members: Mapping[str, Sequence[str]], now: datetime, trusted: Sequence[Path] = ()) -> list[Check]:
    """Return the checks of one PKI directory; ``members`` has the names each member's certificate must carry.

    ``trusted`` are files of further CAs; those that are not on this host are passed over.
    """

    async def files() -> Sequence[Finding]:
        found: list[Finding] = []
        if not (pki / "ca.pem").exists():
            # Whoever asks members says so, once.
            return found
        for member, names in members.items():
            bundle = paths(pki, "member", member)
            # A member's bundle is normally only on that member's host.
            if bundle.certificate.exists():
                complaints = verify_files(bundle, pki / "ca.pem", names, now)
                found += [of_complaint(c, member) for c in complaints]
        return found

    async def trust() -> Sequence[Finding]:
        return [of_complaint(c, str(path)) for path in trusted for c in verify_trust_file(path)]

    return [Check("certificate files", files), Check("trusted CAs", trust)]
