"""``netboot.proxy_dhcp`` of the cluster file: what machines are told to boot, beside a DHCP server that does not say it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from muster.cluster.values import Interface
from muster.kernel.settings import Settings

_IPXE_URL = re.compile(r"https?://[A-Za-z0-9.:{}\[\]-]{1,255}/[A-Za-z0-9._~/?&=%:+,;@{}-]{0,200}\Z")
_PLACEHOLDER = re.compile(r"\{(?:address|port|mac)\}")
_IPXES = re.compile(r"ipxe|undionly", re.IGNORECASE)
# What stands in DHCP's field for it, with the zero behind it.
_LONGEST_FILE = 127


def _ipxe_url(value: str) -> str:
    if not _IPXE_URL.match(value) or set("{}") & set(_PLACEHOLDER.sub("", value)):
        raise ValueError("is no http(s)://HOST/PATH, in which {address}, {port} and {mac} may stand")
    return value


def _boot_file(value: str) -> str:
    if any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("is no path of a boot file: those are relative, of plain names")
    return value


BootFile = Annotated[
    str,
    StringConstraints(pattern=r"\A[A-Za-z0-9_.+/-]+\z", max_length=_LONGEST_FILE - len("/")),
    AfterValidator(_boot_file),
]
"""The path of a loader in the tree of boot files."""


class Loaders(Settings):
    """The loader of each architecture, in the tree of boot files. Null: its machines are told nothing."""

    bios: BootFile | None = "pxelinux.0"
    """PCs without UEFI."""
    efi32: BootFile | None = "grub2/grubia32.efi"
    """UEFI of 32 bits, x86."""
    efi64: BootFile | None = "grub2/grubx64.efi"
    """UEFI of 64 bits, x86."""
    arm32: BootFile | None = None
    """UEFI of 32 bits, ARM."""
    arm64: BootFile | None = "grub2/grubaa64.efi"
    """UEFI of 64 bits, ARM."""

    def of(self, word: str) -> str | None:
        """Return the loader of an architecture by its word here, None when it has none."""
        found: str | None = getattr(self, word)
        return found


class ProxyDHCP(Settings):
    """Members answer machines that boot from the network, beside a DHCP server that gives them addresses alone."""

    interfaces: tuple[Interface, ...] = ()
    """Network interfaces of every member on which questions are heard. Empty: all but the loopback one."""
    loaders: Loaders = Loaders()
    """What machines load first."""
    own_loaders: bool = True
    """Whether a host's own loader goes before, where Foreman has had one put into the tree
    (``host-config/MAC/grub2/boot.efi``)."""
    secure_boot: bool = False
    """Whether that is the one for Secure Boot, ``boot-sb.efi``, which machines without it load as well."""
    ipxe_url: Annotated[str, AfterValidator(_ipxe_url)] | None = "http://{address}:{port}/unattended/iPXE?mac={mac}"
    """What iPXE is told, whoever loaded it; ``{address}`` is the cluster's, ``{port}`` that of its
    Smart Proxy over plain HTTP, ``{mac}`` the machine's. Null: the loader of
    its architecture, as other firmware."""
    boot_server: Literal["virtual_address", "members"] | None = None
    """Where loaders come from by TFTP: the virtual address, or one of the ready members, the same for the same machine.
    Absent: the virtual address where all hosts that may have it are members, else members."""
    relays: bool = False
    """Whether relays pass machines' questions on to members. Each member then hears all of UDP port 67 on its host, which
    Kea there does not bear, nor dnsmasq unless it binds interfaces."""
    questions_per_s: Annotated[int, Field(ge=1, le=100_000)] = 200
    """How many questions a member answers in a second, all machines together; of one machine five."""

    @model_validator(mode="after")
    def _no_circle(self) -> Self:
        if self.ipxe_url is None:
            for word in Loaders.model_fields:
                if (loader := self.loaders.of(word)) is not None and _IPXES.search(loader):
                    raise ValueError(f"ipxe_url is null and loader {word} is iPXE: it would load itself for ever")
        return self
