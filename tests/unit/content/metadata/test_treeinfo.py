from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.treeinfo import LIMIT_BYTES, Checksum, Tree, checksums, read
from tests.unit.content.metadata.documents import A, C

TREE = f"""\
[checksums]
images/boot.iso = sha256:{A}
images/pxeboot/initrd.img=SHA512: {C.upper()}

; of old
# %(with)s what looks like an interpolation
repodata/repomd.xml = sha1:{A[:40]}

[general]
; WARNING.0 = This section provides compatibility with pre-productmd treeinfos.
family = Example Linux
../outside = nothing that is read
no entry

[images-x86_64]
boot.iso = images/boot.iso
kernel = images/pxeboot/vmlinuz

[tree]
build_timestamp = 1700000000
variants = AppStream,BaseOS
"""


@pytest.mark.parametrize("text", [TREE, TREE.replace("\n", "\r\n"), TREE.rstrip("\n")])
def test_the_checksums_are_read_and_nothing_else(text: str) -> None:
    found = checksums(text.encode())
    assert found == {
        "images/boot.iso": Checksum("sha256", A),
        "images/pxeboot/initrd.img": Checksum("sha512", C),
        "repodata/repomd.xml": Checksum("sha1", A[:40]),
    }
    assert list(found) == ["images/boot.iso", "images/pxeboot/initrd.img", "repodata/repomd.xml"]
    assert [c.is_proven for c in found.values()] == [True, True, False]


VARIANTS = f"""\
[checksums]
images/boot.iso = sha256:{A}

[stage2]
instimage =
mainimage = images/install.img

[images-x86_64]
kernel = images/pxeboot/vmlinuz
boot.iso = images/boot.iso
other = ../elsewhere/initrd.img

[images-xen]
kernel = images/pxeboot/vmlinuz
no entry

[variant-BaseOS]
id = BaseOS
packages = Packages
repository = .
source_repository = ../../source/tree

[variant-AppStream]
repository = ../../../AppStream/x86_64/os/
[variant-Extras]
repository = ./Extras/
[addon-HighAvailability]
repository = addons/HighAvailability
[variant-Away]
repository = http://a.test/x
"""


def test_images_and_repositories_below_the_tree_are_told_and_what_leads_out_of_it() -> None:
    assert read(VARIANTS.encode()) == Tree(
        {"images/boot.iso": Checksum("sha256", A)},
        ("images/install.img", "images/pxeboot/vmlinuz", "images/boot.iso"),
        ("Extras", "addons/HighAvailability"),
        ("../elsewhere/initrd.img", "../../../AppStream/x86_64/os", "http://a.test/x"),
    )
    assert read(TREE.encode()).images == ("images/boot.iso", "images/pxeboot/vmlinuz")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[a]\n" + b"x\n" * 50_000, "more than 50000 lines"),
        (b"[stage2]\n" + b"".join(b"a = %d\n" % n for n in range(10_001)), "more than 10000 images"),
        (b"[stage2]\n" + b"".join(b"a = /%d\n" % n for n in range(10_001)), "more than 10000 images"),
        (b"[variant-a]\n" + b"".join(b"repository = %d\n" % n for n in range(51)), "more than 50 repositories"),
        (f"[checksums]\n../a = sha256:{A}\n".encode(), "no path inside"), (b"", "no section"),
    ],
)  # fmt: skip
def test_a_tree_of_more_than_is_read_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading treeinfo failed: .*{why}"):
        read(body)


def test_a_tree_without_checksums_has_none() -> None:
    assert checksums(b"[general]\nfamily = Example\n") == {}
    assert checksums(b"[checksums]\n[tree]\n") == {}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (f"../a = sha256:{A}", "no path inside"), (f"/a = sha256:{A}", "no path inside"),
        (f"a//b = sha256:{A}", "no path inside"),
        (f"a\x01b = sha256:{A}", "no path inside"), (f"= sha256:{A}", "no path inside"),
        (f"http://a.test/b = sha256:{A}", "no path inside"),
        ("a", "no checksum"), ("a =", "no checksum"), (f"a = {A}", "no checksum"),
        (f"a = sha256:{A}0", "no checksum"),
        (f"a = sha256:{A}\na = sha256:{A}", "there twice"), (f"a = other:{A}", "no checksum"),
        (f"[a = sha256:{A}", None),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_refused(entry: str, why: str | None) -> None:
    body = f"[checksums]\n{entry}\n".encode()
    if why is None:
        assert list(checksums(body)) == ["[a"]
        return
    with pytest.raises(Malformed, match=f"^Reading /r/.treeinfo failed: .*{why}"):
        checksums(body, of="/r/.treeinfo")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no section"), (b"<html></html>", "no section"), (f"a = sha256:{A}".encode(), "no section"),
        (b"[a]\n\xff", "not UTF-8"),
        ("[a]".encode("utf-16"), "not UTF-8"), (b"[a]\n" + b"#" * LIMIT_BYTES, f"larger than {LIMIT_BYTES} bytes"),
        (b"[checksums]\n" + b"".join(b"%d=md5:%032d\n" % (n, 0) for n in range(10_001)), "more than 10000 files"),
    ],
)  # fmt: skip
def test_what_is_no_treeinfo_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        checksums(body)


@given(st.text("[]checksums=:/.\n a", max_size=60))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        checksums(f"[checksums]\n{text}".encode())
    with contextlib.suppress(Malformed):
        found = read(f"[variant-a]\nrepository = {text}\n[images-a]\na = {text}".encode())
        assert not any(
            part in ("", ".", "..") for one in (*found.images, *found.repositories) for part in one.split("/")
        )
