"""The TFTP server (``netboot/tftp``), asked by clients that machines and people have, and by one that breaks its rules."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from muster.kernel.process import clean_environment
from muster.netboot.tftp.metrics import TFTPMetrics
from tests.servers import tftp
from tests.servers.tftp import Serving
from tests.servers.tftp_client import Fetched, all_of, asked, fetched, opened_at, rrq

BIG = 3_000_001
ERROR, DATA, OACK = b"\0\5", b"\0\3", b"\0\6"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tftp") / "root"
    (root / "grub2").mkdir(parents=True)
    (root / "big").write_bytes(os.urandom(BIG))
    (root / "even").write_bytes(os.urandom(1024))
    (root / "empty").write_bytes(b"")
    (root / "text").write_bytes(b"one\ntwo\r\nthree\rfour\n")
    (root / "grub2" / "grub.cfg").write_bytes(b"menuentry {}\n")
    (root / "link").symlink_to("grub2/grub.cfg")
    (root / "out").symlink_to("/etc/passwd")
    (root / "private").write_bytes(b"key")
    (root / "private").chmod(0o600)
    return root


@pytest.fixture
def served(root: Path) -> Iterator[Serving]:
    with tftp.ours(root) as one:
        yield one


def content(root: Path, name: str) -> bytes:
    return (root / name).read_bytes()


def ran(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(),
    )


# What people and machines have.


_PROGRAMS = ("tftp-hpa", "curl", "curl 1428", "busybox 1428", "atftp", "atftp 16")
_NAMES = ("big", "even", "empty", "text", "grub2/grub.cfg", "link")


@pytest.mark.parametrize(
    ("program", "name"),
    # curl takes the size 0 for an error, whoever says it (findings).
    [(p, n) for p in _PROGRAMS for n in _NAMES if not (p.startswith("curl") and n == "empty")],
)
def test_real_clients_get_every_file(
    served: Serving, root: Path, tmp_path: Path, needs: Callable[[str], None], program: str, name: str
) -> None:
    client, _, how = program.partition(" ")
    needs(client)
    address, port = served.address, str(served.port)
    got = tmp_path / "got"
    if client == "tftp-hpa":
        ran("tftp", "-m", "binary", address, port, "-c", "get", name, got, cwd=tmp_path)
    elif client == "curl":
        blksize = ("--tftp-blksize", how) if how else ()
        assert ran("curl", "-sS", *blksize, f"tftp://{address}:{port}/{name}", "-o", got, cwd=tmp_path).returncode == 0
    elif client == "busybox":
        assert (
            ran("busybox", "tftp", "-b", how, "-g", "-r", name, "-l", got, address, port, cwd=tmp_path).returncode == 0
        )
    else:
        options = ("--option", "blksize 1428", "--option", f"windowsize {how}") if how else ()
        assert ran("atftp", *options, "-g", "-r", name, "-l", got, address, port, cwd=tmp_path).returncode == 0
    assert got.read_bytes() == content(root, name)
    ended = served.outcome(name)
    assert (ended.outcome, ended.client) == ("sent", "127.0.0.1")
    if how == "16":
        assert (ended.windowsize, ended.blksize) == (16, 1428)


def test_a_person_s_client_converts_text_there_and_back(
    served: Serving, root: Path, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("tftp-hpa")
    ran("tftp", served.address, str(served.port), "-c", "get", "text", "got", cwd=tmp_path)
    # What netascii cannot tell apart is what that client writes of a CR.
    assert (tmp_path / "got").read_bytes() == content(root, "text")
    on_the_wire = fetched(served.place, "text", mode="netascii").content
    assert on_the_wire == b"one\r\ntwo\r\0\r\nthree\r\0four\r\n"


def test_nothing_is_written(served: Serving, root: Path, tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("tftp-hpa")
    (tmp_path / "new").write_bytes(b"x")
    said = ran("tftp", "-m", "binary", served.address, str(served.port), "-c", "put", "new", cwd=tmp_path)
    assert "Error code 2: Access violation" in said.stdout
    assert not (root / "new").exists()
    assert served.outcome("new").outcome == "refused"


# What is asked and what is answered.


@pytest.mark.parametrize(
    ("name", "error", "outcome"),
    [
        ("absent", (1, "File not found"), "absent"),
        ("grub2/grub.cfg/x", (1, "File not found"), "absent"),
        ("out", (1, "File not found"), "absent"),
        ("grub2", (2, "Access violation: grub2 is a directory"), "denied"),
        ("private", (2, "Access violation: private may not be read by everybody"), "denied"),
        ("../root/even", (2, "Access violation"), "refused"),
        ("a" * 1100, (2, "Access violation"), "refused"),
    ],
)
def test_what_cannot_be_had_is_said(served: Serving, name: str, error: tuple[int, str], outcome: str) -> None:
    assert fetched(served.place, name).error == error
    assert served.outcome(name if len(name) < 200 else f"{'a' * 200}… (1100 characters)").outcome == outcome


@pytest.mark.parametrize("name", ["\\grub2\\grub.cfg", "/grub2/grub.cfg", "//grub2/./grub.cfg"])
def test_names_are_taken_as_firmware_writes_them(served: Serving, root: Path, name: str) -> None:
    assert fetched(served.place, name).content == content(root, "grub2/grub.cfg")


@pytest.mark.parametrize("datagram", [b"\0\1abc\0", b"\0\1abc\0mail\0", b"\0\1" + b"a" * 3000])
def test_what_is_no_request_to_read_is_said_to_be_none(served: Serving, datagram: bytes) -> None:
    with opened_at(served.address) as sock:
        sock.settimeout(5)
        sock.sendto(datagram, served.place)
        assert sock.recv(600) == ERROR + b"\0\4Illegal TFTP operation\0"


@pytest.mark.parametrize(
    "datagram", [b"", b"\0", b"\0\3\0\1abc", b"\0\4\0\1", b"\0\5\0\0no\0", b"\0\6blksize\x0010\0", b"\xff" * 90]
)
def test_what_asks_for_nothing_is_not_answered(served: Serving, datagram: bytes) -> None:
    with opened_at(served.address) as sock:
        sock.settimeout(0.3)
        sock.sendto(datagram, served.place)
        with pytest.raises(TimeoutError):
            sock.recv(600)
    assert served.statistics.dropped == {"no request": 1}


def test_whoever_asks_for_the_size_and_goes_is_no_failure(served: Serving) -> None:
    with opened_at(served.address) as sock:
        sock.settimeout(5)
        sock.sendto(rrq("big", [("tsize", "0")]), served.place)
        said, place = sock.recvfrom(600)
        assert said == OACK + f"tsize\0{BIG}\0".encode()
        sock.sendto(b"\0\5\0\x08no, thanks\0", place)
    assert served.outcome("big").outcome == "asked"


def test_whoever_gives_up_is_named_with_its_words(served: Serving) -> None:
    with opened_at(served.address) as sock:
        sock.settimeout(5)
        sock.sendto(rrq("big"), served.place)
        _, place = sock.recvfrom(600)
        sock.sendto(struct.pack("!HH", 4, 1), place)
        sock.recvfrom(600)
        sock.sendto(b"\0\5\0\3disk \x1b[31mfull\0", place)
    ended = served.outcome("big")
    assert (ended.outcome, ended.bytes) == ("cancelled", 512)
    assert ended.reason == "the client said: 3 disk \\x1b[31mfull"


# Blocks and windows.


@pytest.mark.parametrize("blksize", [8, 512, 1468, 9000, 65464])
@pytest.mark.parametrize("windowsize", [1, 4, 64])
def test_every_block_and_window_brings_the_file(served: Serving, root: Path, blksize: int, windowsize: int) -> None:
    name = "even" if blksize == 8 else "big"
    found = fetched(served.place, name, [("blksize", str(blksize)), ("windowsize", str(windowsize))])
    assert found.content == content(root, name)
    assert found.packets == len(content(root, name)) // blksize + 1
    window = max(1, min(windowsize, (256 << 10) // blksize))
    assert found.options == [("blksize", str(blksize)), ("windowsize", str(window))]


@pytest.mark.parametrize("rollover", [None, "0", "1"])
def test_block_numbers_begin_again_after_65535(served: Serving, root: Path, rollover: str | None) -> None:
    size = 8 * 66_000 + 3
    (root / "long").write_bytes(os.urandom(size))
    options = [("blksize", "8"), ("windowsize", "64"), *([("rollover", rollover)] if rollover else [])]
    if rollover == "1":
        # The tests' client knows 0 alone: it is asked for the numbers.
        with opened_at(served.address) as sock:
            sock.settimeout(5)
            sock.sendto(rrq("long", options), served.place)
            _, place = sock.recvfrom(600)
            sock.sendto(struct.pack("!HH", 4, 0), place)
            numbers: list[int] = []
            while len(numbers) < 66_001:
                numbers.append(struct.unpack("!H", sock.recv(600)[2:4])[0])
                if len(numbers) % 64 == 0:
                    sock.sendto(struct.pack("!HH", 4, numbers[-1]), place)
        assert numbers == [*range(1, 65536), *range(1, 467)]
        return
    found = fetched(served.place, "long", options)
    assert found.content == content(root, "long")
    assert found.numbers[65534:65537] == [65535, 0, 1]


@pytest.mark.parametrize("windowsize", [1, 16])
@pytest.mark.parametrize("segmentation", [True, False])
def test_what_is_lost_comes_again(root: Path, windowsize: int, segmentation: bool) -> None:
    lost = {3, 40, 41, 42, 100, 500, 501, 1200}
    with tftp.ours(root, segmentation=segmentation) as served:
        options = [("blksize", "1428"), ("windowsize", str(windowsize))]
        found = fetched(served.place, "big", options, lost=lost.__contains__, timeout_s=2.0)
        assert found.content == content(root, "big")
        ended = served.outcome("big")
        assert ended.outcome == "sent"
        assert len(lost) * (windowsize == 1) <= ended.resent <= len(lost) * 2 * windowsize
        assert found.packets - BIG // 1428 - 1 <= len(lost) * 2 * windowsize


@pytest.mark.parametrize("windowsize", [1, 16])
def test_acks_that_come_twice_do_not_double_the_traffic(served: Serving, root: Path, windowsize: int) -> None:
    found = fetched(served.place, "big", [("blksize", "1428"), ("windowsize", str(windowsize))], acks=3)
    assert found.content == content(root, "big")
    needed = BIG // 1428 + 1
    assert found.packets == needed if windowsize == 1 else found.packets <= needed * 1.2


def test_whoever_is_silent_is_let_go_and_told(root: Path) -> None:
    with tftp.ours(root, attempts=3) as served, opened_at(served.address) as sock:
        sock.settimeout(10)
        sock.sendto(rrq("big", [("utimeout", "100000")]), served.place)
        said = [sock.recv(600) for _ in range(4)]
        assert said == [OACK + b"utimeout\x00100000\0"] * 3 + [ERROR + b"\0\0Timed out\0"]
        assert served.outcome("big").outcome == "silent"
        assert served.statistics.live == 0


def test_no_transfer_lasts_longer_than_it_may(root: Path) -> None:
    with tftp.ours(root, longest_s=1.0) as served:
        found = fetched(served.place, "big", told=lambda _: time.sleep(0.01), limit_s=5.0)
        assert found.error == (0, "It takes too long")
        ended = served.outcome("big")
        assert ended.outcome == "expired"
        assert 1.0 <= ended.duration_s < 2.0


# Transfer identifiers.


def test_strangers_are_told_and_the_transfer_goes_on(served: Serving, root: Path) -> None:
    with opened_at(served.address) as stranger, opened_at(served.address) as sock:
        stranger.settimeout(5)
        sock.settimeout(5)
        sock.sendto(rrq("even"), served.place)
        first, place = sock.recvfrom(600)
        assert place[1] != served.port
        stranger.sendto(struct.pack("!HH", 4, 1), place)
        assert stranger.recv(600) == ERROR + b"\0\5Unknown transfer ID\0"
        # To an error nothing is said, and so is to many.
        stranger.sendto(b"\0\5\0\0end it\0", place)
        for _ in range(30):
            stranger.sendto(struct.pack("!HH", 4, 1), place)
        got = [first[4:]]
        for block in (1, 2, 3):
            sock.sendto(struct.pack("!HH", 4, block), place)
            if block < 3:
                got.append(sock.recv(600)[4:])
        assert b"".join(got) == content(root, "even")
        assert served.outcome("even").outcome == "sent"
        stranger.settimeout(0.2)
        said = []
        with contextlib.suppress(TimeoutError):
            while True:
                said.append(stranger.recv(600))
        assert 1 <= len(said) < 8


def test_a_request_that_is_said_twice_is_one_transfer(served: Serving) -> None:
    with opened_at(served.address) as sock:
        sock.settimeout(5)
        sock.sendto(rrq("even"), served.place)
        first, place = sock.recvfrom(600)
        # At once, and not when time is up.
        sock.settimeout(0.5)
        sock.sendto(rrq("even"), served.place)
        assert sock.recvfrom(600) == (first, place)
        assert served.statistics.live == 1


def test_a_client_that_begins_anew_from_its_port_gets_what_it_asks_now(served: Serving) -> None:
    with opened_at(served.address) as sock:
        sock.settimeout(5)
        sock.sendto(rrq("big"), served.place)
        _, before = sock.recvfrom(600)
        sock.sendto(struct.pack("!HH", 4, 1), before)
        sock.recvfrom(600)
        sock.sendto(rrq("even"), served.place)
        _, place = sock.recvfrom(600)
        assert place != before
        assert served.outcome("big").outcome == "superseded"
        assert served.statistics.live == 1


def test_files_come_from_the_ports_that_a_firewall_lets_through(root: Path) -> None:
    with tftp.ours(root, data_ports=(45_000, 45_003)) as served:
        places = set()
        socks = [opened_at(served.address) for _ in range(5)]
        try:
            for sock in socks[:4]:
                sock.settimeout(5)
                sock.sendto(rrq("big"), served.place)
                places.add(sock.recvfrom(600)[1][1])
            assert places == {45_000, 45_001, 45_002, 45_003}
            # All are taken.
            socks[4].settimeout(5)
            assert asked(socks[4], served.place, "even")[:4] == ERROR + b"\0\0"
            assert "no port" in served.outcome("even").reason
        finally:
            for sock in socks:
                sock.close()


@pytest.mark.parametrize("listens", ["0.0.0.0", "::"])
def test_answers_come_from_the_address_that_was_asked(root: Path, listens: str) -> None:
    addresses = ["127.0.0.1", "127.0.0.70", "127.1.2.3"] if listens == "0.0.0.0" else ["::1"]
    with tftp.ours(root, addresses=[listens]) as served:
        for address in addresses:
            for name in ("even", "absent", "../x"):
                found = fetched((address, served.port), name)
                assert found.place[0] == address
                assert (found.place[1] == served.port) == (name != "even")
            assert served.outcome("even").local == address


# Files that change.


def test_a_file_that_is_replaced_meanwhile_arrives_as_it_was(served: Serving, root: Path) -> None:
    before = os.urandom(BIG)
    (root / "replaced").write_bytes(before)

    def replace(block: int) -> None:
        if block == 10:
            (root / "newer").write_bytes(b"newer")
            (root / "newer").rename(root / "replaced")

    assert fetched(served.place, "replaced", told=replace).content == before
    assert fetched(served.place, "replaced").content == b"newer"


def test_a_file_that_is_cut_meanwhile_is_an_error(served: Serving, root: Path) -> None:
    (root / "cut").write_bytes(bytes(BIG))

    def cut(block: int) -> None:
        if block == 10:
            os.truncate(root / "cut", 1_000_000)

    found = fetched(served.place, "cut", [("blksize", "1428"), ("tsize", "0")], told=cut)
    assert found.error == (0, "File changed while it was read")
    assert served.outcome("cut").outcome == "changed"


# Many at once.


@pytest.mark.parametrize(("in_all", "each", "why"), [(10, 3, "client transfers"), (3, 10, "transfers")])
def test_so_many_transfers_and_no_more(root: Path, in_all: int, each: int, why: str) -> None:
    with tftp.ours(root, transfers_limit=in_all, transfers_per_client=each) as served:
        socks = [opened_at(served.address) for _ in range(4)]
        for sock in socks:
            sock.settimeout(0.5)
        for sock in socks[:3]:
            assert asked(sock, served.place, "big")[:2] == DATA
        with pytest.raises(TimeoutError):
            asked(socks[3], served.place, "even")
        assert served.statistics.dropped == {why: 1}
        # It asks again, as clients do, and is served when one of the others is done.
        socks[0].sendto(rrq("even"), served.place)
        socks[0].recv(600)
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
def test_whoever_never_answered_gives_his_place_to_who_comes(root: Path, heard: bool) -> None:
    """Requests in other hosts' names, or from a whole network's addresses, keep nobody out for as long as they last."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(tftp.ours(root, transfers_limit=3))
        socks = [stack.enter_context(opened_at(served.address)) for _ in range(4)]
        for sock in socks:
            sock.settimeout(0.5)
        for sock in socks[:3]:
            first, sender = sock.sendto(rrq("big"), served.place), sock.recvfrom(600)[1]
            assert first
            if heard:
                sock.sendto(b"\0\4\0\1", sender)
        time.sleep(1.2)
        if heard:
            with pytest.raises(TimeoutError):
                asked(socks[3], served.place, "even")
            return
        assert asked(socks[3], served.place, "even")[:2] == DATA
        assert served.outcome("big").outcome == "silent"
        assert served.server is not None
        assert served.server.statistics.live == 3


