from typing import Any

import pytest
from pydantic import ValidationError

from muster.cluster.proxy_dhcp import ProxyDHCP


@pytest.mark.parametrize(
    "given",
    [
        {"loaders": {"bios": "../etc/passwd"}},
        {"loaders": {"bios": "/pxelinux.0"}},
        {"loaders": {"bios": "a//b"}},
        {"loaders": {"bios": "a b"}},
        {"loaders": {"bios": "a\n"}},
        {"loaders": {"bios": "a" * 127}},
        {"loaders": {"powerpc": "a"}},
        {"interfaces": ["eth0;reboot"]},
        {"ipxe_url": "ftp://proxy.example.com/x"},
        {"ipxe_url": "http://proxy.example.com/{name}"},
        {"ipxe_url": "http://proxy.example.com/{mac"},
        {"ipxe_url": "http://proxy.example.com/x\n"},
        {"ipxe_url": None, "loaders": {"bios": "undionly.kpxe"}},
        {"ipxe_url": None, "loaders": {"efi64": "boot/iPXE-x64.efi"}},
        {"questions_per_s": 0},
    ],
)
def test_what_cannot_be_told_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ProxyDHCP.model_validate(given)


def test_ipxe_may_be_a_loader_where_it_is_told_a_script() -> None:
    assert ProxyDHCP.model_validate({"loaders": {"efi64": "ipxe.efi"}}).loaders.of("efi64") == "ipxe.efi"


def test_an_architecture_may_be_told_nothing() -> None:
    assert ProxyDHCP.model_validate({"loaders": {"bios": None}}).loaders.of("bios") is None
