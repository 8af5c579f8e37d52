"""Which files a boot loader asks for, by its kind and a host's hardware address; and what may stand in their names.

Source: docs/facts/smart-proxy-protocol.md §9.1, §9.2, §9.4, recorded in ``tests/wire/recorded/smart-proxy/tftp.jsonl``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.kernel.errors import Denied, Rejected
from muster.kernel.names import MACAddress, shown
from muster.netboot.contract import BootPath, Change, Entry, Fetch, Link, Put, Remove, RemoveBelow

# Colons alone and two digits each, as Foreman writes them. Ruby takes single digits, too, for a name that no loader asks.
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}(?:(?::[0-9A-Fa-f]{2}){14})?\Z")
# What a directory of the universe, or the end of a loader's name, may be called.
_WORD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}\Z")
_LOADER = ".efi"
_UNIVERSE = "bootloader-universe/pxegrub2"
_TO_ROOT = "../../.."
_USERINFO = re.compile(r"//[^/?#]*@")
FETCHED = ("http", "https", "ftp")
LIMIT_BYTES = 1 << 20
"""What a configuration may have; Foreman's have a few thousand."""


@dataclass(frozen=True)
class Variant:
    """A kind of boot loader.

    Attributes:
        hosts: the files of a host, the one that is read first.
        defaults: those of hosts that have none; empty: there cannot be one.
        has_directory: whether each host has a directory of its own with its boot loader.
    """

    hosts: Callable[[MACAddress], tuple[str, ...]]
    defaults: tuple[str, ...]
    has_directory: bool = False


def _dashed(mac: MACAddress) -> str:
    return mac.replace(":", "-")


def _bare(mac: MACAddress) -> str:
    return mac.replace(":", "").upper()


def _grub2(mac: MACAddress) -> tuple[str, ...]:
    shared = (f"grub.cfg-01-{_dashed(mac)}", f"grub.cfg-{mac}")
    own = f"{directory_of(mac)}/grub2"
    return (*(f"{own}/{name}" for name in ("grub.cfg", *shared)), *(f"grub2/{name}" for name in shared))


def directory_of(mac: MACAddress) -> BootPath:
    """Return the directory with a host's own boot loader."""
    return BootPath.parse(f"host-config/{_dashed(mac)}")


_PXELINUX = Variant(lambda mac: (f"pxelinux.cfg/01-{_dashed(mac)}",), ("pxelinux.cfg/default",))
# In the words that Ruby makes of what is asked. It has no Pxegrub since 3.17: Foremans before send it, later ones do not.
VARIANTS: Mapping[str, Variant] = {
    "Syslinux": _PXELINUX,
    "Pxelinux": _PXELINUX,
    "Pxegrub": Variant(
        lambda mac: (f"grub/menu.lst.01{_bare(mac)}", f"grub/01-{_dashed(mac).upper()}"),
        ("grub/menu.lst", "grub/efidefault"),
    ),
    "Pxegrub2": Variant(_grub2, ("grub2/grub.cfg",), has_directory=True),
    # Of these two Ruby's default has the name of the directory of all hosts, and whichever comes first keeps the other out.
    "Ztp": Variant(lambda mac: (f"ztp.cfg/{_bare(mac)}", f"ztp.cfg/{_bare(mac)}.cfg"), ()),
    "Poap": Variant(lambda mac: (f"poap.cfg/{_bare(mac)}",), ()),
    "Ipxe": Variant(lambda mac: (f"pxelinux.cfg/01-{_dashed(mac)}.ipxe",), ("pxelinux.cfg/default.ipxe",)),
}


def mac(text: str) -> MACAddress:
    """Return the hardware address of a path: 6 or 20 octets of two digits, with colons.

    Raises:
        Denied: it is none.
    """
    if not _MAC.match(text):
        raise Denied(f"Invalid MAC address: {shown(text)}")
    return MACAddress.parse(text)


def variant(text: str) -> Variant:
    """Return the kind of boot loader that a path names, in whatever case.

    Raises:
        Denied: there is none of that name.
    """
    found = VARIANTS.get(name := text.capitalize())
    if found is None:
        raise Denied(f"Unrecognized pxeboot config type: {shown(name)}")
    return found


def written(names: Iterable[str], text: str) -> list[Change]:
    """Return what gives all of the files this text.

    Raises:
        Rejected: it is longer than a file may be.
    """
    content = text.encode()
    if len(content) > LIMIT_BYTES:
        raise Rejected(f"the file would be larger than {LIMIT_BYTES >> 20} MiB")
    return [Put(BootPath.parse(name), content) for name in names]


