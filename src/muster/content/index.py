"""Which bytes a repository's packages are, on disk, for a lookup by path.

A file holds a header, then a record of one length for each package, sorted by the digest of its path. The same packages
make the same bytes, whatever their order. Written once; a newer one is put in its place.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.primary import LIMIT_PACKAGES, Package
from muster.kernel.errors import NotFound, Unavailable
from muster.kernel.files import write_atomically

_MAGIC, _VERSION = b"MUSTERIX", 1
# Magic, version, length of a record, how many; then the digest of that and of the records.
_HEADER = struct.Struct(">8sHHQ")
_SEAL_BYTES = 32
_START = _HEADER.size + _SEAL_BYTES
# Of the path's digest as much as tells a million paths apart; size, algorithm, digest.
_RECORD = struct.Struct(">16sQB64s")
_KEY_BYTES = 16
_READ_RECORDS = 4096
# How many a search reads at once, some 6 kB.
_SEARCHED_RECORDS = 64
_GUESSES = 3

_Algorithm = Literal["sha256", "sha384", "sha512"]
_CODES: dict[str, int] = {"sha256": 1, "sha384": 2, "sha512": 3}
_ALGORITHMS: dict[int, tuple[_Algorithm, int]] = {1: ("sha256", 32), 2: ("sha384", 48), 3: ("sha512", 64)}


class Expected(NamedTuple):
    """What the bytes of a package are.

    Attributes:
        digest: hex, lower case.
    """

    size: int
    algorithm: _Algorithm
    digest: str


def write(path: Path, packages: Iterable[Package], *, mode: int = 0o644, limit_packages: int = LIMIT_PACKAGES) -> int:
    """Write an index in one step; return how many packages it has.

    Left out are those whose digest proves nothing (sha1 and weaker), and paths that are there with different bytes: which
    of them is meant nobody can tell, and for a wrong one right bytes would be refused.

    Raises:
        Malformed: more than ``limit_packages`` paths, and whatever ``packages`` raises; the file there is untouched.
        Unavailable: the disk refused; the file there is untouched.
    """
    records: dict[bytes, bytes | None] = {}
    for package in packages:
        code = _CODES.get(package.algorithm)
        if code is None:
            continue
        key = _key(package.href.encode())
        record = _RECORD.pack(key, package.size, code, bytes.fromhex(package.digest))
        if records.setdefault(key, record) != record:
            records[key] = None
        if len(records) > limit_packages:
            raise Malformed(f"Writing index {path} failed: more than {limit_packages} packages")
    body = [record for _, record in sorted(records.items()) if record is not None]
    header = _HEADER.pack(_MAGIC, _VERSION, _RECORD.size, len(body))
    seal = hashlib.sha256(header)
    for record in body:
        seal.update(record)
    write_atomically(path, b"".join((header, seal.digest(), *body)), mode=mode)
    return len(body)


class Index:
    """An index that is open. Use :meth:`opened`, and close it when nobody asks any more.

    Concurrency: any number of threads may ask. It stays what it was when a newer file takes its place.
    """

    def __init__(self, path: Path, descriptor: int, count: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._count = count

    @classmethod
    def opened(cls, path: Path) -> Index:
        """Open an index and read it once, whole, to see that it is as it was written.

        Raises:
            NotFound: there is none.
            Malformed: it is of another version, truncated or damaged.
            Unavailable: the disk refused.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"There is no index {path}") from None
        except OSError as e:
            raise Unavailable(f"Opening index {path} failed: {e.strerror or e}") from e
        try:
            return cls(path, descriptor, _checked(path, descriptor))
        except BaseException:
            os.close(descriptor)
            raise

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Expected]:
        """Yield what each package is, in no order that says anything; bytes that lie at two paths come twice.

        Raises:
            Unavailable: the disk refused.
            Malformed: the file became shorter since.
        """
        for block in self._blocks():
            for record in _RECORD.iter_unpack(block):
                yield _expected(*record)

    def totals(self) -> tuple[int, int]:
        """Return how many packages there are, and how many bytes they have together; errors as of iterating."""
        return self._count, sum(size for block in self._blocks() for _, size, _, _ in _RECORD.iter_unpack(block))

    def find(self, href: str) -> Expected | None:
        """Return what the package at a path is; None: this index says nothing of it.

        ``href`` is plain text as primary has it: of a request's path, what follows the repository's, unquoted once.

        Raises:
            Unavailable: the disk refused.
            Malformed: the file became shorter since.
        """
        try:
            key = _key(href.encode())
        except UnicodeEncodeError:
            return None
        for block in self._around(key):
            at = bisect_left(range(len(block) // _RECORD.size), key, key=lambda n: _key_at(block, n)) * _RECORD.size
            if block.startswith(key, at):
                return _expected(*_RECORD.unpack_from(block, at))
        return None

    def _around(self, key: bytes) -> Iterator[bytes]:
        """Yield blocks of records, each nearer to where a key lies; in the last it is, or it is nowhere.

        Digests lie evenly, so that the key itself says about where: each read costs more than the search within it.
        """
        wanted = int.from_bytes(key, "big")
        low, high = 0, self._count
        # What the keys from low to high lie between.
        bottom, top = 0, 1 << 8 * _KEY_BYTES
        for tried in itertools.count():
            if low >= high:
                return
            # Where they do not lie evenly after all, each step halves what is left.
            share = (wanted - bottom, top - bottom) if tried < _GUESSES else (1, 2)
            middle = low + (high - low) * share[0] // share[1]
            first = max(low, min(middle - _SEARCHED_RECORDS // 2, high - _SEARCHED_RECORDS))
            block = self._read(first, min(_SEARCHED_RECORDS, high - first))
            yield block
            smallest, largest = _key_at(block, 0), _key_at(block, len(block) // _RECORD.size - 1)
            if key < smallest:
                high, top = first, int.from_bytes(smallest, "big")
            elif key > largest:
                low, bottom = first + len(block) // _RECORD.size, int.from_bytes(largest, "big") + 1
            else:
                return

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _blocks(self) -> Iterator[bytes]:
        for first in range(0, self._count, _READ_RECORDS):
            yield self._read(first, min(_READ_RECORDS, self._count - first))

    def _read(self, number: int, count: int = 1) -> bytes:
        if self._descriptor is None:
            raise ValueError(f"index {self._path} is closed")
        return _read_at(self._path, self._descriptor, _START + number * _RECORD.size, count * _RECORD.size)


def _expected(_key: bytes, size: int, code: int, digest: bytes) -> Expected:
    algorithm, length = _ALGORITHMS[code]
    return Expected(size, algorithm, digest[:length].hex())


def _key_at(block: bytes, number: int) -> bytes:
    return block[number * _RECORD.size : number * _RECORD.size + _KEY_BYTES]


def _key(href: bytes) -> bytes:
    return hashlib.sha256(href).digest()[:_KEY_BYTES]


def _checked(path: Path, descriptor: int) -> int:
    """Return how many records there are, once the file is known to be what was written."""
    size = os.fstat(descriptor).st_size
    if size < _START:
        raise Malformed.reading(f"index {path}", "it is truncated")
    start = _read_at(path, descriptor, 0, _START)
    magic, version, length, count = _HEADER.unpack_from(start)
    if (magic, version, length) != (_MAGIC, _VERSION, _RECORD.size):
        raise Malformed.reading(f"index {path}", "it is no index of this version")
    if size != _START + count * _RECORD.size:
        raise Malformed.reading(f"index {path}", f"it has {size} bytes, which is not what {count} packages take")
    seal = hashlib.sha256(start[: _HEADER.size])
    for first in range(0, count, _READ_RECORDS):
        records = _read_at(
            path, descriptor, _START + first * _RECORD.size, min(_READ_RECORDS, count - first) * _RECORD.size
        )
        seal.update(records)
    if seal.digest() != start[_HEADER.size :]:
        raise Malformed.reading(f"index {path}", "it is damaged")
    return int(count)


def _read_at(path: Path, descriptor: int, offset: int, length: int) -> bytes:
    try:
        # Not mapped: a mapped file that becomes shorter ends the process.
        found = os.pread(descriptor, length, offset)
    except OSError as e:
        raise Unavailable(f"Reading index {path} failed: {e.strerror or e}") from e
    if len(found) != length:
        raise Malformed.reading(f"index {path}", "it became shorter while it was open")
    return found
