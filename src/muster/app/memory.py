"""How a process asks glibc to treat the memory of connections and streams."""

from __future__ import annotations

import contextlib
import ctypes

# What mallopt calls them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def give_memory_back() -> None:
    """Have glibc return what large buffers took, so that connections that are gone cost nothing.

    By default its threshold for that grows with the first large buffer that is freed, such as a TLS connection's.
    """
    _tell_allocator((_M_ARENA_MAX, 2), (_M_MMAP_THRESHOLD, 64 << 10), (_M_TRIM_THRESHOLD, 128 << 10))


def keep_memory() -> None:
    """Have glibc keep a few megabytes of what streams take and give back all the time.

    Asked of the kernel anew for each piece, and cleared by it, they were three quarters of a large file's CPU time when it
    was measured.
    """
    _tell_allocator((_M_MMAP_THRESHOLD, 1 << 20), (_M_TRIM_THRESHOLD, 8 << 20))


def _tell_allocator(*settings: tuple[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in settings:
            mallopt(parameter, value)
