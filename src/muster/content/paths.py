"""A path as it goes on to a backend: as it was sent, or not at all.

Names of packages hold ``+``, ``~``, ``^`` and ``%2B``, and what a backend makes of them is its own matter, so nothing is
decoded and written anew. What two programs may read differently (``..``, also with a parameter, an escaped slash or dot, a
backslash, an escape that is none, a slash too many within the prefix) is refused.
"""

from __future__ import annotations

import re

from muster.content.places import Place
from muster.kernel.errors import Rejected
from muster.kernel.names import shown

LIMIT_BYTES = 4096
# What RFC 3986 §3.3 lets stand in a path, escapes, and a few others that clients send as they are.
_SENT = re.compile(rb"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@^{}|\[\]\"<>`-]|%[0-9A-Fa-f]{2})*)+\Z")
# Separators and dots escaped, line ends, and what ends a string elsewhere.
_AMBIGUOUS = re.compile(rb"%(?:2[Ff]|5[Cc]|2[Ee]|0[0-9A-Fa-f]|1[0-9A-Fa-f]|7[Ff])")
_DOTS = re.compile(rb"/\.\.?(?=[/;]|\Z)")
_QUERY = re.compile(rb"[!-~]*\Z")


def as_sent(raw_path: bytes, raw_query: bytes) -> str:
    """Return path and query as the client sent them, for another member; :func:`forwarded` has refused all others."""
    return (raw_path + (b"?" + raw_query if raw_query else b"")).decode("ascii")


def forwarded(place: Place, raw_path: bytes, raw_query: bytes) -> str:
    """Return path and query for the backend.

    Raises:
        Rejected: it is longer than 4096 bytes, or two programs might take it for different paths.
    """
    if len(raw_path) + len(raw_query) > LIMIT_BYTES:
        raise Rejected(f"the path is longer than {LIMIT_BYTES} bytes")
    if not _SENT.match(raw_path) or _AMBIGUOUS.search(raw_path) or _DOTS.search(raw_path):
        raise Rejected(f"bad URI {shown(raw_path[:200].decode('latin-1'))}")
    if not _QUERY.match(raw_query):
        raise Rejected("bad URI: a query holds visible ASCII only")
    prefix = place.prefix.encode()
    if not raw_path.startswith(prefix):
        # Mounts are found with slashes collapsed; what would be cut off here is not what was found there.
        raise Rejected(f"bad URI {shown(raw_path[:200].decode('latin-1'))}")
    rest = raw_path[len(prefix) :].decode("ascii")
    query = "?" + raw_query.decode("ascii") if raw_query else ""
    return (place.to + rest or "/") + query