def test_whoever_asks_too_often_is_not_answered(root: Path) -> None:
    with (
        tftp.ours(root, client_requests_per_s=0.1, client_requests_at_once=5) as served,
        opened_at(served.address) as sock,
    ):
        sock.settimeout(0.3)
        for n in range(5):
            assert asked(sock, served.place, f"absent{n}")[:4] == ERROR + b"\0\1"
        with pytest.raises(TimeoutError):
            asked(sock, served.place, "absent")
        assert served.statistics.dropped == {"client rate": 1}


def test_many_transfers_are_served_alike(root: Path) -> None:
    """Two hundred clients fetch at once, each with another block and window: nobody waits for the others to be done."""
    (root / "some").write_bytes(expected := os.urandom(300_000))
    with tftp.ours(root, transfers_per_client=1000, client_requests_at_once=1000) as served:
        wanted = [
            partial(
                fetched, served.place, "some", [("blksize", "1428"), ("windowsize", str(1 + n % 16))], timeout_s=3.0
            )
            for n in range(200)
        ]
        found: list[Fetched] = all_of(wanted, 200)
        assert all(one.content == expected for one in found)
        done = served.statistics
        assert (done.files, done.bytes, done.live) == (200, 200 * 300_000, 0)


def test_a_disk_that_hangs_holds_up_its_own_transfers_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from muster.netboot.tftp import blocks

    goes_on = threading.Event()
    cached, whole = blocks._cached, blocks._whole
    (root / "slow").write_bytes(bytes(1999))

    monkeypatch.setattr(blocks, "_cached", lambda fd, n, at: None if n == 1999 else cached(fd, n, at))
    monkeypatch.setattr(blocks, "_whole", lambda fd, n, at: (goes_on.wait(20), whole(fd, n, at))[1])
    with tftp.ours(root) as served, opened_at(served.address) as sock:
        sock.settimeout(10)
        sock.sendto(rrq("slow"), served.place)
        assert fetched(served.place, "big").content == content(root, "big")
        assert served.lag() < 0.5
        goes_on.set()
        assert sock.recv(600)[:4] == DATA + b"\0\1"


