"""The tree of boot files in a directory of this member: each file is the old or the new, and foreign ones are left alone.

Every file of ours is a second name of a blob, which lies below :data:`~muster.netboot.contract.HIDDEN` under the SHA-256 of
its bytes. So a file comes into its place by renaming, however large it is, and what is ours is told from what is not by its
inode. Directories are walked by descriptor and no link in them is followed: nothing is written outside of the root.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from muster.kernel.errors import NotFound, Unavailable
from muster.netboot.contract import HIDDEN, BootPath, Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_VERSION = re.compile(r"([0-9]{1,18})\n\Z")


class Disk:
    """The directory. Use :meth:`open` first, and :meth:`close` at the end: one process at a time has it.

    Attributes:
        partial: where files are that still come; they outlive the process.

    Concurrency: not safe; one task at a time, in whichever thread. :meth:`read` and :meth:`blob` may be called any time.

    Raises, all of it:
        Unavailable: the disk refused; the file before is untouched.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / HIDDEN / "blobs"
        self._links = root / HIDDEN / "links"
        self._beside = root / HIDDEN / "beside"
        self.partial = root / HIDDEN / "partial"
        self._version = root / HIDDEN / "version"
        self._held: int | None = None

    def open(self) -> None:
        """Make the directory, and what is ours in it; throw away what a process left that was killed."""
        with _said(f"Making the directory of boot files {self.root}"):
            with contextlib.suppress(FileExistsError):
                self.root.mkdir(parents=True)
                # A unit's umask takes bits away, which whoever serves the files needs.
                self.root.chmod(0o755)
            # Foreign programs read the files, whose modes let them, and nothing else of ours.
            (self.root / HIDDEN).mkdir(mode=0o700, exist_ok=True)
            self._hold()
            for one in (self.blobs, self._links, self._beside, self.partial):
                one.mkdir(mode=0o700, exist_ok=True)
            for left in self._beside.iterdir():
                left.unlink()

    def is_there(self) -> bool:
        """Whether what :meth:`open` made is still there; somebody may have emptied the directory, or put another there."""
        return self._is_held() and self.blobs.is_dir()

    def close(self) -> None:
        """Let another process have the directory."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def version(self) -> int | None:
        """Return the version that was noted last; None: none was, or it cannot be read."""
        try:
            found = _VERSION.match(self._version.read_text("ascii"))
        except (OSError, ValueError):
            return None
        return int(found[1]) if found else None

    def note(self, version: int) -> None:
        """Note which version lies whole here."""
        beside = self._beside / secrets.token_hex(8)
        with _said(f"Writing {self._version}"):
            try:
                beside.write_text(f"{version}\n", "ascii")
                beside.rename(self._version)
            except OSError:
                # It is tried again and again, and the disk may be full.
                beside.unlink(missing_ok=True)
                raise

    def has(self, digest: str, size: int) -> bool:
        """Whether the bytes lie here, by their length; what damaged them is found by :meth:`damaged`."""
        try:
            return (self.blobs / digest).lstat().st_size == size
        except OSError:
            return False

    def dated(self, digest: str) -> float | None:
        """Return when the bytes were modified, as all files say that have them; None: they do not lie here."""
        try:
            return (self.blobs / digest).lstat().st_mtime
        except OSError:
            return None

    def date(self, digest: str, at: float) -> None:
        """Have all files that have these bytes say when they were modified."""
        with _said(f"Dating a boot file below {self.root}"):
            os.utime(self.blobs / digest, (at, at))

    def keep(self, digest: str, content: bytes) -> None:
        """Keep bytes, whose SHA-256 the caller has seen to."""
        beside = self._beside / secrets.token_hex(8)
        with _said(f"Keeping a boot file of {len(content)} bytes below {self.root}"):
            try:
                with beside.open("xb") as f:
                    os.fchmod(f.fileno(), 0o644)
                    f.write(content)
                    f.flush()
                    os.fsync(f.fileno())
                beside.rename(self.blobs / digest)
            except OSError:
                beside.unlink(missing_ok=True)
                raise

    def take(self, digest: str, file: Path) -> None:
        """Keep a file, which is synced and on the same file system, by renaming it."""
        with _said(f"Keeping the boot file {file}"):
            file.chmod(0o644)
            file.rename(self.blobs / digest)

    def beside(self) -> Path:
        """Return a directory on the same file system, for files that are to be taken."""
        return self._beside

    def place(self, entry: Entry) -> None:
        """Have a path lead to what stands there now; a file's bytes lie here already."""
        parts = entry.path.text.split("/")
        with _said(f"Putting {entry.path} below {self.root}"), self._directory(parts[:-1], make=True) as into:
            if entry.kind == "file" and not is_near(self.dated(entry.digest), entry.modified_at):
                os.utime(self.blobs / entry.digest, (entry.modified_at, entry.modified_at))
            if self._is_placed(entry, into, parts[-1]):
                return
            source = self.blobs / entry.digest if entry.kind == "file" else self._link(entry.target)
            beside = self._beside / secrets.token_hex(8)
            try:
                try:
                    os.link(source, beside, follow_symlinks=False)
                except OSError as e:
                    if e.errno != errno.EMLINK:
                        raise
                    _copy(source, beside)
                os.rename(beside, parts[-1], dst_dir_fd=into)
            finally:
                # Also of a rename onto itself, which does nothing.
                with contextlib.suppress(OSError):
                    beside.unlink()

    def remove(self, path: BootPath) -> None:
        """Have nothing of ours at a path; directories that are empty then go, too."""
        parts = path.text.split("/")
        with _said(f"Removing {path} below {self.root}"):
            try:
                with self._directory(parts[:-1]) as directory:
                    os.unlink(parts[-1], dir_fd=directory)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                pass
            for n in range(len(parts) - 1, 0, -1):
                try:
                    with self._directory(parts[: n - 1]) as above:
                        os.rmdir(parts[n - 1], dir_fd=above)
                except OSError:
                    return

    def is_placed(self, entry: Entry) -> bool:
        """Whether a path leads to what stands there; its date is that of the bytes, which may have other names."""
        parts = entry.path.text.split("/")
        try:
            with self._directory(parts[:-1]) as directory:
                return self._is_placed(entry, directory, parts[-1])
        except OSError:
            return False

    def strangers(self, standing: Collection[BootPath]) -> list[BootPath]:
        """Return where something of ours stands that does not belong there; slow, it looks at every file."""
        with _said(f"Looking through {self.root}"):
            ours = {(s.st_dev, s.st_ino) for d in (self.blobs, self._links) for e in os.scandir(d) for s in [_lstat(e)]}
        known = {p.text for p in standing}
        found = []
        for text, status in _walked(self.root):
            if text not in known and (status.st_dev, status.st_ino) in ours:
                found.append(BootPath(text))
        return found

    def unused(self, digests: Collection[str], targets: Collection[str], *, older_than_s: float, now: float) -> int:
        """Drop blobs and links that nothing needs and that are not young; return how many."""
        wanted = {*digests, *(_named(t) for t in targets)}
        count = 0
        with _said(f"Clearing up below {self.root}"):
            for directory in (self.blobs, self._links):
                for one in list(os.scandir(directory)):
                    # Not its modification: that is the origin's.
                    if one.name not in wanted and _lstat(one).st_ctime < now - older_than_s:
                        (directory / one.name).unlink()
                        count += 1
        return count

    def damaged(self, digests: Iterable[str]) -> Iterator[str]:
        """Yield which blobs are not what they are called, a step a blob; each is dropped, so that it is brought anew."""
        for digest in digests:
            path = self.blobs / digest
            try:
                with path.open("rb") as f:
                    is_whole = _digest_of(f) == digest
            except FileNotFoundError:
                continue
            except OSError:
                is_whole = False
            if not is_whole:
                with _said(f"Dropping the damaged boot file {path}"):
                    path.unlink(missing_ok=True)
                yield digest

    def blob(self, digest: str) -> Path | None:
        """Return where bytes lie that others may be given; None: they do not."""
        path = self.blobs / digest
        return path if _NAME.match(digest) and path.is_file() else None

    def read(self, path: BootPath, limit_bytes: int) -> bytes:
        """Return a file's bytes, at most so many and one.

        Raises:
            NotFound: there is no such file.
        """
        parts = path.text.split("/")
        try:
            with self._directory(parts[:-1]) as directory:
                fd = os.open(parts[-1], _FILE, dir_fd=directory)
            with os.fdopen(fd, "rb") as f:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise NotFound(f"{path} is no file")
                return f.read(limit_bytes + 1)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                raise NotFound(f"There is no boot file {path}") from None
            raise Unavailable(f"Reading {self.root / path.text} failed: {e.strerror or e}") from e

    def _hold(self) -> None:
        """Keep other processes out: two that follow the tree apart, or two trees, put older files over newer ones."""
        if self._is_held():
            return
        # Of one that was taken away, nobody else would know.
        self.close()
        held = os.open(self.root / HIDDEN / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Not flock: what forks would keep that.
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(held)
            if e.errno in (errno.EACCES, errno.EAGAIN):
                raise Unavailable(f"Another process has the directory of boot files {self.root}") from None
            raise
        self._held = held

    def _is_held(self) -> bool:
        if self._held is None:
            return False
        try:
            found, held = (self.root / HIDDEN / "lock").lstat(), os.fstat(self._held)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def _link(self, target: str) -> Path:
        path = self._links / _named(target)
        if not path.is_symlink():
            beside = self._beside / secrets.token_hex(8)
            beside.symlink_to(target)
            beside.rename(path)
        return path

    def _is_placed(self, entry: Entry, directory: int, name: str) -> bool:
        try:
            found = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "somebody's directory stands there", name)
        if entry.kind == "link":
            return stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=directory) == entry.target
        try:
            blob = (self.blobs / entry.digest).lstat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (blob.st_dev, blob.st_ino)

    @contextlib.contextmanager
    def _directory(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Hold a directory below the root open; no link on the way is followed."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    if not make:
                        raise
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=fd)
                        # The umask may have taken bits away, which whoever serves the files needs.
                        os.chmod(part, 0o755, dir_fd=fd)  # noqa: S103 - for whichever account serves them
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
                except OSError as e:
                    if e.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise NotADirectoryError(errno.ENOTDIR, f"{part} is no directory, or a link to one") from None
                    raise
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)


