from __future__ import annotations

import threading
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from muster.features.dhcp.dnsmasq.leases import parsed, read
from muster.kernel.errors import Unavailable

LINE = "1795000000 52:54:00:aa:00:01 192.0.2.5 web 01:52:54:00:aa:00:01\n"


def test_leases_are_read_up_to_those_of_ipv6() -> None:
    (one, never, odd) = parsed(
        f"{LINE}0 06-52:54:00:aa:00:02 192.0.2.6 * *\n1795000000 ff:ff:ff:ff:ff:ff:ff:ff 192.0.2.7 * *\nwhat\n1 2 3 4\n"
        "duid 00:01:00:01\n1795000000 1 192.0.2.9 * 00\n"
    )
    assert (str(one.ip), one.mac, one.name, one.ends.timestamp()) == (
        "192.0.2.5",
        "52:54:00:aa:00:01",
        "web",
        1795000000,
    )
    assert (never.mac, never.name, f"{never.ends:%Y}") == ("52:54:00:aa:00:02", None, "2038")
    # Nobody can be told of it, and it is in use.
    assert (odd.ip, odd.mac) == (IPv4Address("192.0.2.7"), None)


@pytest.mark.parametrize(
    "line", ["99999999999999999999 52:54:00:aa:00:01 192.0.2.5 * *", "-5 a 192.0.2.5 * *", "\0\0\0", "1"]
)
def test_what_is_no_lease_is_left_out(line: str) -> None:
    assert parsed(line) == []


def test_a_lease_beyond_what_foreman_can_be_told_ends_at_the_last_moment() -> None:
    (one,) = parsed("99999999999 52:54:00:aa:00:01 192.0.2.5 * *")
    assert f"{one.ends:%Y-%m-%d}" == "2038-01-19"


def test_no_file_is_no_lease(tmp_path: Path) -> None:
    assert read(tmp_path / "no") == ()


def test_a_file_that_is_being_written_is_read_when_that_is_done(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    path.write_text(LINE[:30])

    def write() -> None:
        with path.open("a") as f:
            for _ in range(9):
                f.write(LINE[30:] + LINE[:30])
                f.flush()
                time.sleep(0.01)
            f.write(LINE[30:])

    thread = threading.Thread(target=write)
    thread.start()
    assert len(read(path)) == 10
    thread.join()


def test_a_file_that_has_just_been_emptied_is_not_believed_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    path.write_text("")
    thread = threading.Timer(0.2, lambda: path.write_text(LINE))
    thread.start()
    assert len(read(path, is_emptied=True)) == 1
    thread.join()
    path.write_text("")
    assert read(path, is_emptied=True) == []


def test_half_a_line_is_not_taken_for_all(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    path.write_text(LINE + LINE[:20])
    with pytest.raises(Unavailable, match="in the middle of a line"):
        read(path)
