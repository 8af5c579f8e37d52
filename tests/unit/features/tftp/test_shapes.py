from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.tftp import shapes
from muster.features.tftp.shapes import LIMIT_BYTES, Loader
from muster.kernel.errors import Denied, MusterError, Rejected
from muster.kernel.names import MACAddress
from muster.netboot.contract import BootPath, Entry, Fetch, Link, Put, Remove, RemoveBelow

MAC = MACAddress("aa:bb:cc:dd:ee:01")
ROOT = Path("/srv/boot")
OWN = "host-config/aa-bb-cc-dd-ee-01"


@pytest.mark.parametrize(
    ("variant", "hosts", "defaults"),
    [
        ("syslinux", ["pxelinux.cfg/01-aa-bb-cc-dd-ee-01"], ["pxelinux.cfg/default"]),
        ("PXELinux", ["pxelinux.cfg/01-aa-bb-cc-dd-ee-01"], ["pxelinux.cfg/default"]),
        (
            "PXEGrub",
            ["grub/menu.lst.01AABBCCDDEE01", "grub/01-AA-BB-CC-DD-EE-01"],
            ["grub/menu.lst", "grub/efidefault"],
        ),
        (
            "PXEGrub2",
            [
                f"{OWN}/grub2/grub.cfg",
                f"{OWN}/grub2/grub.cfg-01-aa-bb-cc-dd-ee-01",
                f"{OWN}/grub2/grub.cfg-aa:bb:cc:dd:ee:01",
                "grub2/grub.cfg-01-aa-bb-cc-dd-ee-01",
                "grub2/grub.cfg-aa:bb:cc:dd:ee:01",
            ],
            ["grub2/grub.cfg"],
        ),
        ("ZTP", ["ztp.cfg/AABBCCDDEE01", "ztp.cfg/AABBCCDDEE01.cfg"], []),
        ("POAP", ["poap.cfg/AABBCCDDEE01"], []),
        ("iPXE", ["pxelinux.cfg/01-aa-bb-cc-dd-ee-01.ipxe"], ["pxelinux.cfg/default.ipxe"]),
    ],
)
def test_each_boot_loader_has_the_files_it_asks_for(variant: str, hosts: list[str], defaults: list[str]) -> None:
    found = shapes.variant(variant)
    assert list(found.hosts(MAC)) == hosts
    assert list(found.defaults) == defaults


@pytest.mark.parametrize("text", ["", "Server", "Nosuch", "pxelinux ", "../Pxelinux", "ﬀ"])
def test_another_boot_loader_is_refused_by_name(text: str) -> None:
    with pytest.raises(Denied, match="Unrecognized pxeboot config type: "):
        shapes.variant(text)


@pytest.mark.parametrize("text", ["aa:bb:cc:dd:ee:01", "AA:BB:CC:DD:EE:01"])
def test_a_hardware_address_is_lower_case_however_it_came(text: str) -> None:
    assert shapes.mac(text) == MAC


def test_an_infiniband_address_has_twenty_octets() -> None:
    text = ":".join(["a0"] * 20)
    assert shapes.VARIANTS["Pxelinux"].hosts(shapes.mac(text)) == (f"pxelinux.cfg/01-{'-'.join(['a0'] * 20)}",)


@pytest.mark.parametrize(
    "text",
    ["", "notamac", "aa-bb-cc-dd-ee-01", "a:b:c:d:e:f", "aa:bb:cc:dd:ee:01\n", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:01:02",
     "../../etc", "aa:bb:cc:dd:ee:0١"],
)  # fmt: skip
def test_what_is_no_hardware_address_with_colons_is_refused(text: str) -> None:
    with pytest.raises(Denied, match="Invalid MAC address: "):
        shapes.mac(text)


def test_all_files_of_a_host_get_the_text() -> None:
    assert shapes.written(["a/b", "c"], "größer") == [
        Put(BootPath("a/b"), "größer".encode()),
        Put(BootPath("c"), "größer".encode()),
    ]


