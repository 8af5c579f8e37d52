"""Says at once that files of some names were changed, by the kernel's inotify(7).

Called in libc itself: what the libraries add to its three calls is not needed here, and inotify_simple runs ldconfig and a
compiler to find libc. Where there is no inotify, nothing is said, and whoever follows a file looks by himself.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.kernel.log import logger

_log = logger("features")
_EVENT = struct.Struct("iIII")
_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
CHANGED = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
"""A file is another one now."""
READ = 0x10
"""Whoever had opened a file to read it has closed it."""
_OVERFLOW = 0x4000
_AT_ONCE_BYTES = 1 << 16


class Watch:
    """Calls somebody when a file was written, made, removed or replaced, or whatever else is watched for.

    Concurrency: one loop, on which it calls.
    """

    def __init__(self, fd: int, changed: Callable[[], None], events: int = CHANGED) -> None:
        self._fd = fd
        self._events = events
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._names: dict[int, set[bytes]] = {}

    def on(self, files: Collection[Path]) -> None:
        """Watch these files from now on, too; directories are watched, so that a file may be replaced, or come later."""
        for file in files:
            directory = os.fsencode(file.parent)
            number = self._libc.inotify_add_watch(self._fd, directory, self._events)
            if number < 0:
                _log.debug(f"No inotify in {file.parent}: {os.strerror(ctypes.get_errno())}")
            else:
                self._names.setdefault(number, set()).add(os.fsencode(file.name))

    def read(self) -> None:
        """Take what the kernel says, and call when it is about one of the files."""
        try:
            events = os.read(self._fd, _AT_ONCE_BYTES)
        except BlockingIOError:
            return
        at, is_ours = 0, False
        while at < len(events):
            number, mask, _, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size
            name = events[at : at + length].rstrip(b"\0")
            at += length
            is_ours |= bool(mask & _OVERFLOW) or name in self._names.get(number, ())
        if is_ours:
            self._changed()


@contextmanager
def watching(changed: Callable[[], None], events: int = CHANGED) -> Iterator[Watch | None]:
    """Watch files until the block ends; None: this machine has no inotify for us. Within a running loop.

    ``events``: :data:`CHANGED` or :data:`READ`.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):
        fd = -1
    if fd < 0:
        _log.info("inotify is not to be had here; files are looked at by the clock alone")
        yield None
        return
    loop = asyncio.get_running_loop()
    watch = Watch(fd, changed, events)
    loop.add_reader(fd, watch.read)
    try:
        yield watch
    finally:
        loop.remove_reader(fd)
        os.close(fd)