# Starting, stopping.


def test_stopping_lets_what_is_under_way_finish_and_takes_nothing_new(root: Path) -> None:
    with tftp.ours(root, drain_s=20.0) as served:
        stopping = threading.Thread(target=served.stop)

        def stop(block: int) -> None:
            if block == 10:
                stopping.start()
                time.sleep(0.2)
                with opened_at(served.address) as sock:
                    sock.settimeout(0.3)
                    with pytest.raises((TimeoutError, ConnectionRefusedError)):
                        asked(sock, served.place, "even")

        found = fetched(served.place, "big", told=stop)
        stopping.join()
        assert found.content == content(root, "big")


def test_stopping_ends_what_takes_too_long_and_says_so(root: Path) -> None:
    with tftp.ours(root, drain_s=0.2) as served, opened_at(served.address) as sock:
        sock.settimeout(5)
        assert asked(sock, served.place, "big")[:2] == DATA
        served.stop()
        assert sock.recv(600) == ERROR + b"\0\0The server is being stopped\0"
        assert served.outcome("big").outcome == "stopped"


def test_a_port_that_is_taken_is_said(root: Path) -> None:
    from muster.kernel.errors import Misconfigured

    with tftp.ours(root) as served, pytest.raises(Misconfigured, match="ss -lunp"), tftp.ours(root, port=served.port):
        pass


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_serves_tells_and_stops(root: Path, as_json: bool) -> None:
    command = [sys.executable, "-m", "muster", "netboot", "tftp", "--root", str(root), "--listen", "127.0.0.69:0"]
    command += ["--json"] if as_json else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment())
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        port = json.loads(first)["listening"][0][1] if as_json else int(first.rsplit(":", 1)[1])
        found = fetched(("127.0.0.69", port), "even", [("blksize", "1024")])
        assert found.content == content(root, "even")
        fetched(("127.0.0.69", port), "absent\x1b[31m")
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read().splitlines()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    if as_json:
        events = [json.loads(line) for line in rest]
        assert [(e["event"], e.get("name"), e.get("outcome")) for e in events] == [
            ("transfer", "even", "sent"),
            ("transfer", "absent\\x1b[31m", "absent"),
            ("stopped", None, None),
        ]
        assert (events[-1]["files"], events[-1]["bytes"]) == (1, 1024)
    else:
        assert " even sent, 1024 bytes in " in rest[0]
        assert "absent\\x1b[31m absent" in rest[1]


