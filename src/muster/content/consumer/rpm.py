"""An rpm from a package's contents. Equal arguments give equal bytes.

Source: the RPM file format, version 4 (lead, signature header, header, a cpio archive), as rpm from 4.8 on reads it.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from muster.content.consumer.contents import Contents, File
from muster.content.consumer.rpm_file import INT16, INT32, STRING, STRINGS, TRANSLATED, Tag, file_of

# Of everything inside: the bytes tell nothing of when and where they were made.
MADE_AT = 1_767_225_600

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
    called = f"{contents.name}-{version}-{release}"
    return file_of(called, _tags(contents, version, release, payload), payload, unpacked_bytes=len(cpio))


def _tags(contents: Contents, version: str, release: str, payload: bytes) -> dict[int, Tag]:
    files = contents.files
    directory = _directory(files)
    count = 1 + len(files)
    needed = {_SHELL: (_INTERPRETER, ""), **{n: (_RPMLIB | _LESS | _EQUAL, since) for n, since in _KNOWN.items()}}
    replaced: dict[int, Tag] = {
        1090: (STRINGS, contents.replaces),
        1114: (INT32, [_LESS] * len(contents.replaces)),
        # Those of single proxies are all 1.0, and those of an address that was 1.N: whatever there is gives way.
        1115: (STRINGS, ["2"] * len(contents.replaces)),
    }
    return {
        100: (STRINGS, ["C"]),
        1000: (STRING, [contents.name]),
        1001: (STRING, [version]),
        1002: (STRING, [release]),
        1004: (TRANSLATED, [contents.summary]),
        1005: (TRANSLATED, [contents.summary + "."]),
        1006: (INT32, [MADE_AT]),
        1007: (STRING, ["muster"]),
        1009: (INT32, [sum(len(f.text.encode()) for f in files)]),
        1014: (STRING, ["Apache-2.0"]),
        1016: (TRANSLATED, ["Unspecified"]),
        1021: (STRING, ["linux"]),
        1022: (STRING, ["noarch"]),
        1025: (STRING, [f'if [ "$1" = 0 ]; then\n{contents.removed}fi\nexit 0\n']),
        1028: (INT32, [_DIRECTORY_BYTES, *(len(f.text.encode()) for f in files)]),
        1030: (INT16, [0o040755, *(0o100000 | f.mode for f in files)]),
        1033: (INT16, [0] * count),
        1034: (INT32, [MADE_AT] * count),
        1035: (STRINGS, ["", *(hashlib.sha256(f.text.encode()).hexdigest() for f in files)]),
        1036: (STRINGS, [""] * count),
        1037: (INT32, [0] * count),
        1039: (STRINGS, ["root"] * count),
        1040: (STRINGS, ["root"] * count),
        1044: (STRING, [f"{contents.name}-{version}-{release}.src.rpm"]),
        1045: (INT32, [-1] * count),
        1047: (STRINGS, [contents.name]),
        1048: (INT32, [flags for flags, _ in needed.values()]),
        1049: (STRINGS, list(needed)),
        1050: (STRINGS, [since for _, since in needed.values()]),
        1064: (STRING, ["4.8.0"]),
        1087: (STRING, [_SHELL]),
        1095: (INT32, [1] * count),
        1096: (INT32, list(range(1, count + 1))),
        1097: (STRINGS, [""] * count),
        1112: (INT32, [_EQUAL]),
        1113: (STRINGS, [f"{version}-{release}"]),
        1116: (INT32, [0] + [1] * len(files)),
        1117: (STRINGS, [directory.name, *(PurePosixPath(f.path).name for f in files)]),
        1118: (STRINGS, [f"{directory.parent}/".replace("//", "/"), f"{directory}/"]),
        1124: (STRING, ["cpio"]),
        1125: (STRING, ["gzip"]),
        1126: (STRING, ["9"]),
        # Behind what the transaction removes: a package that gives way brings back what was there before it.
        1152: (STRING, [f"{contents.installed}exit 0\n"]),
        1154: (STRING, [_SHELL]),
        5011: (INT32, [_SHA256]),
        5092: (STRINGS, [hashlib.sha256(payload).hexdigest()]),
        5093: (INT32, [_SHA256]),
        **(replaced if contents.replaces else {}),
    }


def _directory(files: Sequence[File]) -> PurePosixPath:
    (found,) = {PurePosixPath(f.path).parent for f in files}
    return found


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
