"""The HTTPBoot feature at a real member, as firmware and curl ask it, with a stand-in for the cluster's tree."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.netboot.contract import BootPath, Entry, Put
from tests.servers import boottree, member
from tests.servers.boottree import BootTreeStandIn
from tests.servers.client import Answer, ask
from tests.servers.member import Member

BIG = os.urandom(1 << 20) * 24
WRITTEN = "Thu, 02 Jan 2020 03:04:05 GMT"
BEFORE, AFTER = "Thu, 02 Jan 2020 03:04:04 GMT", "Thu, 02 Jan 2020 03:04:06 GMT"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> BootTreeStandIn:
    root = tmp_path_factory.mktemp("boot")
    (root / "boot").mkdir()
    for name, content in (("linux", b"kernel"), ("initrd.img", BIG), ("page.html", b"<b>x</b>")):
        (root / "boot" / name).write_bytes(content)
        os.utime(root / "boot" / name, (1577934245, 1577934245))
    return BootTreeStandIn(root)


@pytest.fixture(scope="module")
def proxy(tree: BootTreeStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with (
        boottree.in_members(tree),
        member.running(tmp_path_factory.mktemp("proxy"), features={"httpboot": {}}) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def _as_at_first(tree: BootTreeStandIn) -> Iterator[None]:
    yield
    tree.is_away = tree.is_behind = False
    tree.lacks.clear()


def get(proxy: Member, path: str, method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(proxy.http, method, path, headers=named)


def test_everybody_gets_a_file_over_http_under_both_prefixes(proxy: Member) -> None:
    for prefix in ("/httpboot", "/EFI"):
        answer = get(proxy, f"{prefix}/boot/linux")
        assert (answer.status, answer.body, answer.headers["last-modified"]) == (200, b"kernel", WRITTEN)
    answer = proxy.ask("GET", "/httpboot/boot/linux", name=None)
    assert (answer.status, answer.body) == (200, b"kernel")


def test_a_head_says_what_a_get_would(proxy: Member) -> None:
    whole, head = get(proxy, "/httpboot/boot/linux"), get(proxy, "/httpboot/boot/linux", "HEAD")
    assert (head.status, head.body) == (200, b"")
    names = ("content-length", "content-type", "last-modified", "etag")
    assert [head.headers[n] for n in names] == [whole.headers[n] for n in names]


def test_a_large_file_comes_whole_and_in_parts(proxy: Member, tmp_path: Path) -> None:
    url = f"http://{proxy.http.address}:{proxy.http.port}/httpboot/boot/initrd.img"
    half = tmp_path / "initrd.img"
    half.write_bytes(BIG[: 5 << 20])
    subprocess.run(["curl", "-sSf", "-C", "-", "-o", str(half), url], check=True, timeout=60)
    assert hashlib.sha256(half.read_bytes()).digest() == hashlib.sha256(BIG).digest()
    answer = get(proxy, "/httpboot/boot/initrd.img", Range="bytes=-5")
    assert (answer.status, answer.body) == (206, BIG[-5:])
    assert answer.headers["content-range"] == f"bytes {len(BIG) - 5}-{len(BIG) - 1}/{len(BIG)}"
    assert get(proxy, "/httpboot/boot/linux", Range="bytes=6-").status == 416


def test_its_tag_is_the_digest_of_its_bytes_once_that_is_known(proxy: Member) -> None:
    digest = f'"sha256:{hashlib.sha256(BIG).hexdigest()}"'
    end = time.monotonic() + 20
    while "etag" not in (answer := get(proxy, "/httpboot/boot/initrd.img", "HEAD")).headers:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert answer.headers["etag"] == digest
    assert get(proxy, "/httpboot/boot/initrd.img", If_None_Match=digest).status == 304
    small = f'"sha256:{hashlib.sha256(b"kernel").hexdigest()}"'
    assert get(proxy, "/httpboot/boot/linux").headers["etag"] == small
    assert get(proxy, "/httpboot/boot/linux", If_Match='"other"').status == 412
    answer = get(proxy, "/httpboot/boot/linux", Range="bytes=1-2", If_Range=small)
    assert (answer.status, answer.body) == (206, b"er")
    assert get(proxy, "/httpboot/boot/linux", Range="bytes=1-2", If_Range='"other"').status == 200


def test_dates_count_where_no_tag_is_asked_for(proxy: Member) -> None:
    for moment, status in ((BEFORE, 200), (WRITTEN, 304), (AFTER, 304), ("yesterday", 200), ("x" * 200, 200)):
        assert get(proxy, "/httpboot/boot/linux", If_Modified_Since=moment).status == status, moment
    for moment, status in ((BEFORE, 412), (WRITTEN, 200), (AFTER, 200)):
        assert get(proxy, "/httpboot/boot/linux", If_Unmodified_Since=moment).status == status, moment
    assert get(proxy, "/httpboot/boot/linux", If_Modified_Since=AFTER, If_None_Match='"other"').status == 200


def test_a_page_among_boot_files_runs_nothing(proxy: Member) -> None:
    answer = get(proxy, "/httpboot/boot/page.html")
    assert answer.headers["content-type"] == "text/html;charset=utf-8"
    assert answer.headers["content-security-policy"] == "sandbox"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_is_written_here(proxy: Member, method: str) -> None:
    answer = get(proxy, "/httpboot/boot/linux", method)
    assert (answer.status, answer.text) == (404, "Requested url was not found")


def test_a_member_that_is_behind_says_when_to_come_again(proxy: Member, tree: BootTreeStandIn) -> None:
    tree.is_behind = True
    answer = get(proxy, "/httpboot/boot/linux")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


def test_what_the_cluster_has_and_this_directory_lacks_comes_from_there(proxy: Member, tree: BootTreeStandIn) -> None:
    tree.lacks.add("cfg/lost")
    proxy.tell(tree.change, [Put(BootPath("cfg/lost"), b"menu"), Put(BootPath("cfg/there"), b"menu")])
    assert not (tree.root / "cfg" / "lost").exists()
    lost, there = get(proxy, "/httpboot/cfg/lost"), get(proxy, "/httpboot/cfg/there")
    assert (lost.status, lost.body, lost.headers["etag"]) == (200, b"menu", there.headers["etag"])
    assert get(proxy, "/httpboot/cfg/lost", "HEAD").body == b""
    tree._entries["cfg/large"] = Entry(BootPath("cfg/large"), "file", 1, size=32 << 20)
    tree._entries["own/boot.efi"] = Entry(BootPath("own/boot.efi"), "link", 1, target="../cfg/large")
    tree._entries["own/loop"] = Entry(BootPath("own/loop"), "link", 1, target="loop")
    for path in ("cfg/large", "own/boot.efi"):
        answer = get(proxy, f"/httpboot/{path}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.text == "cfg/large is not on this member yet"
    for path in ("cfg/nosuch", "cfg/lost/x", "own/loop", "own", "cfg/%C3%BC", ".muster/version"):
        assert get(proxy, f"/httpboot/{path}").status == 404
    tree.is_away = True
    assert get(proxy, "/httpboot/cfg/large").status == 404


def test_a_large_file_that_this_directory_lacks_is_passed_on_from_other_members(
    proxy: Member, tree: BootTreeStandIn
) -> None:
    path, content = BootPath("boot/large"), BIG
    digest, written = hashlib.sha256(content).hexdigest(), email.utils.parsedate_to_datetime(WRITTEN).timestamp()
    tree._entries[path.text] = Entry(path, "file", 1, digest, len(content), modified_at=written)
    tree.elsewhere[path.text] = content
    whole, head = get(proxy, f"/httpboot/{path}"), get(proxy, f"/httpboot/{path}", "HEAD")
    assert (whole.status, whole.body == content, whole.headers["last-modified"]) == (200, True, WRITTEN)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    part = get(proxy, f"/httpboot/{path}", Range="bytes=-7")
    assert (part.status, part.body, part.headers["etag"]) == (206, content[-7:], f'"sha256:{digest}"')
    assert get(proxy, f"/httpboot/{path}", Range=f"bytes={len(content)}-").status == 416
    assert get(proxy, f"/httpboot/{path}", If_None_Match=part.headers["etag"]).status == 304
    assert get(proxy, f"/httpboot/{path}", If_Modified_Since=WRITTEN).status == 304
    assert not (tree.root / path.text).exists()


def test_a_file_that_comes_from_another_member_meanwhile_is_waited_for(proxy: Member, tree: BootTreeStandIn) -> None:
    path = BootPath("boot/late")
    tree._entries[path.text] = Entry(path, "file", 1, size=32 << 20)
    come = threading.Timer(1.0, lambda: (tree.root / path.text).write_bytes(b"kernel"))
    come.start()
    answer = get(proxy, f"/httpboot/{path}")
    come.join()
    assert (answer.status, answer.body) == (200, b"kernel")


def test_a_directory_that_went_is_no_files_absence(proxy: Member, tree: BootTreeStandIn) -> None:
    away = tree.root.with_name("away")
    tree.root.rename(away)
    try:
        answer = get(proxy, "/httpboot/boot/linux")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    finally:
        away.rename(tree.root)


def test_foreman_is_told_where_firmware_finds_it(proxy: Member) -> None:
    found = json.loads(proxy.ask("GET", "/v2/features").body)["httpboot"]
    assert found == {
        "http_enabled": True, "https_enabled": True, "settings": {"http_port": 8000, "https_port": 9090},
        "state": "running", "capabilities": [],
    }  # fmt: skip


def test_another_directory_is_served_as_it_is(tree: BootTreeStandIn, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree.root, other)
    tree.is_behind = True
    features = {"httpboot": {"root_dir": str(other), "enabled": "http"}}
    with boottree.in_members(tree), member.running(tmp_path, features=features) as running:
        assert get(running, "/httpboot/boot/linux").body == b"kernel"
        assert get(running, "/httpboot/cfg/nosuch").status == 404
        assert running.ask("GET", "/httpboot/boot/linux").status == 503
        found = json.loads(running.ask("GET", "/v2/features").body)["httpboot"]["settings"]
        assert found == {"http_port": 8000, "https_port": None}


def test_without_a_directory_the_feature_fails_and_says_why(tree: BootTreeStandIn, tmp_path: Path) -> None:
    features = {"httpboot": {"root_dir": str(tmp_path / "nowhere")}}
    with boottree.in_members(tree), member.running(tmp_path, features=features) as running:
        answer = get(running, "/httpboot/a")
        assert answer.status == 503
        assert answer.text.endswith(f"There is no directory {tmp_path}/nowhere, which root_dir names")