def test_lines_that_nobody_reads_hold_up_no_file(root: Path) -> None:
    command = [sys.executable, "-m", "muster", "netboot", "tftp", "--root", str(root), "--listen", "127.0.0.69:0"]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, env=clean_environment())
    try:
        assert process.stdout is not None
        place = ("127.0.0.69", json.loads(process.stdout.readline())["listening"][0][1])
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(40):
            assert fetched(place, "even", limit_s=5.0).content == content(root, "even")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "both families"])
def test_the_command_takes_a_socket_that_systemd_has_bound(root: Path, family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        if family == socket.AF_INET6:
            # As ``ListenDatagram=69`` has it.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(("127.0.0.69" if family == socket.AF_INET else "::", 0))
        place = bound.getsockname()
        program = (
            f"import os, sys; os.dup2({bound.fileno()}, 3);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.executable, sys.argv[1:])"
        )
        ours = [sys.executable, "-m", "muster", "netboot", "tftp", "--root", str(root), "--json"]
        command = [sys.executable, "-c", program, *ours]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=clean_environment(), pass_fds=[bound.fileno()]
        )
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["listening"] == [list(place[:2])]
            for address in ("127.0.0.69",) if family == socket.AF_INET else ("127.0.0.69", "127.0.0.1", "::1"):
                found = fetched((address, place[1]), "even", [("blksize", "1024"), ("windowsize", "4")])
                assert found.content == content(root, "even")
                assert found.place[0] == address
                assert found.options == [("blksize", "1024"), ("windowsize", "4")]
                said = json.loads(process.stdout.readline())
                assert (said["outcome"], said["local"]) == ("sent", address)
                refused = fetched((address, place[1]), "absent")
                assert (refused.error, refused.place) == ((1, "File not found"), (address, place[1]))
                process.stdout.readline()
        finally:
            process.terminate()
            process.communicate(timeout=20)


