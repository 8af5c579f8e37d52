"""What is wrong with a certificate, in words an operator can act on. Pure: certificates in, complaints out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import ip_address as parsed_address
from muster.kernel.names import shown
from muster.pki import pem as pems
from muster.pki.facts import CertificateFacts, distinguished, key_kind

# How many days before its end a certificate is complained of, each louder than the one before.
ALARM_DAYS = (30, 7, 1)
# Of an installer that counts whole days from the hour of issue, certificates end on their CA's last day, hours after it
# (docs/facts/deployment.md §2.2).
_SAME_END = timedelta(days=1)
_RSA_BITS = 2048
_EC_BITS = 256
_REISSUE = "Issue the certificate again with: muster certs issue"


@dataclass(frozen=True)
class Complaint:
    """One thing wrong, why, and what to do.

    Attributes:
        code: stable, documented in the room's README.
        severity: a warning works today; an error does not.
    """

    code: str
    sentence: str
    cause: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def unreadable(why: Misconfigured, cause: str, remedy: str) -> Complaint:
    """Return that a file cannot be read; ``cause`` and ``remedy`` are those of a damaged one."""
    if isinstance(why.__cause__, PermissionError):
        cause = "This account may not read it, so nothing is known of its content."
        remedy = "Run the command as root, or as the account of the services."
    return Complaint("FILE-UNREADABLE", str(why), cause, remedy)


def complaints(
    chain: Sequence[x509.Certificate],
    *,
    where: str,
    names: Iterable[str],
    trusted: Sequence[x509.Certificate],
    now: datetime,
    serves: bool = True,
) -> list[Complaint]:
    """Return everything wrong with the first certificate of a chain; empty when nothing is.

    ``chain`` is what was presented, the leaf first, at least one; ``where`` presented it and is the subject of every
    sentence; the leaf must carry all ``names`` (hosts and addresses) and lead to one of the ``trusted`` CA certificates.
    """
    leaf = chain[0]
    return [
        *_of_dates(leaf, where, now),
        *_of_names(leaf, where, names),
        *_of_issuer(chain, where, trusted, now),
        *_of_purpose(leaf, where, serves=serves),
        *_of_strength(leaf, where),
    ]


def _of_dates(leaf: x509.Certificate, where: str, now: datetime) -> Iterator[Complaint]:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end <= now:
        yield Complaint(
            "TLS-EXPIRED",
            f"The certificate of {where} expired {_ago(now - end)} ago, on {_day(end)}",
            "Nobody issued it again in time, or the service still runs with the old files.",
            f"{_REISSUE}; then reload the service.",
        )
    elif start > now:
        yield Complaint(
            "TLS-NOT-YET-VALID",
            f"The certificate of {where} is valid only from {_day(start)} on, {_ago(start - now)} from now",
            "The clock of this machine, or of the machine that issued the certificate, is wrong.",
            "Compare the clocks (timedatectl); issue the certificate again if it was made in the future.",
        )
    else:
        yield from _of_nearing_end(end, where, now)


def _of_nearing_end(end: datetime, where: str, now: datetime) -> Iterator[Complaint]:
    sounding = alarms(end, now)
    if sounding:
        yield Complaint(
            "TLS-EXPIRES-SOON",
            f"The certificate of {where} expires in {_ago(end - now)}, on {_day(end)} {_less_than(sounding)}",
            "Certificates are not renewed by themselves.",
            "Issue it again with: muster certs rotate; it keeps all names. Then copy the bundle to its host.",
            "warning",
        )


def alarms(end: datetime, now: datetime) -> tuple[int, ...]:
    """Return the alarms that sound for a certificate's end, in days, the widest first; all of them once it is over."""
    return tuple(days for days in ALARM_DAYS if end - now <= timedelta(days=days))


def _less_than(sounding: Sequence[int]) -> str:
    return f"(less than {_ago(timedelta(days=min(sounding)))} left)"


