"""What boot files are called in HTTP, by the ends of their names, the same on every member.

Firmware knows a loader by the end of its name where the type says nothing. Source: docs/facts/smart-proxy-protocol.md §10.
"""

from __future__ import annotations

from collections.abc import Mapping

_UNKNOWN = b"application/octet-stream"
_TEXT = b"text/plain;charset=utf-8"
_TYPES: Mapping[str, bytes] = {
    "css": b"text/css;charset=utf-8",
    "gif": b"image/gif",
    "gz": b"application/x-gzip",
    "htm": b"text/html;charset=utf-8",
    "html": b"text/html;charset=utf-8",
    "jpeg": b"image/jpeg",
    "jpg": b"image/jpeg",
    "js": b"application/javascript;charset=utf-8",
    "json": b"application/json",
    "log": _TEXT,
    "png": b"image/png",
    "svg": b"image/svg+xml",
    "tar": b"application/x-tar",
    "txt": _TEXT,
    "xml": b"application/xml;charset=utf-8",
    "zip": b"application/zip",
}


def of(path: str) -> bytes:
    """Return the type of a file with this path."""
    _, dot, end = path.rstrip("/").rpartition("/")[2].rpartition(".")
    return _TYPES.get(end.lower(), _UNKNOWN) if dot else _UNKNOWN
