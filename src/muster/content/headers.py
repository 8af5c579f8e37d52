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

_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"expect",
})  # fmt: skip
# Those that some backend takes for a statement of the server in front of it; ``_`` and ``-`` are one to CGI's names.
_STATEMENTS = re.compile(
    rb"(?:x-client-cert|x-client-.*|ssl-.*|x-ssl-.*|x-rhsm-.*|remote-user|x-remote-user|remote-.*|http-.*|x-forwarded-.*|"
    rb"forwarded|x-real-ip|x-muster-.*|x-original-.*|x-rewrite-url|x-sendfile.*|x-accel-.*)\Z"
)
_ASKED_ANEW = frozenset({b"host", b"content-length", b"accept-encoding"})
# Of the backend alone: two of them give equal bytes different ones (docs/facts/content-and-boot.md).
_OF_ONE_BACKEND = frozenset({b"etag", b"last-modified", b"server", b"date", b"x-pulp-cache"})


def asked(
    sent: Iterable[Header], *, backend: Backend, address: str, host: str, scheme: str, certificate: bytes | None
) -> list[tuple[str, str]]:
    """Return the headers for a backend.

    ``sent`` are the client's, names in lower case; ``address``, ``host`` and ``scheme`` say from where, for which name and
    over what it asked; ``certificate`` is its verified one, DER, None without.
    """
    sent = list(sent)
    named = {w.strip().lower() for n, v in sent if n == b"connection" for w in v.split(b",")}
    out = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in sent
        if name not in _HOP
        and name not in named
        and name not in _ASKED_ANEW
        and not _STATEMENTS.match(name.replace(b"_", b"-"))
    ]
    # Of content the bytes as they are kept: validators are theirs, and packages are packed.
    packed = "identity" if backend == "content" else None
    wanted = (v.decode("latin-1") for n, v in sent if n == b"accept-encoding")
    out.append(("Accept-Encoding", packed or next(wanted, "identity")))
    out += [("X-Forwarded-For", address), ("X-Forwarded-Proto", scheme), ("X-Forwarded-Host", host)]
    if certificate is not None:
        if backend in ("content", "api"):
            out.append(("X-CLIENT-CERT", _escaped(certificate)))
        elif backend in ("foreman", "registry"):
            out.append(("X_RHSM_SSL_CLIENT_CERT", _in_one_line(certificate)))
    return out


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
        if raw in _HOP or lower in named or lower in ("server", "date"):
            continue
        if not keeps_validators and raw in _OF_ONE_BACKEND:
            continue
        out.append((raw, (moved(value) if lower == "location" else value).encode("latin-1", "replace")))
    return out


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
