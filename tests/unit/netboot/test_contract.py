"""Paths of boot files: what is one, and that none leads anywhere else."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kernel.errors import Rejected
from muster.netboot.contract import BootPath


@pytest.mark.parametrize(
    "text",
    [
        "pxelinux.cfg/default",
        "grub2/grub.cfg-aa:bb:cc:dd:ee:ff",
        "host-config/aa-bb/grub2/shimx64.efi",
        "a b/~c",
        "x" * 255,
        "..a/b..",
    ],
)
def test_paths_of_boot_files(text: str) -> None:
    path = BootPath.parse(text)
    assert (str(path), path.name, path.parent) == (text, posixpath.basename(text), posixpath.dirname(text))


@pytest.mark.parametrize(
    "text",
    [
        "", "/etc/passwd", "../etc/passwd", "a/../b", "a//b", "a/./b", "a/", ".", "..", ".muster/blobs/x", "a\\b", "a\nb",
        "a\0b", "ä", "x" * 256, "a/" * 600,
    ],
)  # fmt: skip
def test_what_is_no_path_of_a_boot_file(text: str) -> None:
    with pytest.raises(Rejected):
        BootPath.parse(text)


@given(st.text(alphabet=st.sampled_from("ab./\\ \n"), max_size=20))
def test_no_path_leads_out(text: str) -> None:
    try:
        path = BootPath.parse(text)
    except Rejected:
        return
    whole = posixpath.normpath(posixpath.join("/root", path.text))
    assert whole == f"/root/{path.text}"


def test_what_is_below_a_directory() -> None:
    path = BootPath.parse("a/b/c")
    assert [path.is_below(d) for d in ("", "a", "a/b", "a/b/c", "ab")] == [True, True, True, False, False]
