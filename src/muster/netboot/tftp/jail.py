"""From the name a client sends to an open file below one directory, and to nothing else.

Each step is taken from the directory before it, by descriptor, and no step follows a symbolic link by itself: what a link
says is walked here in the same way, as if the root were the file system's. So nothing that is renamed or linked meanwhile
leads out. ``openat2`` does the same in one call, but containers and older kernels refuse it, and two ways would be one too
many.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muster.kernel.errors import Denied, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.netboot.contract import HIDDEN

LONGEST_NAME_BYTES: Final = 1024
_DEEPEST = 64
# As many as Linux follows itself.
_MOST_LINKS = 40
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


@dataclass(slots=True)
class OpenedFile:
    """One file, open to read; it stays what it was when its name is given to another.

    Attributes:
        size: in bytes, when it was opened.
        changed_ns: when its bytes were last changed, as it was opened.
    """

    fd: int
    size: int
    changed_ns: int


def steps(name: bytes) -> tuple[str, ...]:
    """Return the steps that lead from the root to a file.

    A backslash is a slash, as Windows' firmware has it; slashes at the head, doubled ones and steps ``.`` are nothing, and
    ``..`` takes back the step before it.

    Raises:
        Rejected: the name leads out of the root, holds a NUL, names nothing, or is too long.
    """
    if len(name) > LONGEST_NAME_BYTES:
        raise Rejected(f"the name has more than {LONGEST_NAME_BYTES} bytes")
    if b"\0" in name:
        raise Rejected("the name holds a NUL")
    found: list[str] = []
    for step in os.fsdecode(name).replace("\\", "/").split("/"):
        if step == "..":
            if not found:
                raise Rejected("the name leads out of the root")
            found.pop()
        elif step not in ("", "."):
            found.append(step)
    if not found:
        raise Rejected("the name names no file")
    if len(found) > _DEEPEST:
        raise Rejected(f"the name has more than {_DEEPEST} steps")
    return tuple(found)


class Jail:
    """Opens files below a directory. Its root is opened for each file: it may be replaced by a rename.

    Concurrency: :meth:`opened` blocks as long as the disk does; any thread may call it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self) -> None:
        """Look whether there is a root.

        Raises:
            Misconfigured: there is none, or this account may not use it.
        """
        try:
            os.close(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as e:
            raise Misconfigured(f"{self.root} cannot be the root of boot files: {e.strerror}") from e

    def opened(self, wanted: tuple[str, ...]) -> OpenedFile:
        """Open a file that everybody may read; whoever called closes it.

        Raises:
            NotFound: there is none.
            Denied: it is no regular file, not everybody may read it, or a link leads nowhere or in a circle.
            Unavailable: the system cannot open it now.
        """
        try:
            with contextlib.ExitStack() as stack:
                return self._walked(wanted, stack)
        except OSError as e:
            said = shown("/".join(wanted))
            if e.errno in _ABSENT:
                raise NotFound(f"there is no {said}") from e
            if e.errno in (errno.EACCES, errno.EPERM, errno.ELOOP):
                raise Denied(f"{said} may not be read") from e
            raise Unavailable(f"opening {said} failed: {e.strerror}") from e

    def _walked(self, wanted: tuple[str, ...], stack: contextlib.ExitStack) -> OpenedFile:
        # The directories from the root to where we are: `..` of a link goes one back, and at the root stays.
        at = [_held(stack, os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))]
        coming = deque(wanted)
        links = 0
        while coming:
            step = coming.popleft()
            if step == "..":
                if len(at) > 1:
                    at.pop()
                continue
            if step == HIDDEN and len(at) == 1:
                # Also by way of a link to the root, which trees made by hand have.
                raise NotFound(f"there is no {shown('/'.join(wanted))}")
            fd = _held(stack, os.open(step, _STEP, dir_fd=at[-1]))
            kind = os.fstat(fd).st_mode
            if stat.S_ISLNK(kind):
                links += 1
                said = os.readlink("", dir_fd=fd)
                if links > _MOST_LINKS or len(coming) > _DEEPEST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if said.startswith("/"):
                    del at[1:]
                coming.extendleft(reversed([s for s in said.split("/") if s not in ("", ".")]))
            elif stat.S_ISDIR(kind):
                at.append(fd)
            elif coming:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            else:
                return _to_read(step, at[-1], fd)
        raise Denied(f"{shown('/'.join(wanted))} is a directory")


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _held(stack: contextlib.ExitStack, fd: int) -> int:
    return stack.enter_context(_closing(fd))


def _to_read(step: str, directory: int, seen: int) -> OpenedFile:
    """Open what was looked at, and nothing that took its place: opening a device can have effects of its own."""
    looked = os.fstat(seen)
    if not stat.S_ISREG(looked.st_mode):
        raise Denied(f"{shown(step)} is no regular file")
    # Whoever asks has shown no name and no password.
    if not looked.st_mode & stat.S_IROTH:
        raise Denied(f"{shown(step)} may not be read by everybody")
    fd = os.open(step, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    now = os.fstat(fd)
    if not stat.S_ISREG(now.st_mode) or not now.st_mode & stat.S_IROTH:
        os.close(fd)
        raise Denied(f"{shown(step)} is no regular file that everybody may read")
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return OpenedFile(fd, now.st_size, now.st_mtime_ns)
