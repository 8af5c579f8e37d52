"""Look at a live TLS port, or at a bundle on disk, and say what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import Account, read_bounded
from muster.kernel.names import host_or_address, shown
from muster.kernel.reasons import spoken
from muster.pki import pem as pems
from muster.pki.bundles import Bundle, BundlePaths, BundleRequest
from muster.pki.complaints import Complaint, complaints, unreadable
from muster.pki.context import client_context
from muster.pki.facts import distinguished
from muster.pki.trust_files import verify_trust_file

__all__ = ["Complaint", "verify_files", "verify_port"]

_PROBE = b"HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
_CLOSE_S = 1.0
_UNASKED_S = 2.0
_CLOSED = "CLOSED_BY_THE_OTHER_SIDE"
_CLIENT_CERTIFICATE_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
    "DECRYPT_ERROR",
    "HANDSHAKE_FAILURE",
)


@dataclass(frozen=True)
class _Port:
    host: str
    port: int
    server_name: str
    ca_file: Path
    certificate: Path | None
    key: Path | None
    timeout_s: float

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class _Presented:
    """What the other side showed: its certificates, leaf first, the TLS version, and its word on our certificate."""

    chain: tuple[x509.Certificate, ...]
    version: str
    refusal: Complaint | None


class _Unreachable(Exception):
    def __init__(self, complaint: Complaint) -> None:
        self.complaint = complaint


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
) -> list[Complaint]:
    """Return what a client of the cluster would have against the port; empty when nothing.

    Connects once as a careful client does; when that fails, once more believing everything, to see why. After the
    handshake one ``HEAD /`` is sent: with TLS 1.3 a refusal of our certificate only arrives with the first answer.

    ``server_name`` is the host name or IP address its certificate must carry. ``certificate`` is ours, shown when asked
    for; it also holds the key when ``key`` is None. ``timeout_s`` counts for each connection and for the first answer.
    ``also`` are further CA files whose certificates are good.

    Raises:
        Misconfigured: one of our own files cannot be used.
        Rejected: the host, the port or the name is none.
    """
    # Checked here, because resolver and TLS library raise UnicodeError for a label that is too long, or empty.
    for name in (host, server_name):
        host_or_address(name)
    if not 0 < port < 65536:
        raise Rejected(f"{port} is no port; there are 1 to 65535")
    at = _Port(host, port, server_name, ca_file, certificate, key, timeout_s)
    files = (ca_file, *also)
    trusted = [c for f in files for c in pems.certificates(read_bounded(f, what="CA file"), f"The CA file {f}")]
    careful = client_context(ca_file, certificate, key, also=also)
    # The names are checked by us, on all of them at once: OpenSSL's message names only the one that was expected.
    careful.check_hostname = False
    verdict: str | None = None
    try:
        try:
            seen = await _look(at, careful)
        except ssl.SSLError as e:
            verdict = _reason(e)
            seen = await _look(at, _credulous(at))
    except ssl.SSLError as e:
        return [await _of_handshake(at, e)]
    except _Unreachable as e:
        return [e.complaint]
    found = complaints(seen.chain, where=str(at), names=[server_name], trusted=trusted, now=now)
    found += [*_of_version(at, seen.version), *([seen.refusal] if seen.refusal else [])]
    if verdict is not None and not any(c.severity == "error" for c in found):
        found.append(_unverified(at, verdict))
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
    intermediates = [c for c in chain[1:] if not pems.self_issued(c)]
    return Bundle(
        kind=request.kind,
        name=request.common_name,
        serial=chain[0].serial_number,
        certificate_pem=pems.text([chain[0], *intermediates]),
        key_pem=pems.key_text(secret),
        chain_pem=pems.text(own),
    )


def verify_key_file(path: Path) -> list[Complaint]:
    """Return what is wrong with a key file's mode; empty when nothing."""
    return list(_of_mode(path)) if path.exists() else []


