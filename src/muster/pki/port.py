"""Look at a live TLS port: what it shows, or what keeps it from showing anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from muster.kernel.names import shown
from muster.kernel.reasons import spoken
from muster.pki import pem as pems
from muster.pki.complaints import Complaint

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
class TLSPort:
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
class Presented:
    """What the other side showed.

    Attributes:
        chain: its certificates, leaf first.
        version: of TLS.
        refusal: its word on our certificate, None when it takes it.
        verdict: why a careful client takes none of it, in OpenSSL's words; None when it does.
    """

    chain: tuple[x509.Certificate, ...]
    version: str
    refusal: Complaint | None
    verdict: str | None = None


class Unseen(Exception):
    """The port showed no certificate; the complaint says why."""

    def __init__(self, complaint: Complaint) -> None:
        self.complaint = complaint


async def looked_at(at: TLSPort, careful: ssl.SSLContext) -> Presented:
    """Shake hands as a careful client does; when that fails, once more believing everything, to see why.

    After the handshake one ``HEAD /`` is sent: with TLS 1.3 a refusal of our certificate only arrives with the first answer.

    Raises:
        Unseen: neither way led to a certificate.
    """
    try:
        try:
            return await _look(at, careful)
        except ssl.SSLError as e:
            return replace(await _look(at, _credulous(at)), verdict=_worded(_reason(e)))
    except ssl.SSLError as e:
        raise Unseen(await _of_handshake(at, e)) from e


async def _look(at: TLSPort, context: ssl.SSLContext) -> Presented:
    """Shake hands and read one answer.

    Raises:
        ssl.SSLError: the handshake failed, on either side.
        Unseen: it never came to one.
    """
    async with _connected(at, context) as (reader, writer):
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        chain, version = _chain(tls), tls.version() or "TLS"
        refusal = await _refusal(at, reader, writer)
    # Listeners made with asyncio refuse by hanging up without an alert; a port of another protocol hangs up on our
    # question. Only the first does it unasked.
    if refusal == _CLOSED:
        refusal = await _unasked(at, context)
    return Presented(chain, version, _refused_certificate(at, refusal) if refusal else None)


async def _unasked(at: TLSPort, context: ssl.SSLContext) -> str | None:
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
    at: TLSPort, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = await _tcp(at)
    try:
        async with asyncio.timeout(at.timeout_s):
            name = at.server_name if context else None
            reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
    except TimeoutError as e:
        raise Unseen(_silent(at)) from e
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


async def _tcp(at: TLSPort) -> socket.socket:
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
        raise Unseen(_no_connection(at)) from e
    except OSError as e:
        failure = e
    raise Unseen(_of_connect(at, failure)) from failure


async def _refusal(at: TLSPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
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
        return tuple(pems.certificate_of(d) for d in dict.fromkeys(ders))
    except pems.UNREADABLE as e:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"unreadable certificate: {e}") from e


def _unverified_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    # Python has a public way to see more than the leaf from 3.13 on; the same call is there, unlisted, since 3.10.
    if hasattr(tls, "get_unverified_chain"):
        chain: Sequence[bytes] = tls.get_unverified_chain()
        return chain
    inner: Any = getattr(tls, "_sslobj", None)
    ask = getattr(inner, "get_unverified_chain", lambda: None)
    return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in ask() or ()]


def _credulous(at: TLSPort) -> ssl.SSLContext:
    """Return a context that believes and speaks everything, to learn what the other side is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    if at.certificate is not None:
        context.load_cert_chain(at.certificate, at.key or at.certificate, password="")
    return context


async def _of_handshake(at: TLSPort, error: ssl.SSLError) -> Complaint:
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


async def _takes_strangers(at: TLSPort) -> bool:
    """Whether the handshake succeeds when no certificate of ours is shown."""
    stranger = replace(at, certificate=None, key=None)
    try:
        async with _connected(stranger, _credulous(stranger)):
            return True
    except (ssl.SSLError, Unseen):
        return False


async def _plain_answer(at: TLSPort) -> bytes:
    """Return the first bytes of the answer to a plain HTTP request; empty when there is none."""
    try:
        async with _connected(at, None) as (reader, writer), asyncio.timeout(at.timeout_s):
            writer.write(_probe(at))
            await writer.drain()
            return await reader.read(64)
    except (OSError, TimeoutError, Unseen):
        return b""


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    # An error that OpenSSL did not make has no reason at all.
    return str(getattr(error, "reason", None) or error.args[-1])


def _worded(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _probe(at: TLSPort) -> bytes:
    return _PROBE % at.server_name.encode("ascii", "replace")


def _of_connect(at: TLSPort, error: OSError) -> Complaint:
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


def _no_connection(at: TLSPort) -> Complaint:
    return Complaint(
        "TLS-TIMEOUT",
        f"Connecting to {at} brought no answer within {at.timeout_s:g} s",
        "The host is down, or a firewall drops the packets.",
        "Try the same from the host itself, then look at the firewalls between.",
    )


def _silent(at: TLSPort) -> Complaint:
    return Complaint(
        "TLS-TIMEOUT",
        f"{at} took the connection, but no TLS handshake came within {at.timeout_s:g} s",
        "The service hangs, is overloaded, or speaks another protocol and waits for us to say more.",
        "Look at the service's load and log; restart it when it hangs.",
    )


def _not_tls(at: TLSPort, answer: bytes) -> Complaint:
    what = "plain HTTP" if answer.startswith(b"HTTP/") else f"something else ({shown(answer.decode('latin-1'))})"
    return Complaint(
        "TLS-NOT-TLS",
        f"{at} speaks {what}, not TLS",
        "It is the port of another service, or TLS is switched off there.",
        "Compare the port with the service's settings.",
    )


def _refused_certificate(at: TLSPort, reason: str) -> Complaint:
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
