"""Paths as Foreman and the Ruby proxy understand them (protocol reference §2.1).

The whole path is percent-decoded first, so ``%2F`` and ``%2E`` count as ``/`` and ``.`` and no parameter can hold a
slash. The mount is chosen next, on the path as written; only then are ``.`` and ``..`` resolved, inside the mount: that is
why ``/v2/../version`` stays under ``/v2`` and its access rules.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from muster.kernel.errors import Rejected
from muster.kernel.names import shown

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASHES = re.compile(r"/{2,}")


def decoded(raw_path: bytes) -> str:
    """Return the path decoded, slashes collapsed, starting with one slash.

    Raises:
        Rejected: a broken escape, or ``..`` that climbs above the root.
    """
    if _BAD_ESCAPE.search(raw_path):
        raise Rejected(f"bad URI {shown(raw_path.decode('latin-1'))}")
    text = raw_path.decode("latin-1")
    # Bytes that are not UTF-8 become surrogates: no validator accepts those, and they can still be shown.
    path = unquote(text, "utf-8", "surrogateescape") if "%" in text else text
    path = _SLASHES.sub("/", path)
    depth = 0
    for segment in path.split("/"):
        depth += -1 if segment == ".." else 1 if segment not in ("", ".") else 0
        if depth < 0:
            raise Rejected(f"bad URI {shown(path)}")
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
