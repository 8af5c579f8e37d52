"""A file cut into blocks, read ahead a little, by threads where the disk has to be waited for.

What lies in the page cache is read at once (``preadv2(2)`` with ``RWF_NOWAIT``): going to a thread and back costs several
times as much as the bytes do (figures in the room's README). What does not lie there is read by a thread, so that a disk
that hangs holds up its own transfers alone.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from muster.kernel.errors import Unavailable
from muster.netboot.tftp.jail import OpenedFile
from muster.netboot.tftp.packets import Mode

_AT_ONCE_BYTES: Final = 64 << 10
# Of tiny blocks each one costs more memory than its bytes.
_AT_ONCE_BLOCKS: Final = 256


class Changed(Unavailable):
    """The file is not what it was when it was opened."""


class Blocks:
    """The blocks of one file, in order, each once.

    Attributes:
        ready: those that were read and not taken yet; whoever calls takes them from the left.
        ended: whether the last one is among them, or was. It is shorter than ``blksize``, and may be empty.

    Concurrency: one loop. What is held is at most what ``need`` asked for and 64 KiB more.
    """

    def __init__(self, file: OpenedFile, blksize: int, mode: Mode, executor: Executor) -> None:
        self.ready: deque[memoryview] = deque()
        self.ended = False
        self._file = file
        self._blksize = blksize
        self._converts = mode == "netascii"
        self._executor = executor
        self._chunk = max(1, min(_AT_ONCE_BYTES // blksize, _AT_ONCE_BLOCKS)) * blksize
        self._offset = 0
        self._rest = b""
        self._reading: asyncio.Future[bytes] | None = None
        self._is_closed = False

    def need(self, blocks: int, more: Callable[[BaseException | None], None]) -> bool:
        """Have so many blocks ready, or all there are; true when they are.

        Otherwise a thread reads, and ``more`` is called when it has, with what went wrong; whoever needs more asks again.

        Raises:
            Changed: the file was made shorter, or written to, since it was opened.
            OSError: reading failed.
        """
        while len(self.ready) < blocks and not self.ended:
            if self._reading is not None:
                return False
            wanted = min(self._chunk, self._file.size - self._offset)
            read = _cached(self._file.fd, wanted, self._offset)
            if read is None:
                self._begin(wanted, more)
                return False
            self._take(read)
        return True

    def close(self) -> None:
        """Close the file; where a thread reads from it, as soon as that is over."""
        if self._is_closed:
            return
        self._is_closed = True
        self.ready.clear()
        if self._reading is None:
            os.close(self._file.fd)

    def _begin(self, wanted: int, more: Callable[[BaseException | None], None]) -> None:
        loop = asyncio.get_running_loop()
        reading = self._reading = loop.run_in_executor(self._executor, _whole, self._file.fd, wanted, self._offset)

        def read(done: asyncio.Future[bytes]) -> None:
            self._reading = None
            failed = done.exception() if not done.cancelled() else asyncio.CancelledError()
            if self._is_closed:
                os.close(self._file.fd)
                return
            if failed is None:
                try:
                    self._take(done.result())
                except Changed as e:
                    failed = e
            more(failed)

        reading.add_done_callback(read)

    def _take(self, read: bytes | bytearray) -> None:
        self._offset += len(read)
        is_end = self._offset >= self._file.size
        if is_end:
            # A file that is written to in its place would be sent half old and half new.
            now = os.fstat(self._file.fd)
            if (now.st_size, now.st_mtime_ns) != (self._file.size, self._file.changed_ns):
                raise Changed("the file was changed while it was read")
        if self._converts:
            # RFC 764: the end of a line is CR LF, and a CR that is none is CR NUL.
            read = self._rest + read.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
        view = memoryview(read)
        whole = len(view) // self._blksize * self._blksize
        self.ready.extend(view[n : n + self._blksize] for n in range(0, whole, self._blksize))
        if is_end:
            self.ready.append(view[whole:])
            self.ended = True
        elif self._converts:
            self._rest = bytes(view[whole:])


def _cached(fd: int, wanted: int, offset: int) -> bytes | bytearray | None:
    """Return what the page cache has, whole; None: a thread has to read it."""
    if not wanted:
        return b""
    buffer = bytearray(wanted)
    try:
        if os.preadv(fd, [buffer], offset, os.RWF_NOWAIT) == wanted:
            return buffer
    except (OSError, AttributeError):
        # Not in the cache, or a file system or Python that cannot say; the thread finds out what else is wrong.
        pass
    return None


def _whole(fd: int, wanted: int, offset: int) -> bytes:
    """Read all of it, however many calls it takes."""
    read = b""
    while len(read) < wanted:
        some = os.pread(fd, wanted - len(read), offset + len(read))
        if not some:
            raise Changed("the file was made shorter while it was read")
        read += some
    return read
