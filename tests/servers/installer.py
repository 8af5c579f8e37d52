"""The smallest installer: Linux and an initramfs that asks for its template, does what that says, and powers off.

The kernel is Debian's (scripts/kernel), the rest is busybox and a script. Of its command line it takes ``muster.templates``,
where templates are, and ``muster.token``.
"""

from __future__ import annotations

import gzip
import stat
from pathlib import Path

KERNEL = Path(__file__).parents[2] / ".kernel"
BUSYBOX = Path("/bin/busybox")
# Each after those it needs.
_MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net"),
)
_PROGRAMS = ("sh", "mount", "insmod", "ip", "udhcpc", "wget", "cat", "echo", "sed", "sleep", "poweroff", "tr")

# What it says on the console begins with this word.
SAYS = "installer:"

_INIT = f"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
say() {{ echo "{SAYS} $*"; }}
given() {{ tr ' ' '\\n' </proc/cmdline | sed -n "s/^$1=//p"; }}
end() {{ say "$*"; poweroff -f; }}
say "Linux runs"
for module in {" ".join(_MODULES)}; do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
udhcpc -i eth0 -n -q -t 10 -T 2 -s /lease || end "no address"
url=$(given muster.templates) token=$(given muster.token)
wget -q -O /template "$url/unattended/provision?token=$token" || end "no template"
say "has a template"
export url token
sh /template || end "the template failed"
end "done"
"""

_LEASE = f"""#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev $interface
[ -n "$router" ] && ip route add default via $router
echo "{SAYS} has address $ip of $serverid, siaddr $siaddr, file $boot_file, hostname $hostname"
exit 0
"""


def missing() -> str | None:
    """Return why there is no such installer here."""
    # A program that needs libraries names its loader at its head.
    if not BUSYBOX.exists() or b"/ld-linux" in BUSYBOX.read_bytes()[:4096]:
        return "no busybox that needs no libraries (Debian package busybox-static)"
    return None if (KERNEL / ".made").exists() else "no kernel to boot in .kernel (scripts/kernel)"


def kernel() -> bytes:
    return (KERNEL / "vmlinuz").read_bytes()


def initramfs() -> bytes:
    """Return it as the kernel reads it: files one after another in cpio's form newc, compressed."""
    archive = _Archive()
    for directory in ("bin", "dev", "proc", "modules"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes())
    for program in _PROGRAMS:
        archive.add(f"bin/{program}", stat.S_IFLNK | 0o777, b"busybox")
    for module in _MODULES:
        archive.add(f"modules/{module}.ko", stat.S_IFREG | 0o644, (KERNEL / "modules" / f"{module}.ko").read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, _INIT.encode())
    archive.add("lease", stat.S_IFREG | 0o755, _LEASE.encode())
    return gzip.compress(archive.whole(), 6, mtime=0)


class _Archive:
    """Form newc, as the kernel's documentation of initramfs buffers has it: a header in hexadecimal, name, content."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._entries = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        self._entries += 1
        spelled = name.encode() + b"\0"
        # Inode, mode, owner, group, links, time, size, device (2), of a device file (2), length of the name, checksum.
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(spelled), 0)
        header = b"070701" + b"".join(b"%08X" % f for f in fields)
        self._parts += [_padded(header + spelled), _padded(content)]

    def whole(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)