def is_near(one: float | None, other: float) -> bool:
    """Whether two times are the same to who sees whole seconds."""
    return one is not None and abs(one - other) < 1


def digest_of(file: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file's bytes, and how many there are.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as f:
        return _digest_of(f), os.fstat(f.fileno()).st_size


def _digest_of(f: object) -> str:
    return hashlib.file_digest(f, "sha256").hexdigest()  # type: ignore[arg-type]


def _named(target: str) -> str:
    return hashlib.sha256(target.encode()).hexdigest()


def _copy(source: Path, to: Path) -> None:
    if source.is_symlink():
        to.symlink_to(source.readlink())
        return
    status = source.stat()
    with source.open("rb") as read, to.open("xb") as written:
        os.fchmod(written.fileno(), 0o644)
        while piece := read.read(_PIECE):
            written.write(piece)
        written.flush()
        os.fsync(written.fileno())
    os.utime(to, (status.st_mtime, status.st_mtime))


def _lstat(entry: os.DirEntry[str]) -> os.stat_result:
    return entry.stat(follow_symlinks=False)


def _walked(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        try:
            entries = list(os.scandir(root / directory))
        except OSError:
            continue
        for one in entries:
            text = f"{directory}/{one.name}" if directory else one.name
            if text == HIDDEN:
                continue
            if one.is_dir(follow_symlinks=False):
                waiting.append(text)
            else:
                yield text, _lstat(one)


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise Unavailable(f"{what} failed: {e.strerror or e}") from e
