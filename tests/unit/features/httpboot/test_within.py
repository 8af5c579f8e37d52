from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster.features.httpboot import within
from muster.kernel.errors import Denied, MusterError, NotFound, Unavailable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "hb" / "sub").mkdir(parents=True)
    (root / ".muster").mkdir()
    (root / ".muster" / "secret").write_text("ours")
    (root / "hb" / ".muster").write_text("not ours")
    (root / "hb" / "plain").write_text("hello")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "rooted").mkdir()
    (tmp_path / "rooted" / "secret").write_text("secret")
    return root


def read(root: Path, path: str) -> str:
    file = within.opened(root, path)
    try:
        return file.read(100, 0).decode()
    finally:
        file.close()


@pytest.mark.parametrize("path", ["/hb/plain", "/hb//plain", "/hb/./plain", "/hb/plain/", "/hb/sub/../plain"])
def test_a_file_is_opened(root: Path, path: str) -> None:
    assert read(root, path) == "hello"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("hb/a", "plain"),
        ("hb/a", "./sub/../plain"),
        ("hb/sub/a", "../../hb/plain"),
        ("a", "hb/../hb/plain"),
        ("a", "{root}/hb/plain"),
        ("a", "{root}/hb/../hb/plain"),
    ],
)
def test_a_link_within_the_root_is_followed(root: Path, name: str, target: str) -> None:
    (root / name).symlink_to(target.format(root=root))
    assert read(root, f"/{name}") == "hello"


def test_a_link_to_a_directory_leads_on_from_there(root: Path) -> None:
    (root / "deep").symlink_to("hb/sub")
    (root / "hb" / "sub" / "up").symlink_to("../plain")
    assert read(root, "/deep/up") == "hello"
    assert read(root, "/deep/../plain") == "hello"


def test_a_root_that_is_a_link_itself_is_served(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("root")
    (root / "whole").symlink_to(root / "hb" / "plain")
    (root / "by-name").symlink_to(tmp_path / "link" / "hb" / "plain")
    for path in ("/hb/plain", "/whole", "/by-name"):
        assert read(tmp_path / "link", path) == "hello"


@pytest.mark.parametrize(
    "target",
    ["../secret", "../../secret", "/etc/passwd", "{root}/../secret", "{root}ed/secret", "..", "hb/../../secret", "/"],
)
def test_a_link_out_of_the_root_is_refused(root: Path, target: str) -> None:
    (root / "out").symlink_to(target.format(root=root))
    (root / "again").symlink_to("out")
    for path in ("/out", "/again", "/out/secret"):
        with pytest.raises(Denied, match="Invalid or empty path"):
            within.opened(root, path)


@pytest.mark.parametrize("path", ["/..", "/hb/../..", "/../root/hb/plain", "/", "", "/hb/.."])
def test_neither_the_root_nor_what_is_above_it_is_given(root: Path, path: str) -> None:
    with pytest.raises(Denied, match="Invalid or empty path"):
        within.opened(root, path)


@pytest.mark.parametrize("path", ["/hb", "/hb/", "/hb/sub", "/hb/sub/../../hb"])
def test_directories_are_not_listed(root: Path, path: str) -> None:
    with pytest.raises(Denied, match="Directory listing not allowed"):
        within.opened(root, path)


@pytest.mark.parametrize(
    "path", ["/nosuch", "/hb/plain/x", "/hb/plain/../plain", "/nosuch/../hb/plain", "/a\0b", "/\udcff", "/" + "x" * 300]
)
def test_what_is_not_there_is_not_found(root: Path, path: str) -> None:
    with pytest.raises(NotFound, match="Not found"):
        within.opened(root, path)


def test_a_link_to_nothing_or_to_itself_is_not_found(root: Path) -> None:
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    for path in ("/dangling", "/loop"):
        with pytest.raises(NotFound):
            within.opened(root, path)


@pytest.mark.parametrize("path", ["/.muster", "/.muster/secret", "/hb/../.muster/secret", "/ours", "/hb/ours"])
def test_what_members_keep_for_themselves_is_not_there(root: Path, path: str) -> None:
    (root / "ours").symlink_to(".muster/secret")
    (root / "hb" / "ours").symlink_to("../.muster/secret")
    with pytest.raises(NotFound):
        within.opened(root, path)


def test_a_name_like_it_further_down_is_anybody_s(root: Path) -> None:
    assert read(root, "/hb/.muster") == "not ours"


def test_what_is_no_plain_file_is_not_opened(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        for path in ("/fifo", "/socket"):
            with pytest.raises(Unavailable, match="Not a regular file"):
                within.opened(root, path)


def test_a_root_that_is_gone_is_no_file_s_absence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Opening the directory of boot files failed"):
        within.opened(tmp_path / "nowhere", "/a")


def test_no_descriptor_is_left_behind(root: Path) -> None:
    (root / "out").symlink_to("/etc")
    (root / "in").symlink_to(root / "hb" / "sub")

    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = held()
    for path in ("/hb/plain", "/hb/sub/..", "/hb/sub", "/out/passwd", "/in/../plain", "/nosuch", "/hb/plain/x", "/a\0"):
        for _ in range(5):
            with contextlib.suppress(MusterError):
                within.opened(root, path).close()
    assert held() == before


def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "file").write_text("secret")
    (root / "real" / "sub").mkdir(parents=True)
    (root / "real" / "sub" / "file").write_text("hello")
    (root / "swapped").symlink_to("real")
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            for target in (outside, Path("real")):
                (root / "next").symlink_to(target)
                (root / "next").rename(root / "swapped")

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: set[str] = set()
    try:
        end = time.monotonic() + 20
        for tried in itertools.count():
            # As long as it takes until both have been met, and then some.
            if (tried >= 2000 and len(seen) > 1) or time.monotonic() > end:
                break
            try:
                seen.add(read(root, "/swapped/sub/file"))
            except MusterError as e:
                seen.add(type(e).__name__)
    finally:
        is_over.set()
        swapping.join()
    assert seen == {"hello", "Denied"}


_PARTS = st.sampled_from(
    ["..", ".", "hb", "sub", "plain", "secret", "out", "up", "abs", "", ".muster", "x\0", "\udcff"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(_PARTS, max_size=8).map("/".join))
def test_no_path_leads_out_of_the_root(path: str, linked: Callable[[], Path]) -> None:
    try:
        found = read(linked(), path)
    except MusterError:
        return
    assert found in ("hello", "not ours")


@pytest.fixture
def linked(root: Path, tmp_path: Path) -> Callable[[], Path]:
    (root / "out").symlink_to("..")
    (root / "up").symlink_to("hb/sub")
    (root / "hb" / "abs").symlink_to(tmp_path)
    (root / "hb" / "up").symlink_to("../..")
    return lambda: root
