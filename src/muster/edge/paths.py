"""Paths as Foreman and the Ruby proxy understand them (docs/facts/smart-proxy-protocol.md §2.1).

The mount is chosen first, on the path as it was sent: ``/dns%2F`` and ``/%64ns/`` are not below ``/dns``, and whatever
filters by prefix in front of a member sees the path the member goes by. What follows the prefix is percent-decoded then, so
``%2F`` and ``%2E`` count as ``/`` and ``.`` and no parameter can hold a slash; only then are ``.`` and ``..`` resolved,
inside the mount: that is why ``/v2/../version`` stays under ``/v2`` and its access rules.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from muster.kernel.errors import Rejected
from muster.kernel.names import shown

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASHES = re.compile(r"/{2,}")
_SENT_SLASHES = re.compile(rb"/{2,}")


def decoded(raw_path: bytes) -> str:
    """Return the path decoded, slashes collapsed, starting with one slash.

    Raises:
        Rejected: a broken escape, or ``..`` that climbs above the root.
    """
    refuse_unless_path(raw_path)
    return _decoded(raw_path)


def refuse_unless_path(raw_path: bytes) -> None:
    """Refuse what is no path.

    Raises:
        Rejected: a broken escape, or ``..`` that climbs above the root.
    """
    if _BAD_ESCAPE.search(raw_path):
        raise Rejected(f"bad URI {shown(raw_path.decode('latin-1'))}")
    path = _decoded(raw_path)
    depth = 0
    for segment in path.split("/"):
        depth += -1 if segment == ".." else 1 if segment not in ("", ".") else 0
        if depth < 0:
            raise Rejected(f"bad URI {shown(path)}")


def sent(raw_path: bytes) -> bytes:
    """Return the path as it was sent, slashes collapsed, starting with one slash: what prefixes are compared with."""
    path = _SENT_SLASHES.sub(b"/", raw_path)
    return path if path.startswith(b"/") else b"/" + path


def inside(rest: bytes) -> str:
    """Return the path inside a mount, from what was sent after the mount's prefix."""
    return cleaned(_decoded(rest) if rest else "")


def _decoded(raw: bytes) -> str:
    # Bytes that are no UTF-8 become halves of characters: they find no route, and no parameter may hold them.
    path = _SLASHES.sub("/", unquote_to_bytes(raw).decode("utf-8", "surrogateescape"))
    return path if path.startswith("/") else "/" + path


def cleaned(path: str) -> str:
    """Return a mount-relative path without ``.`` and ``..``; a trailing slash stays."""
    if "/." not in path:
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    trailing = "/" if kept and path.endswith(("/", "/.", "/..")) else ""
    return "/" + "/".join(kept) + trailing


def check_query(raw_query: bytes) -> None:
    """Refuse a query string with a broken escape.

    Raises:
        Rejected: as the Ruby proxy's server does (400). The sentence does not repeat it: tokens travel in queries.
    """
    if b"%" in raw_query and _BAD_ESCAPE.search(raw_query):
        raise Rejected("bad URI: a percent sign in the parameters is not followed by two hexadecimal digits")
