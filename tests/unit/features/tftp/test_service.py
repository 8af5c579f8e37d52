from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.features.tftp import service
from muster.features.tftp.service import TFTP
from muster.features.tftp.settings import TFTPSettings
from muster.features.tftp.shapes import LIMIT_BYTES
from muster.kernel.errors import Denied, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.happenings import Happening
from muster.netboot.contract import BootPath, Entry, Fetch, Put
from muster.policy.metered import OperationMetrics
from tests.servers.boottree import BootTreeStandIn

MAC = "aa:bb:cc:dd:ee:01"
OWN = "host-config/aa-bb-cc-dd-ee-01/grub2"
SYSTEM = {"targetos": "ubuntu", "release": "24.04", "arch": "x86_64", "bootfile_suffix": "x64"}
UNIVERSE = "bootloader-universe/pxegrub2/ubuntu"


@pytest.fixture
def tree(tmp_path: Path) -> BootTreeStandIn:
    return BootTreeStandIn(tmp_path)


@pytest.fixture
def tftp(tree: BootTreeStandIn) -> TFTP:
    return TFTP(tree, server_name="192.0.2.5", fetch_wait_s=7.0)


def form(**given: str) -> dict[str, str | None]:
    names = ("pxeconfig", "syslinux_config", "targetos", "release", "arch", "bootfile_suffix")
    return {name: given.get(name) for name in names}


