"""Files that are either the old or the new, never half of one, and that whom they are for can read.

What root writes belongs to whoever owned what was there before, else to the owner of the directory: administrators run
commands as root, and what reads the files runs under an account of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.names import shown

_GROUP_READS, _OTHERS_READ = 0o040, 0o004
_READ, _WRITE, _ENTER = 0o4, 0o2, 0o1
# What a user's or a group's number can be.
_IDS = 1 << 32


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644, like: Path | None = None) -> None:
    """Replace the file's content in one step and make it survive a power cut.

    The content is written beside the target with the final mode already set (a key is never readable for a moment),
    synced, renamed over it, and the directory is synced. Written by root it gets owner and group of ``like``, by default of
    what it replaces, else of the directory.

    Raises:
        Unavailable: the disk refused (full, read-only, no directory); the old file is untouched.
    """
    try:
        with _written_beside(path, content, mode, like=like) as beside:
            beside.replace(path)
    except OSError as e:
        left = "the old file is untouched" if path.parent.is_dir() else f"there is no directory {path.parent}"
        raise Unavailable(f"Writing {path} failed: {e.strerror or e}; {left}") from e


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
        with _written_beside(path, content, before.st_mode & 0o777, readers=before) as beside:
            beside.replace(path)
    except OSError as e:
        raise Unavailable(
            f"Replacing {path} for its readers failed: {e.strerror or e}; the old file is untouched"
        ) from e


def write_for_group(path: Path, content: bytes | str, *, mode: int, gid: int | None) -> None:
    """As :func:`write_atomically`, for who is in a group: it is ours and the group's before it stands in its place.

    Whoever owned what it replaces owns it no more. ``gid`` None: of whichever group we are.

    Raises:
        Unavailable: the disk refused, or we may not give files to the group; the old file is untouched.
    """
    try:
        with _written_beside(path, content, mode, owner=(-1, -1 if gid is None else gid)) as beside:
            beside.replace(path)
    except OSError as e:
        root = "; run this as root" if isinstance(e, PermissionError) else ""
        raise Unavailable(f"Writing {path} failed: {e.strerror or e}; the old file is untouched{root}") from e


def make_directory(path: Path, *, mode: int = 0o755, like: Path | None = None) -> None:
    """Make the directory and its parents exist; a new one gets exactly the mode.

    Made by root, a new one gets owner and group of ``like``, by default of the directory it is in.

    Raises:
        Unavailable: the disk refused.
    """
    if path.is_dir():
        return
    try:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir(exist_ok=True)
                give_to_owner(parent, like=like)
        path.mkdir(mode=mode, exist_ok=True)
        give_to_owner(path, like=like, mode=mode)
    except OSError as e:
        raise Unavailable(f"Making directory {path} failed: {e.strerror or e}") from e


def give_to_owner(made: Path, *, like: Path | None = None, mode: int | None = None) -> None:
    """Give what root just made to the owner and group of ``like``, by default of the directory it is in.

    Raises:
        OSError: there is no such file or directory, or a link by now.
    """
    # By descriptor: whoever owns the directory could have put a link to something else in its place.
    fd = os.open(made, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        _chown(fd, _owner(like, made.parent))
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make what was renamed, made or removed in the directory survive a power cut.

    Raises:
        OSError: it is none, or the disk refused.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private(path: Path) -> None:
    """Make an empty file, mode 0600, where there is none; root's goes to the directory's owner.

    One that exists is not even opened.

    Raises:
        OSError: it exists, or the disk refused.
    """
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        _chown(fd, _owner(None, path.parent))
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Account:
    """Who reads files.

    Attributes:
        gids: every group it is in.
    """

    name: str
    uid: int
    gids: frozenset[int]

    @classmethod
    def named(cls, name: str) -> Account:
        """Return the account of a name or a number.

        Raises:
            Rejected: this host has none of that name.
        """
        try:
            known = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except (KeyError, OverflowError, ValueError):
            if name.isdecimal() and int(name) < _IDS:
                return cls(name, int(name), frozenset())
            raise Rejected(f"This host has no account {shown(name)}") from None
        groups = os.getgrouplist(known.pw_name, known.pw_gid)
        return cls(known.pw_name, known.pw_uid, frozenset(groups))

    @classmethod
    def owner_of(cls, path: Path) -> Account | None:
        """Return who owns a file or directory, None when that cannot be seen."""
        try:
            found = path.stat()
        except OSError:
            return None
        account = cls.named(str(found.st_uid))
        return cls(account.name, account.uid, account.gids | {found.st_gid})

    def refused_by(self, path: Path) -> Path | None:
        """Return the file, or the directory above it, that keeps the account from reading the file; None: nothing does.

        Modes decide; where access control lists say more, nothing is known, and so nothing does.
        """
        if self.uid == 0:
            return None
        real = path.resolve()
        for one in (*reversed(real.parents), real):
            try:
                found = one.stat()
            except OSError:
                return None
            wanted = _READ if one == real else _ENTER
            if not self._may(found, wanted) and not _has_acl(one):
                return one
        return None

    def may_write_into(self, directory: Path) -> bool:
        """Whether the account may make files in a directory; modes decide, as above.

        Raises:
            OSError: it cannot be looked at.
        """
        found = directory.stat()
        both = self._may(found, _WRITE) and self._may(found, _ENTER)
        return self.uid == 0 or both or _has_acl(directory)

    def _may(self, found: os.stat_result, wanted: int) -> bool:
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        return bool(found.st_mode >> shift & wanted)


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


def first_line(path: Path, *, what: str, limit_bytes: int) -> str:
    """Return the first line of a file without white space around it, as a secret stands in one; empty: it has none.

    Raises:
        Misconfigured: as :func:`read_bounded`.
    """
    return read_bounded(path, what=what, limit_bytes=limit_bytes).decode("utf-8", "replace").partition("\n")[0].strip()


@contextlib.contextmanager
def _written_beside(
    path: Path,
    content: bytes | str,
    mode: int,
    *,
    like: Path | None = None,
    readers: os.stat_result | None = None,
    owner: tuple[int, int] | None = None,
) -> Iterator[Path]:
    """Hold the content, synced, in a file beside the target; the block puts it there, and then the directory is synced.

    ``readers``: a file whose owner and group it gets; ``owner``: the two themselves, -1 for ours.

    Raises:
        OSError: the disk refused, or the block did; the file beside is gone.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    content = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            # The umask may have taken bits away; the mode asked for is the mode promised.
            os.fchmod(fd, mode)
            if owner is not None:
                os.fchown(fd, *owner)
            elif readers is not None:
                _give(fd, readers)
            else:
                _chown(fd, _owner(path if like is None else like, path.parent))
            with open(fd, "wb", closefd=False) as f:
                f.write(content)
                f.flush()
            os.fsync(fd)
        finally:
            os.close(fd)
        yield beside
        sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _owner(like: Path | None, directory: Path) -> tuple[int, int] | None:
    """Return owner and group of ``like`` when it is there, else of the directory; None: ours, nobody else's."""
    if os.geteuid() != 0:
        return None
    found = None
    if like is not None:
        with contextlib.suppress(OSError):
            # A link is replaced, not followed: whoever may put one here must not choose another file's owner.
            found = like.lstat()
    found = found or directory.stat()
    return found.st_uid, found.st_gid


def _chown(fd: int, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        # Root of a container or of a network file system may not; the doctor says who cannot read it then.
        with contextlib.suppress(PermissionError):
            os.fchown(fd, *owner)


def _has_acl(path: Path) -> bool:
    try:
        return any(name.startswith("system.posix_acl") for name in os.listxattr(path))
    except OSError:
        return False


def _give(fd: int, before: os.stat_result) -> None:
    # By descriptor: whoever owns the directory could have put a link to something else in the file's place.
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) == (before.st_uid, before.st_gid):
        return
    try:
        os.fchown(fd, before.st_uid, before.st_gid)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.fchown(fd, -1, before.st_gid)
        same_group = os.fstat(fd).st_gid == before.st_gid
        if not (before.st_mode & _OTHERS_READ or (same_group and before.st_mode & _GROUP_READS)):
            raise
