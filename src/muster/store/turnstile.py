"""A turnstile before SQLite's write lock: writers of several processes pass it one by one, and do not fight behind it.

SQLite has no queue between processes: whoever meets another's lock sleeps for up to 100 ms at a time and tries again, while
others come and go. Here a writer holds a lock on a file beside the database for as long as it writes, and the next one takes
it within a millisecond or two. Whoever has no turnstile, such as an older member, or one that may not write there, still has
SQLite's own waiting. No write is ever allowed because of a turnstile: it only says whose turn it is to ask SQLite.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from muster.kernel.files import make_private

# Between two looks at a lock that somebody has: about as long as a commit takes.
_PAUSE_S = 0.001


class Turnstile:
    """One connection's place at it.

    Locks of :manpage:`flock(2)`, which the kernel drops when the process ends, whatever ends it.

    Concurrency: one thread, which it may keep waiting; never the event loop's.
    """

    def __init__(self, database: Path) -> None:
        # Two locks: who is next waits for the turn alone, so whoever just had it cannot take it again before him.
        self._files = (database.with_name(f"{database.name}-next"), database.with_name(f"{database.name}-turn"))
        self._open: tuple[int, ...] | None = None

    def enter(self, limit_s: float) -> bool:
        """Wait for the turn; whether it came within the time. Without its files there is nothing to wait for."""
        files = self._opened()
        if not files:
            return False
        until = time.monotonic() + limit_s
        following, turn = files
        if not _taken(following, until):
            return False
        try:
            return _taken(turn, until)
        finally:
            _let_go(following)

    def leave(self) -> None:
        """Let the next one in; without the turn this does nothing."""
        if self._open:
            _let_go(self._open[1])

    def close(self) -> None:
        """Leave, and close the files."""
        for fd in self._open or ():
            os.close(fd)
        self._open = ()

    def _opened(self) -> tuple[int, ...]:
        if self._open is None:
            self._open = ()
            opened: list[int] = []
            try:
                for file in self._files:
                    opened.append(_opened(file))
            except OSError:
                # A directory that may not be written, or a disk without space: SQLite waits as it always did.
                for fd in opened:
                    os.close(fd)
            else:
                self._open = tuple(opened)
        return self._open


def _opened(file: Path) -> int:
    with contextlib.suppress(FileExistsError):
        make_private(file)
    # No link is followed: whoever may write the directory must not choose what is locked.
    return os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def _taken(fd: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE_S)
        except OSError:
            # A file system without such locks.
            return False
        else:
            return True


def _let_go(fd: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