async def _look(at: _Port, context: ssl.SSLContext) -> _Presented:
    """Shake hands and read one answer.

    Raises:
        ssl.SSLError: the handshake failed, on either side.
        _Unreachable: it never came to one.
    """
    async with _connected(at, context) as (reader, writer):
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        chain, version = _chain(tls), tls.version() or "TLS"
        refusal = await _refusal(at, reader, writer)
    # Listeners made with asyncio refuse by hanging up without an alert; a port of another protocol hangs up on our
    # question. Only the first does it unasked.
    if refusal == _CLOSED:
        refusal = await _unasked(at, context)
    return _Presented(chain, version, _refused_certificate(at, refusal) if refusal else None)


async def _unasked(at: _Port, context: ssl.SSLContext) -> str | None:
    """Return why the other side hangs up when nothing is said after the handshake; None when it waits."""
    async with _connected(at, context) as (reader, _):
        try:
            async with asyncio.timeout(min(at.timeout_s, _UNASKED_S)):
                return None if await reader.read(1) else _CLOSED
        except TimeoutError:
            return None
        except ssl.SSLError as e:
            return _reason(e)
        except OSError:
            return _CLOSED


@contextlib.asynccontextmanager
async def _connected(
    at: _Port, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = await _tcp(at)
    try:
        async with asyncio.timeout(at.timeout_s):
            name = at.server_name if context else None
            reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
    except TimeoutError as e:
        raise _Unreachable(_silent(at)) from e
    except ssl.SSLError:
        raise
    except OSError as e:
        raise ssl.SSLError(ssl.SSL_ERROR_EOF, _CLOSED) from e
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await writer.wait_closed()


async def _tcp(at: _Port) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("no address")
    try:
        async with asyncio.timeout(at.timeout_s):
            for family, kind, protocol, _, address in await loop.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM):
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                except OSError as e:
                    sock.close()
                    failure = e
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
    except TimeoutError as e:
        raise _Unreachable(_no_connection(at)) from e
    except OSError as e:
        failure = e
    raise _Unreachable(_of_connect(at, failure)) from failure


async def _refusal(at: _Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """Return why the other side hung up on one question; None when it answered or waits for more."""
    try:
        async with asyncio.timeout(at.timeout_s):
            writer.write(_probe(at))
            await writer.drain()
            return None if await reader.read(1) else _CLOSED
    except TimeoutError:
        # A port of another protocol waits for words it knows; it did not refuse us.
        return None
    except ssl.SSLError as e:
        return _reason(e)
    except OSError:
        return _CLOSED


def _chain(tls: ssl.SSLObject) -> tuple[x509.Certificate, ...]:
    leaf = tls.getpeercert(True)
    ders = [d for d in (leaf, *_unverified_chain(tls)) if d is not None]
    try:
        return tuple(x509.load_der_x509_certificate(d) for d in dict.fromkeys(ders))
    except ValueError as e:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"unreadable certificate: {e}") from e


def _unverified_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    # Python has a public way to see more than the leaf from 3.13 on; the same call is there, unlisted, since 3.10.
    if hasattr(tls, "get_unverified_chain"):
        chain: Sequence[bytes] = tls.get_unverified_chain()
        return chain
    inner: Any = getattr(tls, "_sslobj", None)
    ask = getattr(inner, "get_unverified_chain", lambda: None)
    return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in ask() or ()]