async def test_what_was_written_is_read_from_the_first_file(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tftp.set_config("PXEGrub", MAC, form(pxeconfig="default=0"))
    assert await tftp.config("PXEGrub", MAC) == b"default=0"
    await tree.change([Put(BootPath("grub/01-AA-BB-CC-DD-EE-01"), b"other")])
    assert await tftp.config("PXEGrub", MAC) == b"default=0"
    await tree.change([Put(BootPath("grub/menu.lst.01AABBCCDDEE01"), b"other")])
    assert await tftp.config("PXEGrub", MAC) == b"other"


async def test_the_newer_name_of_the_parameter_wins_also_when_it_is_empty(tftp: TFTP) -> None:
    await tftp.set_config("PXELinux", MAC, form(syslinux_config="old"))
    assert await tftp.config("PXELinux", MAC) == b"old"
    await tftp.set_config("PXELinux", MAC, form(pxeconfig="", syslinux_config="old"))
    assert await tftp.config("PXELinux", MAC) == b""


async def test_what_became_of_a_host_s_menu_is_told(tree: BootTreeStandIn) -> None:
    heard: list[Happening] = []
    tftp = TFTP(tree, tell=heard.append)
    await tftp.set_config("PXEGrub2", MAC.upper(), form(pxeconfig="x", **SYSTEM))
    with pytest.raises(Rejected):
        await tftp.set_config("PXELinux", MAC, form())
    await tftp.remove_config("PXEGrub2", MAC)
    await tftp.set_default("PXEGrub", "menu")
    failed = {"failed": "TFTP: Failed to create pxe config file: Invalid parameters received"}
    assert [(h.kind, h.mac, dict(h.detail)) for h in heard] == [
        ("configured", MAC, {"variant": "PXEGrub2"}), ("configured", MAC, {"variant": "PXELinux", **failed}),
        ("unconfigured", MAC, {"variant": "PXEGrub2"}),
    ]  # fmt: skip


async def test_each_call_is_one_change_told_with_the_host(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tftp.set_config("PXEGrub2", MAC.upper(), form(pxeconfig="x", **SYSTEM))
    await tftp.remove_config("PXEGrub2", MAC)
    await tftp.set_default("PXEGrub", "menu")
    assert [about for _, about in tree.changed] == [MAC, MAC, ""]


async def test_a_host_gets_the_loaders_of_its_release(tftp: TFTP, tree: BootTreeStandIn) -> None:
    for release, name in (("24.04", "shimx64.efi"), ("default", "old.efi")):
        await tree.change([Put(BootPath(f"{UNIVERSE}/{release}/x86_64/{name}"), b"MZ")])
    await tftp.set_config("PXEGrub2", MAC, form(pxeconfig="x", **SYSTEM))
    links = {p: t for p, t in tree.contents().items() if t.startswith("->")}
    assert links == {f"{OWN}/shimx64.efi": f"-> ../../../{UNIVERSE}/24.04/x86_64/shimx64.efi"}


async def test_else_those_of_all_releases_else_those_of_all_hosts(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tree.change([Put(BootPath(f"{UNIVERSE}/24.04/x86_64/README"), b"no loader")])
    await tftp.set_config("PXEGrub2", MAC, form(pxeconfig="x", **SYSTEM))
    assert tree.contents()[f"{OWN}/boot-sb.efi"] == "-> ../../../grub2/shimx64.efi"
    await tree.change([Put(BootPath(f"{UNIVERSE}/default/x86_64/grubx64.efi"), b"MZ")])
    await tftp.set_config("PXEGrub2", MAC, form(pxeconfig="x", **SYSTEM))
    links = {p: t for p, t in tree.contents().items() if t.startswith("->")}
    assert links == {f"{OWN}/grubx64.efi": f"-> ../../../{UNIVERSE}/default/x86_64/grubx64.efi"}


async def test_nothing_is_left_of_a_host_that_was_removed(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tftp.set_default("PXEGrub2", "menu")
    await tftp.set_config("PXEGrub2", MAC, form(pxeconfig="x", **SYSTEM))
    await tree.change([Put(BootPath("host-config/aa-bb-cc-dd-ee-01/more/by-hand"), b"x")])
    assert len(tree.contents()) == 11
    await tftp.remove_config("PXEGrub2", MAC)
    assert tree.contents() == {"grub2/grub.cfg": "menu"}
    await tftp.remove_config("PXEGrub2", MAC)


async def test_of_two_at_once_for_one_host_the_files_of_one_stand(tree: BootTreeStandIn) -> None:
    tftp = TFTP(tree)
    calls = [tftp.set_config("PXEGrub2", MAC, form(pxeconfig=f"config {n}", **SYSTEM)) for n in range(8)]
    await asyncio.gather(*calls)
    texts = {text for path, text in tree.contents().items() if not text.startswith("->")}
    assert texts == {"config 7"}


@pytest.mark.parametrize("given", [form(), form(targetos="..")])
async def test_without_a_configuration_nothing_is_written(
    tftp: TFTP, tree: BootTreeStandIn, given: dict[str, str | None]
) -> None:
    with pytest.raises(Rejected) as e:
        await tftp.set_config("PXEGrub2", MAC, given)
    assert str(e.value) == "TFTP: Failed to create pxe config file: Invalid parameters received"
    assert tree.changed == []


async def test_a_name_that_is_none_is_a_failure_of_the_host_s_directory(tftp: TFTP, tree: BootTreeStandIn) -> None:
    with pytest.raises(
        Rejected, match=r"TFTP: Failed to setup host specific bootloader directory: targetos \.\. is no"
    ):
        await tftp.set_config("PXEGrub2", MAC, form(pxeconfig="x", targetos=".."))
    await tftp.set_config("PXELinux", MAC, form(pxeconfig="x", targetos=".."))
    assert len(tree.changed) == 1


async def test_a_configuration_that_is_too_long_is_refused(tftp: TFTP) -> None:
    with pytest.raises(Rejected, match=r"TFTP: Failed to create pxe config file: the file would be larger than 1 MiB"):
        await tftp.set_config("PXELinux", MAC, form(pxeconfig="x" * (LIMIT_BYTES + 1)))


async def test_the_address_is_looked_at_before_the_boot_loader(tftp: TFTP) -> None:
    for call in (tftp.config("x", "y"), tftp.set_config("x", "y", form()), tftp.remove_config("x", "y")):
        with pytest.raises(Denied, match="Invalid MAC address: y"):
            await call
    for call in (tftp.config("x", MAC), tftp.set_config("x", MAC, form()), tftp.remove_config("x", MAC)):
        with pytest.raises(Denied, match="Unrecognized pxeboot config type: X"):
            await call


async def test_what_is_not_there_is_named_with_its_path(tftp: TFTP, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as e:
        await tftp.config("ZTP", MAC)
    assert str(e.value) == f"TFTP: Failed to retrieve pxe config file: File {tmp_path}/ztp.cfg/AABBCCDDEE01 not found"


async def test_a_file_that_is_too_large_to_be_read_is_not_found_either(tftp: TFTP, tree: BootTreeStandIn) -> None:
    tree._entries["poap.cfg/AABBCCDDEE01"] = Entry(BootPath("poap.cfg/AABBCCDDEE01"), "file", 1, size=32 << 20)
    with pytest.raises(NotFound, match=r"TFTP: Failed to retrieve pxe config file: .* is larger"):
        await tftp.config("POAP", MAC)


@pytest.mark.parametrize("variant", ["ZTP", "POAP"])
async def test_a_default_never_keeps_hosts_out_of_their_directory(
    tftp: TFTP, tree: BootTreeStandIn, variant: str
) -> None:
    with pytest.raises(
        Rejected, match="TFTP: Failed to create PXE default file: hosts of this kind have files of their own"
    ):
        await tftp.set_default(variant, "menu")
    with pytest.raises(Rejected, match="TFTP: Failed to create PXE default file: Default config not supplied"):
        await tftp.set_default(variant, None)
    await tftp.set_config(variant, MAC, form(pxeconfig="x"))
    assert set(tree.contents().values()) == {"x"}


async def test_what_the_tree_refuses_is_said_in_foreman_s_words(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tree.change([Put(BootPath("ztp.cfg"), b"of somebody else")])
    with pytest.raises(Rejected, match=r"TFTP: Failed to create pxe config file: ztp\.cfg is no directory"):
        await tftp.set_config("ZTP", MAC, form(pxeconfig="x"))


async def test_what_the_store_does_not_answer_is_worth_another_try(tftp: TFTP, tree: BootTreeStandIn) -> None:
    tree.is_away = True
    calls: dict[str, Any] = {
        "TFTP: Failed to create pxe config file": tftp.set_config("PXELinux", MAC, form(pxeconfig="x")),
        "TFTP: Failed to setup host specific bootloader directory": tftp.set_config(
            "PXEGrub2", MAC, form(pxeconfig="x", **SYSTEM)
        ),
        "TFTP: Failed to delete pxe config file": tftp.remove_config("PXELinux", MAC),
        "TFTP: Failed to create PXE default file": tftp.set_default("PXELinux", "x"),
        "TFTP: Failed to fetch boot file": tftp.fetch("boot/x", "http://m.test/a"),
    }
    for words, call in calls.items():
        with pytest.raises(Unavailable, match=f"{words}: The store did not answer"):
            await call


async def test_a_boot_file_is_fetched_to_its_place_and_waited_for(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tftp.fetch("boot/debian-x", "http://m.test/linux")
    assert tree.fetched == [("boot/debian-x-linux", "http://m.test/linux", 7.0)]
    assert [f.state for f in await tftp.fetches()] == ["done"]


async def test_a_fetch_that_failed_is_refused_with_the_reason(tftp: TFTP, tree: BootTreeStandIn) -> None:
    tree.outcome = Fetch(BootPath("x"), "", "failed", why="http://m.test/linux answers 404")
    with pytest.raises(Rejected, match=r"TFTP: Failed to fetch boot file: http://m\.test/linux answers 404"):
        await tftp.fetch("boot/x", "http://m.test/linux")


@pytest.mark.parametrize("state", ["waiting", "running"])
async def test_a_fetch_that_takes_longer_is_a_success_for_foreman(
    tftp: TFTP, tree: BootTreeStandIn, state: Any
) -> None:
    tree.outcome = Fetch(BootPath("x"), "", state)
    await tftp.fetch("boot/x", "ftp://m.test/linux")
    assert [f.state for f in await tftp.fetches()] == [state]


async def test_what_is_mounted_is_not_fetched(tftp: TFTP, tree: BootTreeStandIn) -> None:
    await tftp.fetch("boot/x", "nfs://m.test:/linux")
    assert tree.fetched == []
    with pytest.raises(Rejected, match="outside of tftproot"):
        await tftp.fetch("../x", "nfs://m.test:/linux")


async def test_other_protocols_are_refused_without_showing_passwords(tftp: TFTP, tree: BootTreeStandIn) -> None:
    with pytest.raises(Rejected) as e:
        await tftp.fetch("boot/x", "gopher://u:secret@m.test/a")
    assert str(e.value) == (
        "TFTP: Failed to fetch boot file: Cannot fetch boot file, unknown protocol for medium source path: gopher://m.test/a"
    )
    assert tree.fetched == []


@pytest.mark.parametrize(("prefix", "url"), [(None, "http://m.test/a"), ("x", None), ("", ""), (None, None)])
async def test_a_fetch_needs_both_parameters(tftp: TFTP, prefix: str | None, url: str | None) -> None:
    with pytest.raises(Rejected, match="TFTP: Failed to fetch boot file: prefix and path are needed"):
        await tftp.fetch(prefix, url)


def around(tree: BootTreeStandIn | None) -> Surroundings:
    return Surroundings("m", OperationMetrics(CollectorRegistry()), Path(), Path(), Path(), boot=tree)


async def test_the_feature_fails_where_there_is_no_tree() -> None:
    with pytest.raises(Misconfigured, match="no tree of boot files"):
        async with service.opened(TFTPSettings(), around(None)):
            pytest.fail("it opened")


async def test_the_settings_reach_the_service(tree: BootTreeStandIn) -> None:
    settings = TFTPSettings.model_validate(
        {"tftp_servername": "192.0.2.9", "fetch_wait_s": 3, "tftproot": "/elsewhere"}
    )
    async with service.opened(settings, around(tree)) as tftp:
        assert tftp.server_name == "192.0.2.9"
        await tftp.fetch("boot/x", "http://m.test/a")
    assert tree.fetched[0][2] == 3
    async with service.opened(TFTPSettings(), around(tree)) as tftp:
        assert tftp.server_name == ""
