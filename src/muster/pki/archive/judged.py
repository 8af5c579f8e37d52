"""What an archive lacks for this cluster, in words; the name that was forgotten above all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography import x509

from muster.kernel.errors import Misconfigured
from muster.pki import pem as pems
from muster.pki.archive.layout import Pair
from muster.pki.archive.read import Archive
from muster.pki.complaints import Complaint, carries, complaints, unreadable
from muster.pki.facts import CertificateFacts

_AGAIN = {
    "installer": "foreman-proxy-certs-generate --foreman-proxy-fqdn {member} {cnames} --certs-tar …",
    "foremanctl": "foremanctl auth-bundle {member} {aliases} --certificate-renew",
}


def judged(archive: Archive, member: str, names: Sequence[str], now: datetime) -> list[Complaint]:
    """Return everything wrong with an archive; empty when nothing.

    ``names`` are the cluster's address and aliases.
    """
    found = [*_of_member(archive, member), *_of_files(archive, names)]
    cas = _cas(archive)
    for pair in archive.layout.pairs:
        if pair.certificate in archive.files and pair.key in archive.files:
            found += _of_pair(archive, pair, names, cas, now)
    return list(dict.fromkeys(found))


def again(archive: Archive, names: Sequence[str]) -> str:
    """Return the command that makes such an archive with all names."""
    cnames = " ".join(f"--foreman-proxy-cname {n}" for n in names)
    aliases = " ".join(f"--server-alias {n}" for n in names)
    return _AGAIN[archive.format].format(member=archive.member, cnames=cnames, aliases=aliases)


def _of_member(archive: Archive, member: str) -> Iterator[Complaint]:
    if archive.member.lower() != member.lower():
        yield Complaint(
            "ARCHIVE-MEMBER",
            f"The archive is for {archive.member}, not for {member}",
            "It was made for another member, or the member has another name in the cluster file.",
            f"Take the archive of {member}.",
        )


def _of_files(archive: Archive, names: Sequence[str]) -> Iterator[Complaint]:
    for name in archive.missing:
        is_secret = name in archive.layout.secrets.values()
        yield Complaint(
            "ARCHIVE-FILE",
            f"The archive lacks {name}",
            "The proxy cannot be registered with it by itself."
            if is_secret
            else "It was made by another version, or by hand.",
            "muster certs archive create --oauth-key-file … --oauth-secret-file …"
            if is_secret
            else f"Make it again: {again(archive, names)}, or with muster certs archive create.",
            "warning" if is_secret else "error",
        )


def _cas(archive: Archive) -> dict[bool, list[x509.Certificate]]:
    """Return the CAs by whether they are for servers' certificates; what cannot be read is complained of with its pair."""
    found: dict[bool, list[x509.Certificate]] = {}
    for serves, name in ((True, archive.layout.server_ca), (False, archive.layout.default_ca)):
        try:
            found[serves] = pems.certificates(archive.files.get(name, b""), name)
        except Misconfigured:
            found[serves] = []
    return found


def _of_pair(
    archive: Archive, pair: Pair, names: Sequence[str], cas: dict[bool, list[x509.Certificate]], now: datetime
) -> Iterator[Complaint]:
    try:
        chain = pems.certificates(archive.files[pair.certificate], pair.certificate)
        key = pems.private_key(archive.files[pair.key], pair.key)
    except Misconfigured as e:
        yield unreadable(e, "It was damaged on the way, or is none.", f"Make it again: {again(archive, names)}")
        return
    if not pems.matches(chain[0], key):
        yield Complaint(
            "FILE-MISMATCH",
            f"The key {pair.key} does not belong to {pair.certificate}",
            "Two archives were mixed.",
            f"Make it again: {again(archive, names)}",
        )
    # Only who serves is asked for the cluster's name.
    wanted = [archive.member, *(names if pair.serves else ())]
    for one in complaints(
        chain, where=pair.certificate, names=wanted, trusted=cas[pair.serves], now=now, serves=pair.serves
    ):
        yield _of_forgotten(archive, chain[0], pair, names) if one.code == "TLS-NAME" and pair.serves else one


def _of_forgotten(archive: Archive, leaf: x509.Certificate, pair: Pair, names: Sequence[str]) -> Complaint:
    has = CertificateFacts.of(leaf).names
    missing = [n for n in (archive.member, *names) if not carries(CertificateFacts.of(leaf), n)]
    option = "--foreman-proxy-cname" if archive.format == "installer" else "--server-alias"
    return Complaint(
        "TLS-NAME",
        f"{pair.certificate}, for {pair.used_for}, does not name {', '.join(missing)}, but {', '.join(has) or 'nothing'}",
        f"The archive was made without {option}, which is forgotten most, above all when it is made again for an upgrade.",
        f"Make it again: {again(archive, names)}",
    )
