"""Files that are either the old or the new, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from muster.kernel.errors import Misconfigured, Unavailable

_GROUP_READS, _OTHERS_READ = 0o040, 0o004


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Replace the file's content in one step and make it survive a power cut.

    The content is written beside the target with the final mode already set (a key is never readable for a moment),
    synced, renamed over it, and the directory is synced.

    Raises:
        Unavailable: the disk refused (full, read-only, no directory); the old file is untouched.
    """
    try:
        with _written_beside(path, content, mode) as beside:
            beside.replace(path)
    except OSError as e:
        raise Unavailable(f"Writing {path} failed: {e.strerror or e}; the old file is untouched") from e


def write_new(path: Path, content: bytes | str, *, mode: int = 0o644) -> bool:
    """As :func:`write_atomically` where nothing is yet; false, and nothing was changed, when something is.

    Concurrency: of two who write at once, one gets true, and neither replaces the other's.

    Raises:
        Unavailable: the disk refused; nothing was written.
    """
    try:
        with _written_beside(path, content, mode) as beside:
            # Not renamed: that would replace.
            os.link(beside, path)
            beside.unlink()
    except FileExistsError:
        return False
    except OSError as e:
        raise Unavailable(f"Writing {path} failed: {e.strerror or e}") from e
    return True


def replace_for_readers(path: Path, content: bytes | str) -> None:
    """As :func:`write_atomically`, with the mode, owner and group the file has: a program of another account reads it.

    An ordinary account keeps the group at best, which is enough where the group, or everybody, may read. A new file gets
    mode 0644.

    Raises:
        Unavailable: the disk refused, or the file's readers could not read the new one; the old file is untouched.
    """
    try:
        before = path.stat()
    except OSError:
        before = None
    if before is None:
        write_atomically(path, content)
        return
    try:
        with _written_beside(path, content, before.st_mode & 0o777) as beside:
            _give(beside, before)
            beside.replace(path)
    except OSError as e:
        raise Unavailable(
            f"Replacing {path} for its readers failed: {e.strerror or e}; the old file is untouched"
        ) from e


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


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes | str, mode: int) -> Iterator[Path]:
    """Hold the content, synced, in a file beside the target; the block puts it there, and then the directory is synced.

    Raises:
        OSError: the disk refused, or the block did; the file beside is gone.
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
        yield beside
        _sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _give(beside: Path, before: os.stat_result) -> None:
    now = beside.stat()
    if (now.st_uid, now.st_gid) == (before.st_uid, before.st_gid):
        return
    try:
        os.chown(beside, before.st_uid, before.st_gid)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.chown(beside, -1, before.st_gid)
        same_group = beside.stat().st_gid == before.st_gid
        if not (before.st_mode & _OTHERS_READ or (same_group and before.st_mode & _GROUP_READS)):
            raise


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
