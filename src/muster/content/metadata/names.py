"""Paths and digests as metadata writes them, accepted whole or not at all."""

from __future__ import annotations

import re
from typing import Final, Literal

Algorithm = Literal["sha256", "sha384", "sha512", "sha224", "sha1", "md5"]
PROOFS: Final = frozenset({"sha256", "sha384", "sha512"})
"""Those whose digests are proofs: two files of one digest cannot be made."""

# Each as metadata calls it, with the characters of its digest.
_KNOWN: dict[str, tuple[Algorithm, int]] = {
    "md5": ("md5", 32), "sha": ("sha1", 40), "sha1": ("sha1", 40), "sha224": ("sha224", 56), "sha256": ("sha256", 64),
    "sha384": ("sha384", 96), "sha512": ("sha512", 128),
}  # fmt: skip
_HEX = re.compile(r"[0-9a-f]{32,128}\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")
_HREF_BYTES = 1024
# Controls, line ends, halves of characters; what is another separator somewhere; what ends a path, or escapes in it.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\?#%]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def is_inside(href: str) -> bool:
    r"""Return whether a path leads, however it is read, to one place inside its repository.

    That is one without ``..``, ``.`` and empty segments, a scheme, control characters, ``\``, ``?``, ``#``, ``%``, and a
    slash or white space at either end, of at most 1024 bytes. It is plain text: in a URL it has to be quoted, as dnf does.
    """
    if not href or len(href) > _HREF_BYTES or _REFUSED.search(href) or _SCHEME.match(href) or href != href.strip():
        return False
    return len(href.encode()) <= _HREF_BYTES and not any(part in ("", ".", "..") for part in href.split("/"))


def checksum(algorithm: str, digest: str) -> tuple[Algorithm, str] | None:
    """Return algorithm and digest in lower case, ``sha`` by its name ``sha1``; None where they are none."""
    name, length = _KNOWN.get(algorithm.lower(), (None, 0))
    value = digest.lower()
    return (name, value) if name is not None and len(value) == length and _HEX.match(value) else None


def whole_number(text: str) -> int | None:
    """Return a size in bytes; None where the text is none."""
    return int(text) if _NUMBER.match(text) else None
