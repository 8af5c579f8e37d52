"""Files that are either the old or the new, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from muster.kernel.errors import Misconfigured, Unavailable


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Replace the file's content in one step and make it survive a power cut.

    The content is written beside the target with the final mode already set (a key is never readable for a moment),
    synced, renamed over it, and the directory is synced.

    Raises:
        Unavailable: the disk refused (full, read-only, no directory); the old file is untouched.
    """
    content = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            # The umask may have taken bits away; the mode asked for is the mode promised.
            os.fchmod(fd, mode)
            with open(fd, "wb", closefd=False) as f:
                f.write(content)
                f.flush()
            os.fsync(fd)
        finally:
            os.close(fd)
        beside.replace(path)
        _sync_directory(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise Unavailable(f"Writing {path} failed: {e.strerror or e}; the old file is untouched") from e


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make the directory and its parents exist; a new one gets exactly the mode.

    Raises:
        Unavailable: the disk refused.
    """
    if path.is_dir():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=mode, exist_ok=True)
        path.chmod(mode)
    except OSError as e:
        raise Unavailable(f"Making directory {path} failed: {e.strerror or e}") from e


def fingerprint(*paths: Path) -> tuple[object, ...]:
    """Return a value that changes when one of the files is replaced, rewritten, made or removed; cheap."""
    out: list[object] = []
    for path in paths:
        try:
            found = path.stat()
            out.append((found.st_ino, found.st_mtime_ns, found.st_size))
        except OSError as e:
            out.append(e.errno)
    return tuple(out)


def read_bounded(path: Path, *, what: str, limit_bytes: int = 4 << 20) -> bytes:
    """Return the file's content.

    Raises:
        Misconfigured: absent, unreadable or larger than the limit; the sentence names ``what`` and the path.
    """
    try:
        with path.open("rb") as f:
            content = f.read(limit_bytes + 1)
    except OSError as e:
        raise Misconfigured(f"Reading {what} {path} failed: {e.strerror or e}") from e
    if len(content) > limit_bytes:
        raise Misconfigured(f"Reading {what} {path} failed: larger than {limit_bytes} bytes")
    return content


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
