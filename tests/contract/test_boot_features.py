"""What Foreman has written is what firmware gets: TFTP and HTTPBoot of a real member, over its own tree of boot files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from muster.netboot.contract import HIDDEN
from tests.servers import member
from tests.servers.client import Answer, ask
from tests.servers.member import Member

MAC = "aa:bb:cc:dd:ee:ff"
OWN = "host-config/aa-bb-cc-dd-ee-ff/grub2"
SYSTEM = {"targetos": "ubuntu", "release": "24.04", "arch": "x86_64", "bootfile_suffix": "x64"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boot") / "tftpboot"


@pytest.fixture(scope="module")
def proxy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    features = {"tftp": {"tftproot": str(root)}, "httpboot": {"root_dir": str(root)}}
    with member.running(tmp_path_factory.mktemp("proxy"), features=features) as running:
        yield running


def post(proxy: Member, at: str, /, **form: str) -> Answer:
    return proxy.ask("POST", at, body=urlencode(form).encode())


def get(proxy: Member, path: str) -> Answer:
    return ask(proxy.http, "GET", f"/httpboot/{path}")


def test_a_configuration_is_there_for_firmware_when_foreman_has_its_answer(proxy: Member, root: Path) -> None:
    for text in ("first", "second"):
        assert post(proxy, f"/tftp/PXEGrub2/{MAC}", pxeconfig=text, **SYSTEM).status == 200
        for name in ("grub.cfg", "grub.cfg-01-aa-bb-cc-dd-ee-ff", "grub.cfg-aa:bb:cc:dd:ee:ff"):
            assert get(proxy, f"{OWN}/{name}").text == text
            assert (root / OWN / name).read_text() == text
    assert proxy.ask("GET", f"/tftp/PXEGrub2/{MAC}").text == "second"


def test_a_host_s_loader_is_found_over_its_links(proxy: Member, root: Path) -> None:
    assert post(proxy, f"/tftp/PXEGrub2/{MAC}", pxeconfig="x", **SYSTEM).status == 200
    assert get(proxy, f"{OWN}/boot.efi").status == 404
    # By hand, as a distribution's package would: it is none of the tree's, and is left alone.
    (root / "grub2" / "grubx64.efi").write_bytes(b"MZ")
    for name in ("boot.efi", "grubx64.efi"):
        answer = get(proxy, f"{OWN}/{name}")
        assert (answer.status, answer.body) == (200, b"MZ")
    assert proxy.ask("DELETE", f"/tftp/PXEGrub2/{MAC}").status == 200
    assert not (root / "host-config").exists()
    assert get(proxy, f"{OWN}/boot.efi").status == 404
    assert get(proxy, "grub2/grubx64.efi").body == b"MZ"


def test_what_members_keep_beside_the_files_is_for_nobody(proxy: Member, root: Path) -> None:
    assert post(proxy, "/tftp/PXELinux/create_default", menu="menu").status == 200
    blobs = list((root / HIDDEN / "blobs").iterdir())
    assert blobs
    for path in (HIDDEN, f"{HIDDEN}/version", f"{HIDDEN}/blobs/{blobs[0].name}", f"pxelinux.cfg/../{HIDDEN}/version"):
        assert get(proxy, path).status == 404


def test_a_file_that_was_lost_here_is_given_from_the_store(proxy: Member, root: Path) -> None:
    assert post(proxy, "/tftp/PXELinux/create_default", menu="menu").status == 200
    before = get(proxy, "pxelinux.cfg/default")
    (root / "pxelinux.cfg" / "default").unlink()
    after = get(proxy, "pxelinux.cfg/default")
    assert (after.status, after.text, after.headers["etag"]) == (200, "menu", before.headers["etag"])
    assert get(proxy, "pxelinux.cfg/nosuch").status == 404


def test_a_written_file_has_the_same_date_and_tag_at_each_asking(proxy: Member) -> None:
    assert post(proxy, "/tftp/PXELinux/create_default", menu="dated").status == 200
    first = get(proxy, "pxelinux.cfg/default")
    time.sleep(1.1)
    assert post(proxy, "/tftp/PXELinux/create_default", menu="dated").status == 200
    second = get(proxy, "pxelinux.cfg/default")
    assert [first.headers[n] for n in ("etag", "last-modified")] == [
        second.headers[n] for n in ("etag", "last-modified")
    ]


def test_a_default_that_would_keep_hosts_out_is_refused_and_nothing_is_changed(proxy: Member, root: Path) -> None:
    assert post(proxy, f"/tftp/ZTP/{MAC}", pxeconfig="x").status == 200
    answer = post(proxy, "/tftp/ZTP/create_default", menu="menu")
    assert (answer.status, answer.text.partition(":")[0]) == (400, "TFTP")
    assert (root / "ztp.cfg" / "AABBCCDDEEFF.cfg").read_text() == "x"