def test_everything_is_counted(root: Path) -> None:
    registry = CollectorRegistry()
    with tftp.ours(root, metrics=TFTPMetrics(registry)) as served:
        fetched(served.place, "even")
        fetched(served.place, "absent")
        with opened_at(served.address) as sock:
            sock.sendto(b"nothing", served.place)
        fetched(served.place, "even")

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"muster_tftp_{name}", labels)

        assert served.statistics.live == 0
        assert value("transfers_total", outcome="sent") == 2
        assert value("transfers_total", outcome="absent") == 1
        assert value("sent_bytes_total") == 2048
        assert value("dropped_total", reason="no request") == 1
        assert value("transfers_live") == 0


def test_whoever_listens_and_fails_stops_nothing(root: Path) -> None:
    with tftp.ours(root) as served:
        assert served.server is not None

        def fails(_: object) -> None:
            raise ValueError("a defect of the listener's")

        served.server.told = fails
        for _ in range(3):
            assert fetched(served.place, "even").content == content(root, "even")
        assert served.statistics.files == 3


@pytest.mark.parametrize(
    "wrong",
    [
        ["--listen", "127.0.0.1"],
        ["--listen", "127.0.0.1:99999"],
        ["--listen", "127.0.0.999:69"],
        ["--listen", "::1:69"],
        ["--data-ports", "20-10"],
        ["--data-ports", "0-10"],
        ["--blksize", "7"],
    ],
)
def test_wrong_options_are_wrong_usage(root: Path, wrong: list[str]) -> None:
    command = [sys.executable, "-m", "muster", "netboot", "tftp", "--root", str(root), *wrong]
    assert (
        subprocess.run(command, capture_output=True, timeout=30, check=False, env=clean_environment()).returncode == 2
    )
