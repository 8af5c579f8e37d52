"""A Debian package from a package's contents. Equal arguments give equal bytes.

Source: deb(5), deb-control(5); the archive around it is that of ar(5).
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from muster.content.consumer.contents import CALLED, Contents, File
from muster.content.consumer.rpm import MADE_AT


def deb(contents: Contents, version: str, revision: str = "1") -> bytes:
    """Return the whole file."""
    fields = {
        "Package": contents.name,
        "Version": f"{version}-{revision}",
        "Architecture": "all",
        "Maintainer": "Muster <root@localhost>",
        "Installed-Size": str(-(-sum(len(f.text.encode()) for f in contents.files) // 1024)),
        # Set up before this one: the directory of a host's own CAs is made by the script of ca-certificates.
        "Depends": "ca-certificates, python3",
        # A host knows one cluster: whichever is installed removes the other, whose script brings back what was there.
        "Provides": CALLED,
        "Conflicts": CALLED,
        "Replaces": CALLED,
        "Section": "admin",
        "Priority": "optional",
        "Description": contents.summary,
    }
    control = (
        File("/control", "".join(f"{name}: {value}\n" for name, value in fields.items())),
        # abort-remove: prerm has taken all back, and then the package stays.
        File(
            "/postinst",
            f'#!/bin/sh\nif [ "$1" = configure ] || [ "$1" = abort-remove ]; then\n{contents.installed}fi\nexit 0\n',
            0o755,
        ),
        File("/prerm", f'#!/bin/sh\nif [ "$1" = remove ]; then\n{contents.removed}fi\nexit 0\n', 0o755),
    )
    made = b"!<arch>\n"
    for name, data in {
        "debian-binary": b"2.0\n", "control.tar.gz": _tar(control), "data.tar.gz": _tar(contents.files),
    }.items():  # fmt: skip
        made += f"{name:<16}{MADE_AT:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        made += data + b"\n" * (len(data) % 2)
    return made


def _tar(files: Sequence[File]) -> bytes:
    written = io.BytesIO()
    above = sorted({str(d) for f in files for d in PurePosixPath(f.path).parents})
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for directory in above:
            archive.addfile(_entry(f".{directory}".rstrip("/") + "/", 0o755, kind=tarfile.DIRTYPE))
        for file in files:
            data = file.text.encode()
            archive.addfile(_entry(f".{file.path}", file.mode, len(data)), io.BytesIO(data))
    return gzip.compress(written.getvalue(), mtime=0)


def _entry(name: str, mode: int, size: int = 0, *, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, MADE_AT
    entry.uname = entry.gname = "root"
    return entry