def _of_names(leaf: x509.Certificate, where: str, names: Iterable[str]) -> Iterator[Complaint]:
    facts = CertificateFacts.of(leaf)
    missing = [n for n in dict.fromkeys(names) if not carries(facts, n)]
    if not missing:
        return
    has = ", ".join(shown(n) for n in (*facts.names, *facts.addresses))
    only_cn = f" (its common name {shown(facts.subject_cn)} does not count)" if facts.subject_cn and not has else ""
    yield Complaint(
        "TLS-NAME",
        f"The certificate of {where} does not name {', '.join(missing)}; it names {has or 'nothing'}{only_cn}",
        "It was issued for other names: before an alias was added, or for another host.",
        f"{_REISSUE}; it takes the names from the cluster file.",
    )


def carries(facts: CertificateFacts, name: str) -> bool:
    """Whether the alternative names cover a host name (case and one wildcard label minded) or an IP address.

    Source: RFC 6125 §6.4; the common name is not looked at.
    """
    try:
        address = parsed_address(name)
    except Rejected:
        return any(_covers(pattern.lower(), name.lower().removesuffix(".")) for pattern in facts.names)
    return any(ip_address(a) == address for a in facts.addresses)


def _covers(pattern: str, name: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == name
    _, dot, parent = name.partition(".")
    return bool(dot) and "." in parent and pattern[2:] == parent


def _of_issuer(
    chain: Sequence[x509.Certificate], where: str, trusted: Sequence[x509.Certificate], now: datetime
) -> Iterator[Complaint]:
    leaf = chain[0]
    if leaf in trusted:
        return
    path = _path(chain, trusted)
    if path is not None:
        yield from _of_path(chain, path, where, now)
        return
    ours = ", ".join(distinguished(c.subject) for c in trusted)
    top = _top(chain)
    twins = [c for c in trusted if c.subject == top.issuer and not _is_self_signed(top)]
    if twins:
        yield _of_twin(top, twins[0], where)
    elif _is_self_signed(leaf):
        yield Complaint(
            "TLS-SELF-SIGNED",
            f"The certificate of {where} is signed by itself ({distinguished(leaf.subject)}), not by our CA ({ours})",
            "The service still runs with the certificate its package made.",
            "Give the service a certificate of the cluster's CA: muster certs issue.",
        )
    else:
        yield _of_foreign(chain, top, ours, where)


def _of_twin(top: x509.Certificate, twin: x509.Certificate, where: str) -> Complaint:
    digest = twin.fingerprint(hashes.SHA256()).hex()[:16]
    return Complaint(
        "TLS-CA-KEY",
        f"The certificate of {where} was issued by a CA with our CA's name ({distinguished(top.issuer)}) "
        f"but another key; the CA file's fingerprint starts {digest}",
        "The CA was made anew; the certificate or the CA file is from before.",
        "Copy the current ca.pem everywhere, issue the certificate again (muster certs issue) and reload the service.",
    )


def _of_foreign(chain: Sequence[x509.Certificate], top: x509.Certificate, ours: str, where: str) -> Complaint:
    alone = "" if len(chain) > 1 else " Or that issuer is an intermediate of ours, which the service does not send."
    return Complaint(
        "TLS-CA",
        f"The certificate of {where} was issued by {distinguished(top.issuer)}; we trust {ours}",
        f"The service uses a certificate of another CA.{alone}",
        "Issue a certificate of the cluster's CA, or add the other CA to the CA file.",
    )


def _of_path(
    chain: Sequence[x509.Certificate], path: Sequence[x509.Certificate], where: str, now: datetime
) -> Iterator[Complaint]:
    for issuer in path:
        if issuer.not_valid_after_utc <= now:
            end = issuer.not_valid_after_utc
            yield Complaint(
                "TLS-CA-EXPIRED",
                f"The CA {distinguished(issuer.subject)} behind {where} expired {_ago(now - end)} ago, on {_day(end)}",
                "A CA's end is the end of everything it issued.",
                "Make or adopt a new CA (muster certs init --replace) and issue all certificates again.",
            )
        elif sounding := alarms(issuer.not_valid_after_utc, now):
            end = issuer.not_valid_after_utc
            yield Complaint(
                "TLS-CA-EXPIRES-SOON",
                f"The CA {distinguished(issuer.subject)} behind {where} expires in {_ago(end - now)}, on {_day(end)} "
                f"{_less_than(sounding)}",
                "A CA's end is the end of everything it issued; issuing again does not help.",
                "Replace the CA step by step with: muster certs rotate --ca.",
                "warning",
            )
    yield from _of_outliving([chain[0], *path], where)
    unsent = [c for c in path if not pems.self_issued(c) and c not in chain]
    if unsent:
        yield Complaint(
            "TLS-CHAIN",
            f"{where} does not send the intermediate CA {distinguished(unsent[0].subject)} with its certificate",
            "The service's certificate file holds the certificate alone.",
            "Append the intermediate CA to the certificate file; clients that know only the root refuse it as it is.",
            "warning",
        )


def _of_outliving(path: Sequence[x509.Certificate], where: str) -> Iterator[Complaint]:
    for one, issuer in pairwise(path):
        end, last = one.not_valid_after_utc, issuer.not_valid_after_utc
        if end - last > _SAME_END:
            whose = "The certificate" if one is path[0] else f"The CA {distinguished(one.subject)}"
            yield Complaint(
                "TLS-OUTLIVES-CA",
                f"{whose} of {where} is valid until {_day(end)}, its CA {distinguished(issuer.subject)} "
                f"only until {_day(last)}",
                "It was issued for longer than the CA has left. It ends with the CA, whatever it says itself, so what "
                "watches its own end alone comes too late.",
                "Issue it for a shorter time; when the CA ends soon, replace that first (muster certs rotate --ca).",
                "warning",
            )
            return


def _path(
    chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...] | None:
    """Return the issuers of the leaf, ending in a trusted one; None when no trusted one is reached."""
    current, found = chain[0], list[x509.Certificate]()
    while True:
        anchor = next((c for c in trusted if pems.signed_by(current, c)), None)
        if anchor is not None:
            return (*found, anchor)
        above = next((c for c in chain[1:] if c not in found and pems.signed_by(current, c)), None)
        if above is None:
            return None
        found.append(above)
        current = above


def _top(chain: Sequence[x509.Certificate]) -> x509.Certificate:
    """Return the last certificate up the chain that is not its own issuer."""
    current, seen = chain[0], [chain[0]]
    while True:
        above = next((c for c in chain if c not in seen and pems.signed_by(current, c)), None)
        if above is None or pems.self_issued(above):
            return current
        seen.append(above)
        current = above


def _is_self_signed(certificate: x509.Certificate) -> bool:
    return pems.self_issued(certificate) and pems.signed_by(certificate, certificate)


def _of_purpose(leaf: x509.Certificate, where: str, *, serves: bool) -> Iterator[Complaint]:
    try:
        allowed = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
    if wanted not in allowed and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in allowed:
        role = "server" if serves else "client"
        yield Complaint(
            "TLS-PURPOSE",
            f"The certificate of {where} may not be used by a {role}: its extended key usage does not allow it",
            "A client's certificate stands where a server's belongs, or the other way round.",
            f"{_REISSUE}, of the right kind.",
        )


def _of_strength(leaf: x509.Certificate, where: str) -> Iterator[Complaint]:
    weaknesses: list[str] = []
    key = leaf.public_key()
    bits = _RSA_BITS if isinstance(key, rsa.RSAPublicKey) else _EC_BITS
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and key.key_size < bits:
        weaknesses.append(f"its key is {key_kind(leaf)}")
    try:
        digest = leaf.signature_hash_algorithm
    except UnsupportedAlgorithm:
        digest = None
    if isinstance(digest, hashes.SHA1 | hashes.MD5):
        weaknesses.append(f"its signature uses {digest.name.upper()}")
    if weaknesses:
        yield Complaint(
            "TLS-WEAK",
            f"The certificate of {where} is weak: {' and '.join(weaknesses)}",
            "It was made with settings of another age; current systems refuse it.",
            f"{_REISSUE}.",
        )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _ago(span: timedelta) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        count = int(span.total_seconds() // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