def test_a_file_is_a_mebibyte_long_at_most() -> None:
    assert shapes.written(["a"], "x" * LIMIT_BYTES)
    with pytest.raises(Rejected, match="larger than 1 MiB"):
        shapes.written(["a"], "x" * LIMIT_BYTES + "y")
    with pytest.raises(Rejected, match="larger than 1 MiB"):
        shapes.written(["a"], "ü" * (LIMIT_BYTES // 2 + 1))


def test_a_host_s_directory_goes_as_a_whole_with_its_older_files() -> None:
    assert shapes.removed(shapes.VARIANTS["Pxegrub2"], MAC) == [
        RemoveBelow(BootPath(OWN)),
        Remove(BootPath("grub2/grub.cfg-01-aa-bb-cc-dd-ee-01")),
        Remove(BootPath("grub2/grub.cfg-aa:bb:cc:dd:ee:01")),
    ]
    assert shapes.removed(shapes.VARIANTS["Poap"], MAC) == [Remove(BootPath("poap.cfg/AABBCCDDEE01"))]


def given_form(**given: str) -> dict[str, str | None]:
    return {name: given.get(name) for name in ("bootfile_suffix", "targetos", "release", "arch")}


def test_loaders_of_a_system_s_release_come_before_those_of_all_its_releases() -> None:
    loader = Loader.of(given_form(bootfile_suffix="x64", targetos="ubuntu", release="24.04", arch="x86_64"))
    assert loader.places == (
        "bootloader-universe/pxegrub2/ubuntu/24.04/x86_64",
        "bootloader-universe/pxegrub2/ubuntu/default/x86_64",
    )
    assert Loader.of(given_form(bootfile_suffix="x64", targetos="ubuntu", arch="x86_64")).places == ()


@pytest.mark.parametrize("name", ["bootfile_suffix", "targetos", "release", "arch"])
@pytest.mark.parametrize("text", ["..", ".", ".muster", "a/b", "a b", "a\n", "ü", "x" * 65, "a\\b"])
def test_nothing_but_a_plain_name_chooses_a_boot_loader(name: str, text: str) -> None:
    with pytest.raises(Rejected, match=f"{name} .* is no name"):
        Loader.of(given_form(**{name: text}))


def test_only_boot_loaders_in_the_directory_itself_count() -> None:
    entries = [Entry(BootPath(p), "file", 1) for p in ("u/grub.cfg", "u/grubx64.efi", "u/more/shimx64.efi")]
    entries.append(Entry(BootPath("u/boot.efi"), "link", 1, target="grubx64.efi"))
    assert shapes.loaders(entries, "u") == [BootPath("u/grubx64.efi"), BootPath("u/boot.efi")]


def test_a_host_s_directory_leads_to_the_loaders_of_its_system() -> None:
    at = "bootloader-universe/pxegrub2/ubuntu/default/x86_64"
    found = [BootPath(f"{at}/shimx64.efi"), BootPath(f"{at}/grubx64.efi")]
    assert shapes.linked(MAC, Loader("x64"), found) == [
        RemoveBelow(BootPath(f"{OWN}/grub2"), ".efi", directly=True),
        Link(BootPath(f"{OWN}/grub2/grubx64.efi"), f"../../../{at}/grubx64.efi"),
        Link(BootPath(f"{OWN}/grub2/shimx64.efi"), f"../../../{at}/shimx64.efi"),
    ]


def test_without_any_it_leads_to_those_of_all_hosts_under_two_names_each() -> None:
    links = {c.path.name: c.target for c in shapes.linked(MAC, Loader("aa64"), []) if isinstance(c, Link)}
    assert links == {
        "boot.efi": "../../../grub2/grubaa64.efi",
        "grubaa64.efi": "../../../grub2/grubaa64.efi",
        "boot-sb.efi": "../../../grub2/shimaa64.efi",
        "shimaa64.efi": "../../../grub2/shimaa64.efi",
    }


def test_of_a_foreman_that_says_nothing_no_loader_is_known() -> None:
    assert shapes.linked(MAC, Loader(), []) == [RemoveBelow(BootPath(f"{OWN}/grub2"), ".efi", directly=True)]


@pytest.mark.parametrize(
    ("prefix", "url", "path"),
    [
        ("boot/centos-mirror-Yd", "http://m.test/c/7/images/pxeboot/vmlinuz", "boot/centos-mirror-Yd-vmlinuz"),
        ("boot/", "http://m.test/initrd.img", "boot/initrd.img"),
        ("boot//x", "http://m.test/a/", "boot/x-a"),
        ("boot/../x", "http://m.test/a", "x-a"),
        ("/srv/boot/x", "http://m.test/a", "x-a"),
    ],
)
def test_a_fetched_file_is_called_by_the_prefix_and_the_last_part_of_its_url(prefix: str, url: str, path: str) -> None:
    assert shapes.destination(ROOT, prefix, url) == BootPath(path)


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("../x", "http://m.test/a"),
        ("/etc/x", "http://m.test/a"),
        ("/srv/boot-other/x", "http://m.test/a"),
        ("/srv/boot/../boot2/x", "http://m.test/a"),
        ("../", "http://m.test/a"),
        ("a\0", "http://m.test/a"),
        ("a/", "http://m.test/.."),
        ("boot/x", "///"),
        ("//etc/x", "http://m.test/a"),
    ],
)
def test_no_fetched_file_is_put_outside_of_the_tree(prefix: str, url: str) -> None:
    with pytest.raises(Rejected, match="outside of tftproot"):
        shapes.destination(ROOT, prefix, url)


