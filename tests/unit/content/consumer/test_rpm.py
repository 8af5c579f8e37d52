from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace

from muster.content.consumer.rpm import rpm
from tests.unit.content.consumer.example import EXAMPLE


def headers(package: bytes) -> tuple[dict[int, tuple[int, list[object]]], bytes, bytes]:
    """Return the tags of the second header, its bytes, and the payload."""
    _, at, first = tags(package, 96)
    assert first
    at += -at % 8
    found, end, whole = tags(package, at)
    return found, whole, package[end:]


def tags(package: bytes, at: int) -> tuple[dict[int, tuple[int, list[object]]], int, bytes]:
    magic, count, size = struct.unpack_from(">4s4xii", package, at)
    assert magic == b"\x8e\xad\xe8\x01"
    store = at + 16 + 16 * count
    found: dict[int, tuple[int, list[object]]] = {}
    for number in range(count):
        tag, kind, offset, length = struct.unpack_from(">iiii", package, at + 16 + 16 * number)
        where, values = store + offset, list[object]()
        for _ in range(length if kind != 7 else 0):
            if kind in (3, 4):
                values.append(struct.unpack_from(">H" if kind == 3 else ">i", package, where)[0])
                where += 2 if kind == 3 else 4
            else:
                end = package.index(b"\0", where)
                values.append(package[where:end].decode())
                where = end + 1
        found[tag] = (kind, values)
    return found, store + size, package[at : store + size]


def test_equal_arguments_give_equal_bytes_and_others_do_not() -> None:
    assert rpm(EXAMPLE, "1.7") == rpm(EXAMPLE, "1.7")
    assert len({rpm(EXAMPLE, "1.7"), rpm(EXAMPLE, "1.8"), rpm(replace(EXAMPLE, replaces=()), "1.7")}) == 3


def test_its_header_says_what_is_in_it() -> None:
    package = rpm(EXAMPLE, "1.7")
    found, header, payload = headers(package)

    def said(tag: int) -> list[object]:
        return found[tag][1]

    assert (said(1000), said(1001), said(1002), said(1022)) == ([EXAMPLE.name], ["1.7"], ["1"], ["noarch"])
    directories = [str(said(1118)[int(str(i))]) for i in said(1116)]
    paths = [d + str(b) for d, b in zip(directories, said(1117), strict=True)]
    assert paths == ["/usr/share/muster-client", *(f.path for f in EXAMPLE.files)]
    assert said(1030) == [0o040755, *(0o100000 | f.mode for f in EXAMPLE.files)]
    assert said(1035)[1:] == [hashlib.sha256(f.text.encode()).hexdigest() for f in EXAMPLE.files]
    assert set(said(1039)) == set(said(1040)) == {"root"}
    assert (said(1090), said(1115), said(1114)) == (list(EXAMPLE.replaces), ["2"], [2])
    # Whatever the transaction around it does, the script of installing runs behind it, and that of removing for good alone.
    assert said(1152) == ["true\nexit 0\n"]
    assert said(1025) == ['if [ "$1" = 0 ]; then\ntrue\nfi\nexit 0\n']
    assert 1023 not in found
    assert 1024 not in found
    assert said(5092) == [hashlib.sha256(payload).hexdigest()]
    assert hashlib.sha256(header).hexdigest().encode() in package[:2000]
    assert b"a CA\n" in gzip.decompress(payload)
