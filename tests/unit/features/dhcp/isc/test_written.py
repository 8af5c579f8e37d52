"""A reservation's options in dhcpd's words (``features/dhcp/isc/written.py``)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.dhcp.isc.written import statements
from muster.kernel.errors import Rejected

# What dhcpd takes in any order, as tests/contract/test_dhcp_omapi.py shows: octets or a quoted text, and a semicolon.
_ONE = r'(?:option [A-Za-z0-9_.-]+ = |filename = |next-server = )(?:"[^"\\]*"|(?:[0-9a-f]{2}:){3}[0-9a-f]{2});'
_SURE = re.compile(rf"(?:(?:{_ONE}|vendor-option-space SUNW;)(?: |\Z))*\Z")


def written(**options: object) -> str:
    return statements(options, {"tftp.example.com": IPv4Address("10.1.2.3")}.get)


def test_a_host_has_a_boot_file_a_server_as_octets_and_a_name() -> None:
    said = written(
        hostname="h1.example.com", hardware_type="ethernet", filename="grub2/grubx64.efi", nextServer="10.1.2.3"
    )
    assert said == ('filename = "grub2/grubx64.efi"; next-server = 0a:01:02:03; option host-name = "h1.example.com";')


def test_of_no_options_there_is_nothing_to_say() -> None:
    assert written() == ""
    assert written(hostname="h1", filename="", nextServer=None, architecture="x86_64") == 'option host-name = "h1";'


def test_a_next_server_given_by_name_is_its_address() -> None:
    assert written(nextServer="tftp.example.com") == "next-server = 0a:01:02:03;"


def test_a_next_server_without_an_address_is_refused_because_dhcpd_would_drop_it() -> None:
    with pytest.raises(Rejected, match=r"Next server gone\.example\.com has no IPv4 address"):
        written(nextServer="gone.example.com")


@pytest.mark.parametrize("bad", ['a"b', "a\\b", "a\nb", "café", "x" * 256, "a\0", 7, ["a"]], ids=repr)
def test_a_text_that_dhcpds_leases_file_could_not_hold_is_refused(bad: object) -> None:
    with pytest.raises(Rejected, match="Invalid filename"):
        written(filename=bad)


@pytest.mark.parametrize("vendor", ["Sun-Fire-V210", "SUN", "Solaris", "sparc-Enterprise-T5120"])
def test_what_is_given_for_suns_machines_goes_into_suns_option_space(vendor: str) -> None:
    options = {
        f"<{vendor}>root_server_ip": "10.1.2.3",
        f"<{vendor}>root_server_hostname": "jump",
        f"<{vendor}>root_path_name": "/vol/root",
        f"<{vendor}>install_server_ip": "10.1.2.4",
        f"<{vendor}>install_server_name": "inst",
        f"<{vendor}>install_path": "inst:/vol",
        f"<{vendor}>sysid_server_path": "jump:/sysid",
        f"<{vendor}>jumpstart_server_path": "jump:/js",
    }
    assert written(**options) == (
        "option SUNW.root-server-ip-address = 0a:01:02:03; "
        'option SUNW.root-server-hostname = "jump"; '
        'option SUNW.root-path-name = "/vol/root"; '
        "option SUNW.install-server-ip-address = 0a:01:02:04; "
        'option SUNW.install-server-hostname = "inst"; '
        'option SUNW.install-path = "inst:/vol"; '
        'option SUNW.sysid-config-file-server = "jump:/sysid"; '
        'option SUNW.JumpStart-server = "jump:/js"; '
        "vendor-option-space SUNW;"
    )


def test_what_is_given_for_other_vendors_or_unknown_is_not_said() -> None:
    options = {"<Cisco>root_path_name": "/a", "<Sun>nothing": "b", "root_path_name": "/c", "sunw": "d"}
    assert written(hostname="h1", **options) == 'option host-name = "h1";'


def test_an_address_for_suns_machines_has_to_be_one() -> None:
    with pytest.raises(Rejected, match="Invalid root_server_ip jump"):
        written(**{"<Sun>root_server_ip": "jump"})


def test_a_switch_with_zero_touch_provisioning_is_told_its_configuration_and_firmware() -> None:
    firmware = {"core": "core.cc", "web": "web.7z"}
    said = written(filename="ZTP.cfg/a", nextServer="10.1.2.3", ztp_vendor="huawei", ztp_firmware=firmware)
    assert said == (
        'filename = "ZTP.cfg/a"; next-server = 0a:01:02:03; option option-150 = 0a:01:02:03; '
        'option FM_ZTP.config-file-name = "ZTP.cfg/a"; option option-143 = "vrpfile=core.cc;webfile=web.7z;";'
    )
    assert "143" not in written(filename="ztp.cfg", ztp_vendor="other", ztp_firmware=firmware)
    assert "143" not in written(filename="pxelinux.0", ztp_vendor="huawei", ztp_firmware=firmware)


def test_a_switch_with_power_on_provisioning_is_told_its_server_by_the_name_given() -> None:
    said = written(filename="poap.cfg", nextServer="tftp.example.com")
    assert said == (
        'filename = "poap.cfg"; next-server = 0a:01:02:03; option tftp-server-name = "tftp.example.com"; '
        'option bootfile-name = "poap.cfg";'
    )


_KEYS = st.sampled_from(
    ["hostname", "filename", "nextServer", "<Sun>install_path", "<sun>root_server_ip", "ztp_vendor"]
)
_VALUES = st.one_of(
    st.text('ab1 .:;=<>%"\\\n\0é', max_size=20),
    st.sampled_from(["ztp.cfg", "poap.cfg", "huawei", "10.1.2.3", '";', "\\"]),
)


@given(st.dictionaries(_KEYS, _VALUES), st.dictionaries(st.sampled_from(["core", "web"]), _VALUES))
def test_whatever_is_given_is_refused_or_written_in_the_form_that_dhcpd_does_not_drop(
    options: dict[str, str], firmware: dict[str, str]
) -> None:
    try:
        said = statements({**options, "ztp_firmware": firmware}, lambda _: IPv4Address("10.1.2.3"))
    except Rejected:
        return
    assert _SURE.match(said)
