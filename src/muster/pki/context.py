"""TLS contexts made from files, checked before anything is swapped."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from muster.kernel.clock import SystemClock
from muster.kernel.errors import Misconfigured
from muster.kernel.files import fingerprint, read_bounded
from muster.kernel.log import logger
from muster.pki import pem as pems
from muster.pki.facts import distinguished
from muster.pki.trust_files import verify_trust_file

_log = logger("pki")

# Of TLS 1.2; those of 1.3 are all of this kind. Said here, because builds of Python differ: Debian's takes OpenSSL's own
# list, in which are key exchange by RSA and CBC with SHA1.
_CIPHERS = "ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"


def server_context(
    certificate: Path, key: Path, ca_files: Sequence[Path], *, now: datetime | None = None
) -> ssl.SSLContext:
    """Return a context for a listener that asks for client certificates and takes clients that have none.

    TLS 1.2 or later, with forward secrecy whatever Python was built with. A client certificate that the CA files do not
    verify ends the handshake. An expired certificate of our own is used with a warning: a listener that answers can be
    repaired from afar.

    Raises:
        Misconfigured: a file is absent, no PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 1
    _warn_of_dates(_load_pair(context, certificate, key), certificate, now or SystemClock().now())
    if not ca_files:
        raise Misconfigured(f"The listener with {certificate} has no CA to verify clients against")
    for path in ca_files:
        _trust(context, path)
        _warn_of_blocks(path)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: Path | None, certificate: Path | None = None, key: Path | None = None, *, also: Sequence[Path] = ()
) -> ssl.SSLContext:
    """Return a context that trusts the CA file alone, checks names, and shows a certificate when given one.

    Without a CA file it trusts whom the host trusts. A certificate without a key path is a file that holds both. ``also``
    are further CA files to trust.

    Raises:
        Misconfigured: as :func:`server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if ca is None:
        context.load_default_certs()
    for file in (*(() if ca is None else (ca,)), *also):
        _trust(context, file)
    if certificate is not None:
        _load_pair(context, certificate, key or certificate)
    elif key is not None:
        raise Misconfigured(f"The key {key} was given without its certificate")
    return context


def believing(ca: Path, *, of: str) -> ssl.SSLContext:
    """Return a context that trusts a CA file alone, for somebody else's server, whose name may stand where it did of old.

    ``of``: the server, as sentences call it. Servers of the cluster are asked with :func:`client_context`.

    Raises:
        Misconfigured: the file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as e:
        raise Misconfigured(f"Reading the CA of {of}, {ca}, failed: {e}") from e


@dataclass(frozen=True)
class Credentials:
    """Whom questions to members believe, and what they show.

    Attributes:
        ca_file: the cluster's CA.
        certificate: what is shown; None: nothing. ``key`` None: it is in the same file.
        site_ca_file: who issued the certificates of Ruby members when the cluster's CA did not; believed of them alone.
    """

    ca_file: Path
    certificate: Path | None = None
    key: Path | None = None
    site_ca_file: Path | None = None

    def ours(self) -> ssl.SSLContext:
        """Return the context for a member of kind ``muster``.

        Raises:
            Misconfigured: a file cannot be used.
        """
        return client_context(self.ca_file, self.certificate, self.key)

    def rubys(self, ca_file: Path | None = None) -> ssl.SSLContext:
        """Return the context for a Ruby member, ``ca_file``: of the issuer that a check names, and no other.

        Raises:
            Misconfigured: a file cannot be used.
        """
        if ca_file is not None:
            return client_context(ca_file, self.certificate, self.key)
        return client_context(self.ca_file, self.certificate, self.key, also=self.also(is_ruby=True))

    def also(self, *, is_ruby: bool) -> tuple[Path, ...]:
        """Return the CA files that count beside the cluster's."""
        return (self.site_ca_file,) if is_ruby and self.site_ca_file is not None else ()


class RenewedContext:
    """A client context that follows its files: called, it is the one for what lies there now.

    New files that cannot be used are logged once, and the context from before goes on.
    """

    def __init__(
        self, ca: Path | None, certificate: Path | None = None, key: Path | None = None, *, also: Sequence[Path] = ()
    ) -> None:
        self._files = (ca, certificate, key)
        self._also = tuple(also)
        self._seen = self._on_disk()
        self._context = client_context(ca, certificate, key, also=self._also)
        self._warn()

    def __call__(self) -> ssl.SSLContext:
        now = self._on_disk()
        if now != self._seen:
            self._seen = now
            try:
                self._context = client_context(*self._files, also=self._also)
                self._warn()
            except Misconfigured as e:
                _log.error("New certificate for calls to others refused; the old one goes on", why=str(e))
        return self._context

    def _warn(self) -> None:
        if self._files[0] is not None:
            _warn_of_blocks(self._files[0])

    def _on_disk(self) -> tuple[object, ...]:
        return fingerprint(*(f for f in (*self._files, *self._also) if f is not None))


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> x509.Certificate:
    certificate, key = _of_one_version(certificate, key)
    chain_pem = read_bounded(certificate, what="certificate", limit_bytes=pems.MAX_PEM_BYTES)
    key_pem = read_bounded(key, what="private key", limit_bytes=pems.MAX_PEM_BYTES)
    leaf = pems.certificates(chain_pem, str(certificate))[0]
    if not pems.matches(leaf, pems.private_key(key_pem, str(key))):
        raise Misconfigured(f"The key {key} does not belong to the certificate {certificate}")
    try:
        # An encrypted key was refused above; without a password OpenSSL would ask on the terminal and wait for ever.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError) as e:
        raise Misconfigured(f"The certificate {certificate} cannot be used: {_reason(e)}") from e
    return leaf


def _of_one_version(certificate: Path, key: Path) -> tuple[Path, Path]:
    # A bundle's directory is a link that a reissue moves; following it once keeps both files from the same version.
    if certificate.parent != key.parent:
        return certificate, key
    home = certificate.parent.resolve()
    return home / certificate.name, home / key.name


def _trust(context: ssl.SSLContext, path: Path) -> None:
    pem = read_bounded(path, what="CA file", limit_bytes=pems.MAX_PEM_BYTES)
    pems.certificates(pem, f"The CA file {path}")
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as e:
        raise Misconfigured(f"The CA file {path} cannot be used: {_reason(e)}") from e


def _warn_of_blocks(path: Path) -> None:
    # Not where a command builds a context: it says so in its own words.
    for complaint in verify_trust_file(path):
        _log.warning(f"{complaint.sentence}. {complaint.remedy}")


def _warn_of_dates(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    name = distinguished(certificate.subject)
    if certificate.not_valid_after_utc <= now:
        _log.warning(f"The certificate {path} ({name}) expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    elif certificate.not_valid_before_utc > now:
        _log.warning(f"The certificate {path} ({name}) is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}")


def _reason(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