def removed(kind: Variant, whose: MACAddress) -> list[Change]:
    """Return what takes a host's files away, and its directory with all that is in it."""
    own = directory_of(whose)
    files = [path for name in kind.hosts(whose) if not (path := BootPath.parse(name)).is_below(str(own))]
    return [*([RemoveBelow(own)] if kind.has_directory else []), *(Remove(path) for path in files)]


@dataclass(frozen=True)
class Loader:
    """Which boot loader a host of an operating system needs, as far as Foreman says it.

    Attributes:
        suffix: of the loaders' names: ``x64`` for ``grubx64.efi``; empty: Foreman, before 3.14, says nothing.
        system, release, architecture: empty: the same.
    """

    suffix: str = ""
    system: str = ""
    release: str = ""
    architecture: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str | None]) -> Loader:
        """Return what stands in a form.

        Raises:
            Rejected: one of the four is no name of a directory or file.
        """
        names = ("bootfile_suffix", "targetos", "release", "arch")
        for name in names:
            if (text := given[name]) and not _WORD.match(text):
                raise Rejected(f"{name} {shown(text)} is no name: letters, digits, _, - and . may stand there")
        return cls(*(given[name] or "" for name in names))

    @property
    def places(self) -> tuple[str, ...]:
        """The directories of the tree in which loaders of that operating system may lie; the first that has any counts."""
        if not (self.system and self.release and self.architecture):
            return ()
        at = [f"{_UNIVERSE}/{self.system}/{release}/{self.architecture}" for release in (self.release, "default")]
        return tuple(dict.fromkeys(at))


def loaders(entries: Sequence[Entry], place: str) -> list[BootPath]:
    """Return the boot loaders that lie in a directory itself."""
    return [e.path for e in entries if e.path.parent == place and e.path.name.endswith(_LOADER)]


def linked(whose: MACAddress, loader: Loader, found: Sequence[BootPath]) -> list[Change]:
    """Return what makes a host's directory lead to its boot loaders, and to no others.

    ``found``: those of its operating system. Where there are none it gets those that all hosts share, which may be absent,
    under two names each: Foremans differ in which one they tell hosts.
    """
    own = f"{directory_of(whose)}/grub2"
    to = {path.name: f"{_TO_ROOT}/{path}" for path in found}
    if not to and loader.suffix:
        for name, other in (("grub", "boot"), ("shim", "boot-sb")):
            at = f"{name}{loader.suffix}{_LOADER}"
            to[f"{other}{_LOADER}"] = to[at] = f"{_TO_ROOT}/grub2/{at}"
    links = [Link(BootPath.parse(f"{own}/{name}"), target) for name, target in sorted(to.items())]
    return [RemoveBelow(BootPath.parse(own), _LOADER, directly=True), *links]


def scheme(url: str) -> str:
    """Return the scheme of a URL in lower case, empty when it has none."""
    head, colon, _ = url.partition(":")
    return head.lower() if colon else ""


def destination(root: Path, prefix: str, url: str) -> BootPath:
    """Return where a fetched file goes: what the prefix and the last part of the URL make together.

    Raises:
        Rejected: that is outside of the tree, or no path of a boot file.
    """
    name = url.rstrip("/").rpartition("/")[2]
    joined = prefix + name if prefix.endswith("/") else f"{prefix}-{name}"
    # As Ruby: from the root, whatever dots lead to, and an absolute path where it ends up in the root.
    whole = posixpath.normpath(posixpath.join("/", str(root), joined))
    below = f"{posixpath.normpath(str(root))}/"
    if not name or "\0" in whole or not whole.startswith(below):
        raise Rejected("TFTP destination outside of tftproot")
    return BootPath.parse(whole.removeprefix(below))


def without_password(url: str) -> str:
    """Return a URL as it may be shown and logged."""
    return shown(_USERINFO.sub("//", url, count=1), 200)


def of_fetch(fetch: Fetch) -> dict[str, Any]:
    """Return one fetch as JSON: times in seconds since the epoch, sizes in bytes, what is not known null."""
    return {
        "path": str(fetch.path),
        "url": fetch.url,
        "state": fetch.state,
        "member": fetch.member,
        "done_bytes": fetch.done_bytes,
        "total_bytes": fetch.total_bytes,
        "why": fetch.why,
        "started_at": fetch.started_at,
        "ended_at": fetch.ended_at,
    }
