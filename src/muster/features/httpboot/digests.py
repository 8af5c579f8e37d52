"""Digests of files that are served, by which a client knows bytes again, at whichever member.

Time and size tell nothing there: each member writes its files itself. Small files are read at once; of a larger one the
digest is known some time after it was asked for first, and nobody waits for it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Executor, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from muster.content.files import Opened, identity
from muster.content.validators import Digest

_AT_ONCE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_KNOWN = 4096
# Of more nobody would come to hear.
_WAITING = 32


class Digests:
    """What is known of files' bytes.

    Use it as a block, whose end waits for at most one piece of a file that is being read.

    Concurrency: asked by any number of threads.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int, int, int], Digest] = OrderedDict()
        self._coming: set[tuple[int, int, int, int]] = set()
        self._lock = threading.Lock()
        self._reader: Executor = ThreadPoolExecutor(1, thread_name_prefix="boot-digests")
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_over = True
        self._reader.shutdown(wait=True)

    def of(self, file: Opened) -> Digest | None:
        """Return the digest of an open file's bytes; None: it is not known yet.

        Raises:
            OSError: the file system refused.
        """
        with self._lock:
            if (known := self._known.get(file.identity)) is not None:
                self._known.move_to_end(file.identity)
                return known
            if file.size > _AT_ONCE_BYTES:
                if file.identity not in self._coming and len(self._coming) < _WAITING and not self._is_over:
                    self._coming.add(file.identity)
                    self._reader.submit(self._read_later, os.dup(file.fileno()), file.identity)
                return None
        return self._read(file.fileno(), file.identity)

    def _read_later(self, descriptor: int, whose: tuple[int, int, int, int]) -> None:
        try:
            self._read(descriptor, whose)
        except OSError:
            # Whoever is sent it hears of that; it has no digest.
            pass
        finally:
            os.close(descriptor)
            with self._lock:
                self._coming.discard(whose)

    def _read(self, descriptor: int, whose: tuple[int, int, int, int]) -> Digest | None:
        made, at = hashlib.sha256(), 0
        size = whose[3]
        while piece := os.pread(descriptor, _PIECE_BYTES, at):
            if self._is_over or at > size:
                return None
            made.update(piece)
            at += len(piece)
        if identity(os.fstat(descriptor)) != whose:
            # It was written to meanwhile.
            return None
        digest = Digest("sha256", made.hexdigest())
        with self._lock:
            self._known[whose] = digest
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return digest
