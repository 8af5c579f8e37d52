"""Look at a live TLS port, or at a bundle on disk, and say what is wrong."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import Account, read_bounded
from muster.kernel.names import host_or_address
from muster.pki import pem as pems
from muster.pki.bundles import Bundle, BundlePaths, BundleRequest, assembled
from muster.pki.complaints import Complaint, complaints, unreadable
from muster.pki.context import client_context
from muster.pki.facts import distinguished
from muster.pki.port import TLSPort, Unseen, looked_at
from muster.pki.trust_files import verify_trust_file

__all__ = ["Complaint", "verify_files", "verify_port"]


async def verify_port(
    host: str,
    port: int,
    *,
    server_name: str,
    ca_file: Path,
    certificate: Path | None = None,
    key: Path | None = None,
    now: datetime,
    timeout_s: float = 5.0,
    also: Sequence[Path] = (),
    names: Sequence[str] = (),
) -> list[Complaint]:
    """Return what a client of the cluster would have against the port; empty when nothing.

    Connects as :func:`muster.pki.port.looked_at` says.

    ``server_name`` is the host name or IP address its certificate must carry. ``certificate`` is ours, shown when asked
    for; it also holds the key when ``key`` is None. ``timeout_s`` counts for each connection and for the first answer.
    ``also`` are further CA files whose certificates are good, ``names`` further ones that the certificate must carry.

    Raises:
        Misconfigured: one of our own files cannot be used.
        Rejected: the host, the port or a name is none.
    """
    # Checked here, because resolver and TLS library raise UnicodeError for a label that is too long, or empty.
    for name in (host, server_name, *names):
        host_or_address(name)
    if not 0 < port < 65536:
        raise Rejected(f"{port} is no port; there are 1 to 65535")
    at = TLSPort(host, port, server_name, ca_file, certificate, key, timeout_s)
    files = (ca_file, *also)
    trusted = [c for f in files for c in pems.certificates(read_bounded(f, what="CA file"), f"The CA file {f}")]
    careful = client_context(ca_file, certificate, key, also=also)
    # The names are checked by us, on all of them at once: OpenSSL's message names only the one that was expected.
    careful.check_hostname = False
    try:
        seen = await looked_at(at, careful)
    except Unseen as e:
        return [e.complaint]
    found = complaints(seen.chain, where=str(at), names=[server_name, *names], trusted=trusted, now=now)
    found += [*_of_version(at, seen.version), *([seen.refusal] if seen.refusal else [])]
    if seen.verdict is not None and not any(c.severity == "error" for c in found):
        found.append(_unverified(at, seen.verdict))
    return found


def verify_files(
    at: BundlePaths,
    ca_file: Path,
    names: Iterable[str],
    now: datetime,
    *,
    serves: bool | None = None,
    reader: Account | None = None,
    also: Sequence[Path] = (),
) -> list[Complaint]:
    """Return what is wrong with a bundle on disk; empty when nothing.

    ``ca_file`` is the cluster's CA, which must have issued the certificate and lie beside it; the certificate must carry
    ``names`` and, unless ``serves`` says otherwise, fit a server when it is a member's. ``reader`` must be able to read all
    of it; by default the owner of the CA's directory, of whom client bundles are no concern. ``also`` are CA files that
    may have issued it instead.
    """
    missing = [p for p in dict.fromkeys((at.certificate, at.key, at.ca)) if not p.exists()]
    if missing:
        return [_missing(p, at) for p in missing]
    found = [*_of_mode(at.key), *_of_reader(at, ca_file, reader)]
    try:
        chain = pems.certificates(read_bounded(at.certificate, what="certificate"), str(at.certificate))
        key = pems.private_key(read_bounded(at.key, what="private key"), str(at.key))
        trusted = pems.certificates(read_bounded(ca_file, what="CA file"), f"The CA file {ca_file}")
        beside = pems.certificates(read_bounded(at.ca, what="CA file"), f"The CA file {at.ca}")
        more = [c for f in also for c in pems.certificates(read_bounded(f, what="CA file"), f"The CA file {f}")]
    except Misconfigured as e:
        # What the reader may not read this account may not read either, and that is no damage.
        return found if any(c.code == "FILE-READER" for c in found) else [*found, _unreadable(e)]
    if not pems.matches(chain[0], key):
        found.append(_mismatch(at))
    if not set(trusted) <= set(beside):
        found.append(_other_ca(at, ca_file))
    elif extra := [c for c in beside if c not in trusted]:
        found.append(_more_trusted(at, ca_file, extra))
    found += [c for path in dict.fromkeys((at.ca, ca_file)) for c in verify_trust_file(path)]
    fit = at.kind == "member" if serves is None else serves
    issuers = [*trusted, *more]
    return [*found, *complaints(chain, where=str(at.certificate), names=names, trusted=issuers, now=now, serves=fit)]


def imported(
    request: BundleRequest,
    certificate: Path,
    key: Path,
    ca_file: Path,
    *,
    names: Iterable[str],
    also: Sequence[Path] = (),
    now: datetime,
) -> Bundle:
    """Return a bundle made of files that somebody else issued; nothing is written.

    ``names`` must stand in the certificate; ``also`` are CA files that may have issued it beside the cluster's, which is
    what its owner trusts either way.

    Raises:
        Misconfigured: a file cannot be read, or the key belongs to another certificate.
        Rejected: the certificate is no good for what it is imported as; with every complaint.
    """
    chain = pems.certificates(read_bounded(certificate, what="certificate"), str(certificate))
    secret = pems.private_key(read_bounded(key, what="private key"), str(key))
    if not pems.matches(chain[0], secret):
        raise Misconfigured(f"The key {key} does not belong to the certificate {certificate}")
    own = pems.certificates(read_bounded(ca_file, what="CA file"), f"The CA file {ca_file}")
    more = [c for f in also for c in pems.certificates(read_bounded(f, what="CA file"), f"The CA file {f}")]
    serves = request.kind == "member"
    found = complaints(chain, where=str(certificate), names=names, trusted=[*own, *more], now=now, serves=serves)
    wrong = [c.sentence for c in found if c.severity == "error"]
    if wrong:
        raise Rejected(f"It was not imported: {'; '.join(wrong)}")
    return assembled(request, chain, secret, own)


def verify_key_file(path: Path) -> list[Complaint]:
    """Return what is wrong with a key file's mode; empty when nothing."""
    return list(_of_mode(path)) if path.exists() else []


