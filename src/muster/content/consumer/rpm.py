"""An rpm from a package's contents. Equal arguments give equal bytes.

Source: the RPM file format, version 4 (lead, signature header, header, a cpio archive), as rpm from 4.8 on reads it.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from muster.content.consumer.contents import Contents, File

# Of everything inside: the bytes tell nothing of when and where they were made.
MADE_AT = 1_767_225_600

_INT16, _INT32, _STRING, _BINARY, _STRINGS, _TRANSLATED = 3, 4, 6, 7, 8, 9
_Tag = tuple[int, Sequence[str | int | bytes]]
_LESS, _EQUAL, _INTERPRETER, _RPMLIB = 0x02, 0x08, 0x100, 0x01000000
_ANY = 0
_SHA256 = 8
_SHELL = "/bin/sh"
_DIRECTORY_BYTES = 4096
# What an rpm has to know to read this one, and since when it does.
_KNOWN = {
    "rpmlib(CompressedFileNames)": "3.0.4-1",
    "rpmlib(FileDigests)": "4.6.0-1",
    "rpmlib(PayloadFilesHavePrefix)": "4.0-1",
}


def rpm(contents: Contents, version: str, release: str = "1") -> bytes:
    """Return the whole file."""
    cpio = _cpio(contents.files)
    payload = gzip.compress(cpio, mtime=0)
    header = _header(63, _tags(contents, version, release, payload))
    body = header + payload
    signature = _header(
        62,
        {
            269: (_STRING, [hashlib.sha1(header, usedforsecurity=False).hexdigest()]),
            273: (_STRING, [hashlib.sha256(header).hexdigest()]),
            1000: (_INT32, [len(body)]),
            1004: (_BINARY, [hashlib.md5(body, usedforsecurity=False).digest()]),
            1007: (_INT32, [len(cpio)]),
        },
    )
    called = f"{contents.name}-{version}-{release}".encode()[:65]
    lead = struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", 3, 0, 0, 255, called, 1, 5)
    return lead + signature + bytes(-len(signature) % 8) + body


def _tags(contents: Contents, version: str, release: str, payload: bytes) -> dict[int, _Tag]:
    files = contents.files
    directory = _directory(files)
    count = 1 + len(files)
    needed = {_SHELL: (_INTERPRETER, ""), **{n: (_RPMLIB | _LESS | _EQUAL, since) for n, since in _KNOWN.items()}}
    replaced: dict[int, _Tag] = {
        1090: (_STRINGS, contents.replaces),
        1114: (_INT32, [_LESS] * len(contents.replaces)),
        # Those of single proxies are all 1.0, and those of an address that was 1.N: whatever there is gives way.
        1115: (_STRINGS, ["2"] * len(contents.replaces)),
    }
    return {
        100: (_STRINGS, ["C"]),
        1000: (_STRING, [contents.name]),
        1001: (_STRING, [version]),
        1002: (_STRING, [release]),
        1004: (_TRANSLATED, [contents.summary]),
        1005: (_TRANSLATED, [contents.summary + "."]),
        1006: (_INT32, [MADE_AT]),
        1007: (_STRING, ["muster"]),
        1009: (_INT32, [sum(len(f.text.encode()) for f in files)]),
        1014: (_STRING, ["Apache-2.0"]),
        1016: (_TRANSLATED, ["Unspecified"]),
        1021: (_STRING, ["linux"]),
        1022: (_STRING, ["noarch"]),
        1025: (_STRING, [f'if [ "$1" = 0 ]; then\n{contents.removed}fi\nexit 0\n']),
        1028: (_INT32, [_DIRECTORY_BYTES, *(len(f.text.encode()) for f in files)]),
        1030: (_INT16, [0o040755, *(0o100000 | f.mode for f in files)]),
        1033: (_INT16, [0] * count),
        1034: (_INT32, [MADE_AT] * count),
        1035: (_STRINGS, ["", *(hashlib.sha256(f.text.encode()).hexdigest() for f in files)]),
        1036: (_STRINGS, [""] * count),
        1037: (_INT32, [0] * count),
        1039: (_STRINGS, ["root"] * count),
        1040: (_STRINGS, ["root"] * count),
        1044: (_STRING, [f"{contents.name}-{version}-{release}.src.rpm"]),
        1045: (_INT32, [-1] * count),
        1047: (_STRINGS, [contents.name]),
        1048: (_INT32, [flags for flags, _ in needed.values()]),
        1049: (_STRINGS, list(needed)),
        1050: (_STRINGS, [since for _, since in needed.values()]),
        1064: (_STRING, ["4.8.0"]),
        1087: (_STRING, [_SHELL]),
        1095: (_INT32, [1] * count),
        1096: (_INT32, list(range(1, count + 1))),
        1097: (_STRINGS, [""] * count),
        1112: (_INT32, [_EQUAL]),
        1113: (_STRINGS, [f"{version}-{release}"]),
        1116: (_INT32, [0] + [1] * len(files)),
        1117: (_STRINGS, [directory.name, *(PurePosixPath(f.path).name for f in files)]),
        1118: (_STRINGS, [f"{directory.parent}/".replace("//", "/"), f"{directory}/"]),
        1124: (_STRING, ["cpio"]),
        1125: (_STRING, ["gzip"]),
        1126: (_STRING, ["9"]),
        # Behind what the transaction removes: a package that gives way brings back what was there before it.
        1152: (_STRING, [f"{contents.installed}exit 0\n"]),
        1154: (_STRING, [_SHELL]),
        5011: (_INT32, [_SHA256]),
        5092: (_STRINGS, [hashlib.sha256(payload).hexdigest()]),
        5093: (_INT32, [_SHA256]),
        **(replaced if contents.replaces else {}),
    }


def _directory(files: Sequence[File]) -> PurePosixPath:
    (found,) = {PurePosixPath(f.path).parent for f in files}
    return found


def _header(region: int, tags: Mapping[int, _Tag]) -> bytes:
    """Write tags as RPM's header structure, enclosed in a region."""
    index, store = [], b""
    for tag, (kind, values) in sorted(tags.items()):
        width = {_INT16: 2, _INT32: 4}.get(kind, 1)
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
    whole = struct.pack(">iiii", region, _BINARY, len(store), 16)
    store += struct.pack(">iiii", region, _BINARY, -16 * (len(index) + 1), 16)
    head = struct.pack(">4s4xii", b"\x8e\xad\xe8\x01", len(index) + 1, len(store))
    return head + whole + b"".join(index) + store


def _cpio(files: Sequence[File]) -> bytes:
    directory = f".{_directory(files)}"
    entries = [(directory, 0o040755, 2, b""), *((f".{f.path}", 0o100000 | f.mode, 1, f.text.encode()) for f in files)]
    made = b""
    for number, (name, mode, links, data) in enumerate([*entries, ("TRAILER!!!", 0, 1, b"")], 1):
        named = name.encode() + b"\0"
        is_last = number > len(entries)
        fields = (
            0 if is_last else number, mode, 0, 0, links, 0 if is_last else MADE_AT, len(data), 0, 0, 0, 0, len(named), 0,
        )  # fmt: skip
        made += b"070701" + b"".join(b"%08x" % f for f in fields) + named
        made += bytes(-len(made) % 4) + data
        made += bytes(-len(made) % 4)
    return made
