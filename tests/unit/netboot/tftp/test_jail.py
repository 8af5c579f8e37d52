"""From a client's name to a file below the root, and never to another (``netboot/tftp/jail.py``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kernel.errors import Denied, Misconfigured, MusterError, NotFound, Rejected
from muster.netboot.tftp.jail import Jail, steps

SECRET = b"outside"


@pytest.fixture
def jail(tmp_path: Path) -> Jail:
    root = tmp_path / "root"
    (root / "grub2").mkdir(parents=True)
    (root / "grub2" / "grub.cfg").write_bytes(b"menu")
    (root / "pxelinux.0").write_bytes(b"loader")
    (tmp_path / "secret").write_bytes(SECRET)
    return Jail(root)


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def _as_many_descriptors_as_before() -> Iterator[None]:
    before = _open_descriptors()
    yield
    assert _open_descriptors() == before


def read(jail: Jail, name: str | bytes) -> bytes:
    file = jail.opened(steps(name if isinstance(name, bytes) else name.encode()))
    try:
        content = os.read(file.fd, 100)
        assert file.size == len(content)
        return content
    finally:
        os.close(file.fd)


@pytest.mark.parametrize(
    "name",
    [
        "grub2/grub.cfg",
        "/grub2/grub.cfg",
        "//grub2///grub.cfg",
        "./grub2/./grub.cfg",
        "\\grub2\\grub.cfg",
        "grub2\\/grub.cfg",
        "grub2/../grub2/grub.cfg",
        "absent/..\\grub2/grub.cfg",
    ],
)
def test_a_file_is_found_however_firmware_writes_its_name(jail: Jail, name: str) -> None:
    assert read(jail, name) == b"menu"


@pytest.mark.parametrize(
    "name",
    [b"../secret", b"grub2/../../secret", b"grub2\\..\\..\\secret", b"../root/pxelinux.0",
     b"..", b"grub2/..", b"a\0b", b"", b"/", b"./",
     b"a" * 1025, b"a/" * 65 + b"b"],
)  # fmt: skip
def test_a_name_that_leads_out_or_nowhere_is_rejected(name: bytes) -> None:
    with pytest.raises(Rejected):
        steps(name)


@given(st.binary(max_size=60) | st.text(alphabet="./\\a\0", max_size=20).map(str.encode))
def test_no_step_is_ever_upwards_absolute_or_empty(name: bytes) -> None:
    try:
        found = steps(name)
    except Rejected:
        return
    assert found
    assert not any(s in ("", ".", "..") or "/" in s or "\\" in s or "\0" in s for s in found)


def test_three_dots_and_spaces_are_a_name(jail: Jail) -> None:
    (jail.root / "... a").write_bytes(b"x")
    assert read(jail, "... a") == b"x"


def test_a_name_that_is_no_utf_8_is_a_name(jail: Jail) -> None:
    Path(os.fsdecode(bytes(jail.root) + b"/\xff")).write_bytes(b"x")
    assert read(jail, b"\xff") == b"x"


def test_links_within_the_root_are_followed(jail: Jail) -> None:
    (jail.root / "grub2" / "up").symlink_to("../pxelinux.0")
    (jail.root / "dir").symlink_to("grub2")
    (jail.root / "chain").symlink_to("dir/up")
    assert [read(jail, n) for n in ("grub2/up", "dir/grub.cfg", "chain")] == [b"loader", b"menu", b"loader"]


def test_an_absolute_link_begins_at_the_root(jail: Jail) -> None:
    (jail.root / "grub2" / "absolute").symlink_to("/pxelinux.0")
    assert read(jail, "grub2/absolute") == b"loader"


@pytest.mark.parametrize(
    "target", ["{outside}", "../secret", "../../../../../../{outside}", "grub2/../../secret", "/../secret"]
)
def test_no_link_leads_out(jail: Jail, target: str, tmp_path: Path) -> None:
    (jail.root / "link").symlink_to(target.format(outside=tmp_path / "secret"))
    (jail.root / "way").symlink_to(tmp_path)
    for name in ("link", "way/secret"):
        with pytest.raises(NotFound):
            read(jail, name)


def test_a_link_to_a_directory_outside_leads_nowhere_also_by_its_own_name(jail: Jail) -> None:
    # Within the root there is a file of the name that the link would have outside.
    (jail.root / "secret").write_bytes(b"inside")
    (jail.root / "link").symlink_to("../secret")
    assert read(jail, "link") == b"inside"


def test_links_in_a_circle_end(jail: Jail) -> None:
    (jail.root / "a").symlink_to("b")
    (jail.root / "b").symlink_to("a")
    (jail.root / "long").symlink_to("/".join(["long"] * 100))
    for name in ("a", "long"):
        with pytest.raises(Denied):
            read(jail, name)


def test_nothing_but_a_regular_file_is_opened(jail: Jail) -> None:
    os.mkfifo(jail.root / "fifo", 0o644)
    (jail.root / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(jail.root)
        try:
            sock.bind("socket")
        finally:
            os.chdir(here)
        for name in ("fifo", "socket", "grub2"):
            with pytest.raises(Denied):
                read(jail, name)
    with pytest.raises(NotFound):
        read(jail, "null")


def test_what_not_everybody_may_read_is_not_served(jail: Jail) -> None:
    (jail.root / "pxelinux.0").chmod(0o640)
    with pytest.raises(Denied):
        read(jail, "pxelinux.0")


@pytest.mark.parametrize("name", ["absent", "absent/file", "pxelinux.0/file", "a" * 300])
def test_what_is_not_there_is_not_found(jail: Jail, name: str) -> None:
    with pytest.raises(NotFound):
        read(jail, name)


def test_a_root_that_is_replaced_is_the_root(jail: Jail, tmp_path: Path) -> None:
    jail.root.rename(tmp_path / "old")
    jail.root.mkdir()
    (jail.root / "pxelinux.0").write_bytes(b"newer")
    assert read(jail, "pxelinux.0") == b"newer"


def test_links_that_are_swapped_meanwhile_lead_out_never(jail: Jail, tmp_path: Path) -> None:
    """A directory and a link to one outside take each other's name, again and again, while files are asked for."""
    import threading

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_bytes(SECRET)
    (jail.root / "in").mkdir()
    (jail.root / "in" / "file").write_bytes(b"inside")
    (jail.root / "link").symlink_to("../out")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for one, other in (("in", "kept"), ("link", "in"), ("in", "link"), ("kept", "in")):
                (jail.root / one).rename(jail.root / other)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(read(jail, "in/file"))
            except MusterError as e:
                seen.add(type(e).__name__.encode())
    finally:
        ended.set()
        thread.join()
    assert SECRET not in seen
    assert b"inside" in seen


def test_a_root_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be the root"):
        Jail(tmp_path / "absent").check()


@pytest.mark.parametrize("name", ["boot/.muster/partial/1", "up/.muster/partial/1", "grub2/top/.muster/partial/1"])
def test_what_members_keep_for_themselves_is_not_reached_over_a_link_to_the_root(jail: Jail, name: str) -> None:
    (jail.root / ".muster" / "partial").mkdir(parents=True)
    (jail.root / ".muster" / "partial" / "1").write_bytes(b"half")
    (jail.root / "boot").symlink_to(".")
    (jail.root / "up").symlink_to("/")
    (jail.root / "grub2" / "top").symlink_to("..")
    assert read(jail, f"{name.partition('/.muster')[0]}/pxelinux.0") == b"loader"
    with pytest.raises(NotFound):
        read(jail, name)
