"""A file below a directory, found so that no link and no race leads out of it.

Each part of the path is opened from the directory before it, links are read and walked here, and what was opened is what was
looked at: whoever exchanges a directory for a link meanwhile changes nothing of that (``openat2`` would refuse links from
the root, which trees made by hand have, and cannot say what of it went wrong).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from pathlib import Path

from muster.content.files import Opened
from muster.kernel.errors import Denied, NotFound, Unavailable
from muster.netboot.contract import HIDDEN

# As many as Linux follows (path_resolution(7)).
_LINKS = 40
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def opened(root: Path, path: str) -> Opened:
    """Return a plain file, open for reading.

    ``path`` is below the root and begins with a slash. What stands below ``.muster`` in the root is not there.

    Raises:
        NotFound: there is none.
        Denied: it is a directory, the root, or a link leads out of it; the sentence is the Ruby module's.
        Unavailable: it is neither file nor directory, or the file system refused.
    """
    walk = _Walk(root)
    try:
        return walk.to(path)
    except OSError as e:
        if e.errno in _ABSENT:
            raise NotFound("Not found") from None
        raise Unavailable(f"Opening a boot file failed: {e.strerror or e}") from e
    except ValueError:
        # A zero byte, which no name has.
        raise NotFound("Not found") from None


class _Walk:
    """Goes from the root to a file; ``stack`` holds the directories that lead to where it is."""

    def __init__(self, root: Path) -> None:
        self._roots = {os.fsencode(root.absolute()), os.path.realpath(os.fsencode(root))}
        try:
            self._stack = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        except OSError as e:
            raise Unavailable(f"Opening the directory of boot files failed: {e.strerror or e}") from e
        self._links = 0

    def to(self, path: str) -> Opened:
        try:
            return self._found(deque(os.fsencode(path).split(b"/")))
        finally:
            for descriptor in self._stack:
                os.close(descriptor)

    def _found(self, left: deque[bytes]) -> Opened:
        while left:
            name = left.popleft()
            if name in (b"", b"."):
                continue
            if name == b"..":
                self._up()
            elif (found := self._entered(name, left)) is not None:
                return found
        raise Denied("Directory listing not allowed" if len(self._stack) > 1 else "Invalid or empty path")

    def _up(self) -> None:
        if len(self._stack) == 1:
            raise Denied("Invalid or empty path")
        os.close(self._stack.pop())

    def _entered(self, name: bytes, left: deque[bytes]) -> Opened | None:
        """Go into what has this name; the file, when it is one, and the path ends there."""
        if len(self._stack) == 1 and name == HIDDEN.encode():
            raise NotFound("Not found")
        seen = os.open(name, _LOOK, dir_fd=self._stack[-1])
        mode = os.fstat(seen).st_mode
        if stat.S_ISDIR(mode):
            self._stack.append(seen)
            return None
        try:
            if stat.S_ISLNK(mode):
                self._follow(os.readlink(b"", dir_fd=seen), left)
                return None
        finally:
            os.close(seen)
        if any(part not in (b"", b".") for part in left):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        # Of a device even opening may do something; one that took the file's place since is opened for nobody.
        found = Opened.of(os.open(name, _READ, dir_fd=self._stack[-1])) if stat.S_ISREG(mode) else None
        if found is None:
            raise Unavailable("Not a regular file")
        return found

    def _follow(self, target: bytes, left: deque[bytes]) -> None:
        self._links += 1
        if self._links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith(b"/"):
            whole = os.path.normpath(target)
            root = next((r for r in self._roots if whole.startswith(r.rstrip(b"/") + b"/")), None)
            if root is None:
                raise Denied("Invalid or empty path")
            while len(self._stack) > 1:
                os.close(self._stack.pop())
            target = target[len(root) :] if target.startswith(root) else whole[len(root) :]
        left.extendleft(reversed(target.split(b"/")))
