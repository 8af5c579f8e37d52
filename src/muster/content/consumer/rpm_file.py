"""The form of an rpm: lead, signature header, header, payload. Equal arguments give equal bytes.

Source: the RPM file format, version 4, as rpm from 4.8 on reads it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

INT16, INT32, STRING, BINARY, STRINGS, TRANSLATED = 3, 4, 6, 7, 8, 9
"""Kinds of values."""

Tag = tuple[int, Sequence[str | int | bytes]]
"""Kind and values."""

_LONGEST_NAME = 65


def file_of(called: str, tags: Mapping[int, Tag], payload: bytes, *, unpacked_bytes: int) -> bytes:
    """Return the whole file; ``payload`` is a compressed cpio archive, which had so many bytes before."""
    header = _header(63, tags)
    body = header + payload
    signature = _header(
        62,
        {
            269: (STRING, [hashlib.sha1(header, usedforsecurity=False).hexdigest()]),
            273: (STRING, [hashlib.sha256(header).hexdigest()]),
            1000: (INT32, [len(body)]),
            1004: (BINARY, [hashlib.md5(body, usedforsecurity=False).digest()]),
            1007: (INT32, [unpacked_bytes]),
        },
    )
    named = called.encode()[:_LONGEST_NAME]
    lead = struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", 3, 0, 0, 255, named, 1, 5)
    return lead + signature + bytes(-len(signature) % 8) + body


def _header(region: int, tags: Mapping[int, Tag]) -> bytes:
    """Write tags as RPM's header structure, enclosed in a region."""
    index, store = [], b""
    for tag, (kind, values) in sorted(tags.items()):
        width = {INT16: 2, INT32: 4}.get(kind, 1)
        store += bytes(-len(store) % width)
        count = len(values[0]) if isinstance(values[0], bytes) else len(values)
        index.append(struct.pack(">iiii", tag, kind, len(store), count))
        for value in values:
            if isinstance(value, bytes):
                store += value
            elif isinstance(value, str):
                store += value.encode() + b"\0"
            else:
                store += (value & (1 << 8 * width) - 1).to_bytes(width, "big")
    whole = struct.pack(">iiii", region, BINARY, len(store), 16)
    store += struct.pack(">iiii", region, BINARY, -16 * (len(index) + 1), 16)
    head = struct.pack(">4s4xii", b"\x8e\xad\xe8\x01", len(index) + 1, len(store))
    return head + whole + b"".join(index) + store