def _credulous(at: _Port) -> ssl.SSLContext:
    """Return a context that believes and speaks everything, to learn what the other side is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    if at.certificate is not None:
        context.load_cert_chain(at.certificate, at.key or at.certificate, password="")
    return context


async def _of_handshake(at: _Port, error: ssl.SSLError) -> Complaint:
    reason = _reason(error)
    if "ALERT" in reason and any(a in reason for a in _CLIENT_CERTIFICATE_ALERTS):
        return _refused_certificate(at, reason)
    answer = await _plain_answer(at)
    if answer:
        return _not_tls(at, answer)
    if at.certificate is not None and await _takes_strangers(at):
        return _refused_certificate(at, reason)
    return Complaint(
        "TLS-HANDSHAKE",
        f"The TLS handshake with {at} failed: {_worded(reason)}",
        "The two sides found no common ground, the service wants another client certificate or a PROXY header first.",
        "Read the service's own log for the same moment.",
    )


async def _takes_strangers(at: _Port) -> bool:
    """Whether the handshake succeeds when no certificate of ours is shown."""
    stranger = replace(at, certificate=None, key=None)
    try:
        async with _connected(stranger, _credulous(stranger)):
            return True
    except (ssl.SSLError, _Unreachable):
        return False


async def _plain_answer(at: _Port) -> bytes:
    """Return the first bytes of the answer to a plain HTTP request; empty when there is none."""
    try:
        async with _connected(at, None) as (reader, writer), asyncio.timeout(at.timeout_s):
            writer.write(_probe(at))
            await writer.drain()
            return await reader.read(64)
    except (OSError, TimeoutError, _Unreachable):
        return b""


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    # An error that OpenSSL did not make has no reason at all.
    return str(getattr(error, "reason", None) or error.args[-1])


def _worded(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _probe(at: _Port) -> bytes:
    return _PROBE % at.server_name.encode("ascii", "replace")


def _of_connect(at: _Port, error: OSError) -> Complaint:
    if isinstance(error, ConnectionRefusedError):
        return Complaint(
            "TLS-REFUSED",
            f"Nothing listens on {at}: the connection was refused",
            "The service is stopped, or listens on another address or port.",
            "Start the service; compare its address with: ss -ltnp",
        )
    if isinstance(error, socket.gaierror):
        return Complaint(
            "TLS-UNRESOLVED",
            f"The host name of {at} has no address: {error.strerror}",
            "The name is wrong, or the resolver of this machine does not know it.",
            "Compare the name with DNS and /etc/hosts.",
        )
    return Complaint(
        "TLS-UNREACHABLE",
        f"Connecting to {at} failed: {spoken(error)}",
        "There is no route to the host, or a firewall refuses.",
        "Try the same from the host itself, then look at routes and firewalls between.",
    )


def _no_connection(at: _Port) -> Complaint:
    return Complaint(
        "TLS-TIMEOUT",
        f"Connecting to {at} brought no answer within {at.timeout_s:g} s",
        "The host is down, or a firewall drops the packets.",
        "Try the same from the host itself, then look at the firewalls between.",
    )


def _silent(at: _Port) -> Complaint:
    return Complaint(
        "TLS-TIMEOUT",
        f"{at} took the connection, but no TLS handshake came within {at.timeout_s:g} s",
        "The service hangs, is overloaded, or speaks another protocol and waits for us to say more.",
        "Look at the service's load and log; restart it when it hangs.",
    )


def _not_tls(at: _Port, answer: bytes) -> Complaint:
    what = "plain HTTP" if answer.startswith(b"HTTP/") else f"something else ({shown(answer.decode('latin-1'))})"
    return Complaint(
        "TLS-NOT-TLS",
        f"{at} speaks {what}, not TLS",
        "It is the port of another service, or TLS is switched off there.",
        "Compare the port with the service's settings.",
    )


def _refused_certificate(at: _Port, reason: str) -> Complaint:
    if at.certificate is None:
        return Complaint(
            "TLS-CLIENT-REQUIRED",
            f"{at} refuses a client without a certificate ({_worded(reason)})",
            "The service serves only clients with a certificate of a CA it trusts.",
            "Show one: muster certs verify --client NAME.",
        )
    return Complaint(
        "TLS-CLIENT-REFUSED",
        f"{at} refuses our client certificate {at.certificate} ({_worded(reason)})",
        "The service trusts another CA than the one that issued it, or it is expired or revoked.",
        "Compare the service's CA file with the issuer shown by: muster certs show.",
    )


def _of_version(at: _Port, version: str) -> Iterator[Complaint]:
    if version not in ("TLSv1.2", "TLSv1.3"):
        yield Complaint(
            "TLS-OLD",
            f"{at} speaks {version} at best; clients of the cluster speak TLS 1.2 or later",
            "The service's TLS library or its settings are of another age.",
            "Allow TLS 1.2 in the service's settings.",
        )


def _unverified(at: _Port, verdict: str) -> Complaint:
    return Complaint(
        "TLS-UNVERIFIED",
        f"A careful client refuses {at}: {_worded(verdict)}",
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
