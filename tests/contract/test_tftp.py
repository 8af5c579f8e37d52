"""The TFTP feature at a real member, over TLS, with a stand-in for the cluster's tree of boot files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from muster.features.tftp.shapes import LIMIT_BYTES
from muster.netboot.contract import BootPath, Fetch
from tests.servers import boottree, member
from tests.servers.boottree import BootTreeStandIn
from tests.servers.client import Answer
from tests.servers.member import Member

MAC = "aa:bb:cc:dd:ee:ff"
OWN = "host-config/aa-bb-cc-dd-ee-ff/grub2"
SYSTEM = {"targetos": "ubuntu", "release": "24.04", "arch": "x86_64", "bootfile_suffix": "x64"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> BootTreeStandIn:
    return BootTreeStandIn(tmp_path_factory.mktemp("boot"))


@pytest.fixture(scope="module")
def proxy(tree: BootTreeStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with (
        boottree.in_members(tree),
        member.running(tmp_path_factory.mktemp("proxy"), features={"tftp": {"fetch_wait_s": 2}}) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def _as_at_first(tree: BootTreeStandIn) -> Iterator[None]:
    yield
    tree.is_away, tree.outcome = False, None


def post(proxy: Member, at: str, /, **form: str) -> Answer:
    return proxy.ask("POST", at, body=urlencode(form).encode())


def test_a_grub_host_gets_its_directory_and_loses_all_of_it(proxy: Member, tree: BootTreeStandIn) -> None:
    assert post(proxy, f"/tftp/PXEGrub2/{MAC}", pxeconfig="set default=0", **SYSTEM).status == 200
    found = proxy.tell(tree.contents)
    assert {p: t for p, t in found.items() if "ee-ff" in p or "ee:ff" in p} == {
        f"{OWN}/boot.efi": "-> ../../../grub2/grubx64.efi",
        f"{OWN}/boot-sb.efi": "-> ../../../grub2/shimx64.efi",
        f"{OWN}/grub.cfg": "set default=0",
        f"{OWN}/grub.cfg-01-aa-bb-cc-dd-ee-ff": "set default=0",
        f"{OWN}/grub.cfg-aa:bb:cc:dd:ee:ff": "set default=0",
        f"{OWN}/grubx64.efi": "-> ../../../grub2/grubx64.efi",
        f"{OWN}/shimx64.efi": "-> ../../../grub2/shimx64.efi",
        "grub2/grub.cfg-01-aa-bb-cc-dd-ee-ff": "set default=0",
        "grub2/grub.cfg-aa:bb:cc:dd:ee:ff": "set default=0",
    }
    answer = proxy.ask("GET", f"/tftp/PXEGrub2/{MAC}")
    assert (answer.status, answer.body) == (200, b"set default=0")
    for _ in range(2):
        assert proxy.ask("DELETE", f"/tftp/PXEGrub2/{MAC}").status == 200
        assert not [p for p in proxy.tell(tree.contents) if "ee-ff" in p or "ee:ff" in p]


def test_nobody_but_trusted_hosts_may_call_anything(proxy: Member) -> None:
    for method, path in (
        ("POST", f"/tftp/PXELinux/{MAC}"), ("GET", f"/tftp/PXELinux/{MAC}"), ("DELETE", f"/tftp/PXELinux/{MAC}"),
        ("GET", "/tftp/serverName"), ("GET", "/tftp/fetches"), ("POST", "/tftp/fetch_boot_file"), ("GET", "/tftp/nosuch"),
        ("POST", "/tftp/create_default"),
    ):  # fmt: skip
        assert proxy.ask(method, path, name=None).status == 403
        assert proxy.ask(method, path, name="other.example.com").status == 403


def test_the_longest_configuration_is_taken_however_the_form_writes_it(proxy: Member, tree: BootTreeStandIn) -> None:
    text = "\n" * LIMIT_BYTES
    assert post(proxy, f"/tftp/PXELinux/{MAC}", pxeconfig=text).status == 200
    assert proxy.ask("GET", f"/tftp/PXELinux/{MAC}").body == text.encode()
    answer = post(proxy, f"/tftp/PXELinux/{MAC}", pxeconfig=text + "x")
    assert answer.status == 400
    assert answer.text == "TFTP: Failed to create pxe config file: the file would be larger than 1 MiB"
    assert proxy.tell(tree.contents)["pxelinux.cfg/01-aa-bb-cc-dd-ee-ff"] == text
    assert post(proxy, f"/tftp/PXELinux/{MAC}", pxeconfig=text * 2).status == 413
    assert post(proxy, "/tftp/PXELinux/nobody", pxeconfig=text * 2).status == 403


def test_of_two_posts_at_once_one_stands_whole(proxy: Member, tree: BootTreeStandIn) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(post, proxy, f"/tftp/PXEGrub2/{MAC}", pxeconfig=f"config {n}", **SYSTEM) for n in range(12)
        ]
        assert {one.result().status for one in asked} == {200}
    found = proxy.tell(tree.contents)
    assert len({t for p, t in found.items() if ("ee-ff" in p or "ee:ff" in p) and t.startswith("config")}) == 1


def test_a_store_that_is_away_is_said_with_a_time_to_try_again(proxy: Member, tree: BootTreeStandIn) -> None:
    tree.is_away = True
    answer = post(proxy, f"/tftp/PXELinux/{MAC}", pxeconfig="x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.text == "TFTP: Failed to create pxe config file: The store did not answer"


def test_what_is_fetched_is_shown(proxy: Member, tree: BootTreeStandIn) -> None:
    tree.outcome = Fetch(BootPath("x"), "", "failed", "proxy01", why="m.test answers 404", started_at=1.0)
    answer = post(proxy, "/tftp/fetch_boot_file", prefix="boot/x", path="http://m.test/linux")
    assert (answer.status, answer.text) == (400, "TFTP: Failed to fetch boot file: m.test answers 404")
    answer = proxy.ask("GET", "/tftp/fetches")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)[0] | {"ended_at": 0} == {
        "path": "boot/x-linux", "url": "http://m.test/linux", "state": "failed", "member": "proxy01", "done_bytes": 0,
        "total_bytes": None, "why": "m.test answers 404", "started_at": 1.0, "ended_at": 0,
    }  # fmt: skip


def test_foreman_hears_no_server_name_where_none_is_set(proxy: Member) -> None:
    assert proxy.ask("GET", "/tftp/serverName").text == '{"serverName":""}'
    found = json.loads(proxy.ask("GET", "/v2/features").body)["tftp"]
    assert (found["state"], found["settings"], found["capabilities"]) == ("running", {"tftp_servername": None}, [])