def _of_version(at: TLSPort, version: str) -> Iterator[Complaint]:
    if version not in ("TLSv1.2", "TLSv1.3"):
        yield Complaint(
            "TLS-OLD",
            f"{at} speaks {version} at best; clients of the cluster speak TLS 1.2 or later",
            "The service's TLS library or its settings are of another age.",
            "Allow TLS 1.2 in the service's settings.",
        )


def _unverified(at: TLSPort, verdict: str) -> Complaint:
    return Complaint(
        "TLS-UNVERIFIED",
        f"A careful client refuses {at}: {verdict}",
        "OpenSSL found what none of our own checks explains; the clock of this machine may differ from the time asked.",
        f"Look closer with: openssl s_client -connect {at} -CAfile {at.ca_file}",
    )


def _of_mode(key: Path) -> Iterator[Complaint]:
    mode = _mode(key)
    if mode & 0o077:
        yield Complaint(
            "FILE-MODE",
            f"The key {key} can be read by others: its mode is {mode:04o}",
            "It was copied without its mode.",
            f"chmod 0600 {key}; when others had an account here, issue it again.",
        )


def _of_reader(at: BundlePaths, ca_file: Path, reader: Account | None) -> Iterator[Complaint]:
    if reader is None:
        reader = Account.owner_of(ca_file.parent) if at.kind != "client" else None
    if reader is None:
        return
    stops = {path: reader.refused_by(path) for path in (at.certificate, at.key, at.ca, ca_file)}
    for stop in dict.fromkeys(s for s in stops.values() if s is not None):
        path = next(p for p, s in stops.items() if s == stop)
        owner = Account.owner_of(stop)
        whose = f"{stop} belongs to {owner.name if owner else 'another account'}, mode {_mode(stop):04o}"
        inside = stop.is_relative_to(ca_file.parent.resolve())
        yield Complaint(
            "FILE-READER",
            f"{reader.name} cannot read {path}: {whose}",
            f"Members and balancers run as {reader.name} and will not start with it; another account, often root, wrote "
            "or copied it.",
            f"chown {'-R ' if stop.is_dir() else ''}{reader.name}: {stop}"
            if inside
            else f"Let {reader.name} enter {stop}, or move the certificates and name their directory with --pki.",
        )


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _missing(path: Path, at: BundlePaths) -> Complaint:
    return Complaint(
        "FILE-MISSING",
        f"{path} does not exist",
        f"The {at.kind} bundle of {at.name} was never issued here, or was copied in part.",
        "Issue it (muster certs issue) or copy the whole directory.",
    )


def _unreadable(why: Misconfigured) -> Complaint:
    return unreadable(
        why,
        "The file was damaged, or another file was copied in its place.",
        "Issue the bundle again with: muster certs issue.",
    )


def _mismatch(at: BundlePaths) -> Complaint:
    return Complaint(
        "FILE-MISMATCH",
        f"The key {at.key} does not belong to the certificate {at.certificate}",
        "Only one of the two was copied after a reissue.",
        "Copy the whole directory again, or issue the bundle again.",
    )


def _other_ca(at: BundlePaths, ca_file: Path) -> Complaint:
    return Complaint(
        "FILE-CA",
        f"{at.ca} lacks CA certificates that are in {ca_file}",
        "The CA was replaced after the bundle was issued, or is just being replaced and the file was not copied.",
        "While the CA is being replaced, do the step again (muster certs rotate --ca); else issue the bundle again "
        "with: muster certs issue.",
    )


def _more_trusted(at: BundlePaths, ca_file: Path, extra: Sequence[x509.Certificate]) -> Complaint:
    names = ", ".join(distinguished(c.subject) for c in extra)
    return Complaint(
        "FILE-CA-MORE",
        f"{at.ca} trusts more than {ca_file} does: {names}",
        "Either file is from before a step of the CA's replacement, or somebody added a CA by hand.",
        "Copy both files from where certificates are issued; for a CA added on purpose, use foreman.ca_file.",
        "warning",
    )
