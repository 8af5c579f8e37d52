"""Archives as they lie on disk: read whole, with limits, and nothing unpacked; and written."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muster.kernel import archives
from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown
from muster.pki.archive.layout import Format, Layout, layout

_LARGEST_FILE = 1 << 20
_LARGEST_WHOLE = 8 << 20
_MOST_ENTRIES = 200
_LARGEST_ENTRY = 512 << 10
_TOO_MUCH = "more than an archive of certificates does"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_INSTALLER = re.compile(rf"ssl-build/({_HOST})/\1-(?:apache|foreman-proxy)\.crt\Z")
_FOREMANCTL = re.compile(rf"private/({_HOST})-client\.key\Z")


@dataclass(frozen=True)
class Archive:
    """What an archive holds.

    Attributes:
        files: content by name; directories are none.
    """

    layout: Layout
    files: Mapping[str, bytes]

    @property
    def format(self) -> Format:
        return self.layout.format

    @property
    def member(self) -> str:
        return self.layout.member

    @property
    def missing(self) -> tuple[str, ...]:
        """Files that such an archive has, and this one has not."""
        return tuple(name for name in self.layout.files if name not in self.files)

    @property
    def more(self) -> tuple[str, ...]:
        """Files that such an archive has no need of: older ones have some."""
        return tuple(sorted(set(self.files) - set(self.layout.files)))


def opened(path: Path) -> Archive:
    """Read an archive, compressed or not; which format it has shows by its files.

    Raises:
        Misconfigured: it cannot be read, is no archive of certificates, or is larger than any is.
    """
    files: dict[str, bytes] = {}
    with archives.opened(
        path, what="archive", limit_bytes=_LARGEST_FILE, whole_bytes=_LARGEST_WHOLE, too_much=_TOO_MUCH
    ) as tar:
        for count, entry in enumerate(tar, 1):
            if count > _MOST_ENTRIES or entry.size > _LARGEST_ENTRY:
                raise Misconfigured(f"{path} holds {_TOO_MUCH}")
            name = entry.name.removeprefix("./")
            if entry.isdir():
                continue
            content = tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise Misconfigured(f"{path} holds {shown(name)}, which is no file; certificates are")
            if name in files:
                raise Misconfigured(f"{path} holds {shown(name)} twice")
            files[name] = content.read()
    return Archive(_layout_of(files, path), files)


def packed(files: Mapping[str, bytes], private: frozenset[str], *, compressed: bool, mtime: int = 0) -> bytes:
    """Return an archive of files in their order, root's, keys for nobody else; the same files give the same bytes."""
    out = io.BytesIO()
    # What tar itself writes: POSIX's older form has no room for a long host name twice.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), mtime
            entry.mode = 0o600 if name in private else 0o644
            entry.uname = entry.gname = "root"
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0) if compressed else out.getvalue()


def _layout_of(files: Mapping[str, bytes], path: Path) -> Layout:
    named = {
        form: dict.fromkeys(found[1] for name in files if (found := pattern.match(name)))
        for form, pattern in (("installer", _INSTALLER), ("foremanctl", _FOREMANCTL))
    }
    if len(named["installer"]) == 1:
        return layout("installer", next(iter(named["installer"])))
    if len(named["foremanctl"]) == 1 and not named["installer"]:
        return layout("foremanctl", next(iter(named["foremanctl"])))
    raise Misconfigured(
        f"{path} is no archive of one Smart Proxy: it has neither ssl-build/NAME/NAME-foreman-proxy.crt, as those of "
        "foreman-proxy-certs-generate, nor private/NAME-client.key, as those of foremanctl"
    )
