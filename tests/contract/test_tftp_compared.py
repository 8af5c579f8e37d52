"""The same requests to Debian's tftpd-hpa and to ours: the first packets of both, field by field.

Each difference stands here, and with its reason in the room's README (``netboot/tftp/README.md``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import tftp
from tests.servers.tftp import Serving
from tests.servers.tftp_client import Options, opened_at, rrq

Answer = tuple[str, object]
_REFUSED = ("error", (8, "Unsupported option(s) requested"))
_SIZE = 100_000


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Iterator[tuple[Serving, Serving]]:
    needs("tftpd-hpa")
    root = tmp_path_factory.mktemp("compared") / "root"
    (root / "dir").mkdir(parents=True)
    (root / "file").write_bytes(os.urandom(_SIZE))
    (root / "empty").write_bytes(b"")
    (root / "text").write_bytes(b"one\ntwo\rthree\r\n")
    (root / "private").write_bytes(b"x")
    (root / "private").chmod(0o600)
    (root / "dir" / "link").symlink_to("../file")
    (root / "dir" / "absolute").symlink_to("/file")
    (root / "out").symlink_to("/etc/passwd")
    with tftp.ours(root) as mine, tftp.tftpd_hpa(root) as theirs:
        yield mine, theirs


def answered(served: Serving, datagram: bytes, timeout_s: float = 5.0) -> Answer:
    with opened_at(served.address) as sock:
        sock.settimeout(timeout_s)
        sock.sendto(datagram, served.place)
        try:
            said, place = sock.recvfrom(70_000)
        except TimeoutError:
            return "silence", None
        kind = int.from_bytes(said[:2], "big")
        if kind == 5:
            return "error", (int.from_bytes(said[2:4], "big"), said[4:-1].decode())
        # Nobody shall wait for us.
        sock.sendto(b"\0\5\0\0enough\0", place)
        assert place[1] != served.port
        return ("options", said[2:]) if kind == 6 else ("data", said[2:])


SAME: list[tuple[str, Options, str]] = [
    ("file", [], "octet"),
    ("file", [], "OCTET"),
    ("file", [("blksize", "1428"), ("tsize", "0")], "octet"),
    ("file", [("tsize", "0"), ("BlkSize", "1024"), ("timeout", "6")], "octet"),
    ("file", [("blksize", "8")], "octet"),
    ("file", [("blksize", "65464")], "octet"),
    ("file", [("blksize", "70000")], "octet"),
    ("file", [("blksize", "many")], "octet"),
    ("file", [("blksize2", "1500")], "octet"),
    ("file", [("blksize2", "1024")], "octet"),
    ("file", [("utimeout", "500000")], "octet"),
    ("file", [("timeout", "255")], "octet"),
    ("file", [("rollover", "0")], "octet"),
    ("file", [("rollover", "1")], "octet"),
    ("file", [("multicast", "")], "octet"),
    ("file", [("unheard", "of"), ("blksize", "600")], "octet"),
    ("empty", [("tsize", "0")], "octet"),
    ("empty", [], "octet"),
    ("text", [], "netascii"),
    ("text", [("blksize", "9")], "netascii"),
    ("/file", [], "octet"),
    ("//file", [], "octet"),
    ("./file", [], "octet"),
    ("dir/../file", [], "octet"),
    ("dir/link", [], "octet"),
    ("dir/absolute", [], "octet"),
    ("absent", [], "octet"),
    ("out", [], "octet"),
    ("file/x", [], "octet"),
]


@pytest.mark.parametrize(("name", "options", "mode"), SAME)
def test_the_same_is_answered(both: tuple[Serving, Serving], name: str, options: Options, mode: str) -> None:
    mine, theirs = (answered(one, rrq(name, options, mode)) for one in both)
    assert mine == theirs


DIFFERENT: list[tuple[str, bytes, Answer, Answer]] = [
    (
        "a window",
        rrq("file", [("windowsize", "16"), ("blksize", "1428")]),
        ("options", b"windowsize\x0016\0blksize\x001428\0"),
        ("options", b"blksize\x001428\0"),
    ),
    (
        "the size, from a client that says one",
        rrq("file", [("tsize", "5")]),
        ("options", b"tsize\x00100000\0"),
        ("options", b"tsize\x005\0"),
    ),
    (
        "the size of a text",
        rrq("text", [("tsize", "0"), ("blksize", "600")], "netascii"),
        ("options", b"blksize\x00600\0"),
        _REFUSED,
    ),
    (
        "an option twice",
        rrq("file", [("blksize", "600"), ("blksize", "700")]),
        ("options", b"blksize\x00600\0"),
        ("options", b"blksize\x00600\0blksize\x00700\0"),
    ),
    (
        "a block that is too small",
        rrq("file", [("blksize", "7"), ("tsize", "0")]),
        ("options", b"tsize\x00100000\0"),
        _REFUSED,
    ),
    (
        "a time that is too long",
        rrq("file", [("timeout", "256"), ("tsize", "0")]),
        ("options", b"tsize\x00100000\0"),
        _REFUSED,
    ),
    (
        "a directory",
        rrq("dir"),
        ("error", (2, "Access violation: dir is a directory")),
        ("error", (0, "Is a directory")),
    ),
    (
        "a file that not everybody may read",
        rrq("private"),
        ("error", (2, "Access violation: private may not be read by everybody")),
        ("error", (2, "File must have global read permissions")),
    ),
    (
        "a name that leads out",
        rrq("../file"),
        ("error", (2, "Access violation")),
        ("data", b""),
    ),
    (
        "a name in Windows' writing that is there",
        rrq("\\dir\\link"),
        ("data", b""),
        ("error", (1, "File not found")),
    ),
    (
        "a name that is too long for the file system",
        rrq("a" * 300),
        ("error", (1, "File not found")),
        ("error", (0, "File name too long")),
    ),
    (
        "a file to write",
        rrq("new", opcode=2),
        ("error", (2, "Access violation")),
        ("error", (1, "File not found")),
    ),
    (
        "another mode",
        rrq("file", mode="mail"),
        ("error", (4, "Illegal TFTP operation")),
        ("error", (4, "Unknown mode")),
    ),
    (
        "no mode",
        b"\0\1file\0",
        ("error", (4, "Illegal TFTP operation")),
        ("error", (4, "Missing mode")),
    ),
]


@pytest.mark.parametrize(("asked", "mine", "theirs"), [d[1:] for d in DIFFERENT], ids=[d[0] for d in DIFFERENT])
def test_what_differs_is_known(both: tuple[Serving, Serving], asked: bytes, mine: Answer, theirs: Answer) -> None:
    for one, wanted in zip(both, (mine, theirs), strict=True):
        kind, said = answered(one, asked)
        assert (kind, b"" if kind == "data" else said) == wanted


def test_every_difference_is_in_the_room_s_readme() -> None:
    readme = (Path(__file__).parents[2] / "src/muster/netboot/tftp/README.md").read_text("utf-8")
    for name in (d[0] for d in DIFFERENT):
        assert f"| {name} |" in readme, name


def test_errors_come_from_the_port_that_was_asked(both: tuple[Serving, Serving]) -> None:
    ports = []
    for served in both:
        with opened_at(served.address) as sock:
            sock.settimeout(5)
            sock.sendto(rrq("absent"), served.place)
            ports.append(sock.recvfrom(600)[1][1] == served.port)
    assert ports == [True, False]


@pytest.mark.parametrize("datagram", [b"\0\3\0\1abc", b"\0\4\0\1", b"\0\5\0\0no\0", b"\0\x09abc\0octet\0"])
def test_neither_answers_what_is_no_request(both: tuple[Serving, Serving], datagram: bytes) -> None:
    assert [answered(one, datagram, 0.5) for one in both] == [("silence", None)] * 2


@pytest.mark.parametrize("served", [0, 1], ids=["ours", "tftpd-hpa"])
def test_both_send_from_a_port_of_their_own_for_each_transfer(both: tuple[Serving, Serving], served: int) -> None:
    places = set()
    socks: list[socket.socket] = []
    for _ in range(3):
        sock = opened_at(both[served].address)
        socks.append(sock)
        sock.settimeout(5)
        sock.sendto(rrq("file"), both[served].place)
        places.add(sock.recvfrom(600)[1])
    for sock in socks:
        sock.close()
    assert len(places) == 3