@pytest.mark.parametrize(
    ("prefix", "url"), [(".muster/x", "http://m.test/a"), ("a", "http://m.test/ü"), ("x" * 300, "h:/a")]
)
def test_a_fetched_file_has_a_path_of_a_boot_file(prefix: str, url: str) -> None:
    with pytest.raises(Rejected, match="is no path of a boot file"):
        shapes.destination(ROOT, prefix, url)


_ANY = st.text(max_size=60) | st.lists(
    st.sampled_from(["..", ".", "/", "a", "srv", "boot", "\0", "//", ".muster", "-"])
).map("".join)


@given(_ANY, _ANY)
def test_no_prefix_and_url_lead_out_of_the_tree(prefix: str, url: str) -> None:
    try:
        found = shapes.destination(ROOT, prefix, url)
    except Rejected:
        return
    stands_at = posixpath.normpath(f"{ROOT}/{found}")
    assert stands_at.startswith(f"{ROOT}/")
    assert stands_at == f"{ROOT}/{found}"
    assert not stands_at.startswith(f"{ROOT}/.muster/")


@given(_ANY, st.sampled_from(sorted(shapes.VARIANTS)))
def test_no_hardware_address_leads_out_of_the_tree(mac: str, variant: str) -> None:
    try:
        whose = shapes.mac(mac)
    except Denied:
        return
    for name in shapes.VARIANTS[variant].hosts(whose):
        BootPath.parse(name)


@given(st.dictionaries(st.sampled_from(["bootfile_suffix", "targetos", "release", "arch"]), _ANY))
def test_no_operating_system_leads_out_of_the_tree(form: dict[str, str]) -> None:
    try:
        loader = Loader.of(given_form(**form))
    except MusterError:
        return
    for place in loader.places:
        assert BootPath.parse(place).is_below("bootloader-universe/pxegrub2")
    for change in shapes.linked(MAC, loader, []):
        if isinstance(change, Link):
            target = posixpath.normpath(posixpath.join("/root", change.path.parent, change.target))
            assert target.startswith("/root/grub2/")


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("HTTP://x/a", "http"), ("nfs:srv:/a", "nfs"), ("/a/b", ""), ("", ""), ("file:///etc/passwd", "file")],
)
def test_a_scheme_is_what_stands_before_the_colon(url: str, scheme: str) -> None:
    assert shapes.scheme(url) == scheme


def test_a_url_is_shown_without_who_asks() -> None:
    assert shapes.without_password("gopher://u:p@m.test/a@b") == "gopher://m.test/a@b"
    assert shapes.without_password("gopher://m.test/a@b") == "gopher://m.test/a@b"


def test_a_fetch_is_told_with_all_that_is_known() -> None:
    assert shapes.of_fetch(Fetch(BootPath("a"), "http://m.test/a", "failed", "proxy01", 3, None, "it is gone", 1.5)) == {
        "path": "a", "url": "http://m.test/a", "state": "failed", "member": "proxy01", "done_bytes": 3,
        "total_bytes": None, "why": "it is gone", "started_at": 1.5, "ended_at": None,
    }  # fmt: skip
