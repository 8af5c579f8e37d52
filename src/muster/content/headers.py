"""Headers on their way between a client and a backend.

Who somebody is, is said to backends by headers; so those are taken from the connection alone, and what a client sends under
such a name, however it spells it, goes no further.

Source: RFC 9110 §7.6.1 for what belongs to one connection; docs/facts/content-and-boot.md for the names backends read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote

from muster.content.places import Backend
from muster.edge.replies import Header
from muster.kernel.errors import Rejected

_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"expect",
})  # fmt: skip
# Those that some backend takes for a statement of the server in front of it; ``_`` and ``-`` are one to CGI's names.
_STATEMENTS = re.compile(
    rb"(?:(?:x-|x-cluster-|true-)?client-.*|(?:x-)?ssl-.*|x-rhsm-.*|(?:x-)?remote-.*|http-.*|(?:x-)?forwarded.*|x-real-ip|"
    rb"cf-connecting-ip|x-muster-.*|x-original-.*|x-rewrite-url|x-sendfile.*|x-accel-.*)\Z"
)
_CONDITIONS = frozenset({"if-none-match", "if-modified-since", "if-range", "if-match", "if-unmodified-since"})
_ASKED_ANEW = frozenset({b"host", b"content-length", b"accept-encoding"})
# Of the backend alone: two of them give equal bytes different ones (docs/facts/content-and-boot.md).
_OF_ONE_BACKEND = frozenset({b"etag", b"last-modified", b"server", b"date", b"x-pulp-cache"})
# Said by the member itself, of every answer.
_OURS = frozenset({b"server", b"date", b"strict-transport-security"})
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")


def asked(
    sent: Iterable[Header], *, backend: Backend, address: str, host: str, scheme: str, certificate: bytes | None
) -> list[tuple[str, str]]:
    """Return the headers for a backend.

    ``sent`` are the client's, names in lower case; ``address``, ``host`` and ``scheme`` say from where, for which name and
    over what it asked; ``certificate`` is its verified one, DER, None without.
    """
    sent = list(sent)
    named = {w.strip().lower() for n, v in sent if n == b"connection" for w in v.split(b",")}
    out = []
    for name, value in sent:
        meant = name.replace(b"_", b"-")
        if name in named or meant in _HOP or meant in _ASKED_ANEW or _STATEMENTS.match(meant):
            continue
        out.append((name.decode("latin-1"), _text(value)))
    # Of content the bytes as they are kept: validators are theirs, and packages are packed.
    packed = "identity" if backend == "content" else None
    wanted = (v.decode("latin-1") for n, v in sent if n == b"accept-encoding")
    out.append(("Accept-Encoding", packed or next(wanted, "identity")))
    out += [("X-Forwarded-For", address), ("X-Forwarded-Proto", scheme)]
    if host:
        out.append(("X-Forwarded-Host", host))
    if certificate is not None:
        if backend in ("content", "api"):
            out.append(("X-CLIENT-CERT", _escaped(certificate)))
        elif backend in ("foreman", "registry"):
            out.append(("X_RHSM_SSL_CLIENT_CERT", _in_one_line(certificate)))
    return out


def host(sent: Iterable[Header]) -> str:
    """Return for which name and port a client asked, empty when it did not say.

    Raises:
        Rejected: it named several, or what no host is: backends build addresses from it.
    """
    hosts = [value for name, value in sent if name == b"host" and value]
    if not hosts:
        return ""
    if len(hosts) > 1 or not _HOST.match(hosts[0]):
        raise Rejected("bad Host header")
    return hosts[0].decode("ascii")


def unconditional(sent: Iterable[tuple[str, str]], *, keeps_range: bool = False) -> list[tuple[str, str]]:
    """Return a backend's headers without a client's conditions, which name validators of ours."""
    return [(k, v) for k, v in sent if k.lower() not in _CONDITIONS and (keeps_range or k.lower() != "range")]


def field(sent: Iterable[Header], name: bytes) -> str | None:
    """Return a header that is a list, its lines joined (RFC 9110 §5.3); None without."""
    lines = [value.decode("latin-1") for n, value in sent if n == name]
    return ", ".join(lines) if lines else None


def answered(
    pairs: Sequence[tuple[str, str]], *, keeps_validators: bool, moved: Callable[[str], str] = lambda location: location
) -> list[Header]:
    """Return the headers for the client, without those of one connection; its validators only where they are everybody's.

    ``moved`` turns a ``Location`` as the backend knows it into one the client can go to.
    """
    named = {w.strip().lower() for n, v in pairs if n.lower() == "connection" for w in v.split(",")}
    out: list[Header] = []
    for name, value in pairs:
        lower = name.lower()
        raw = lower.encode("latin-1", "replace")
        if raw in _HOP or lower in named or raw in _OURS:
            continue
        if not keeps_validators and raw in _OF_ONE_BACKEND:
            continue
        out.append((raw, (moved(value) if lower == "location" else value).encode("latin-1", "replace")))
    return out


def _text(value: bytes) -> str:
    """Return what is written as the same bytes again, where they are UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


@lru_cache(maxsize=256)
def _pem(certificate: bytes) -> str:
    body = base64.b64encode(certificate).decode()
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


@lru_cache(maxsize=256)
def _escaped(certificate: bytes) -> str:
    return quote(_pem(certificate), safe="")


def _in_one_line(certificate: bytes) -> str:
    # As Apache writes a variable of several lines into a header.
    return _pem(certificate).strip().replace("\n", " ")
