"""A boot loader for UEFI, put together of Debian's GRUB: it has what it needs to go on by TFTP and HTTP."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_MODULES = Path("/usr/lib/grub/x86_64-efi")
_NEEDED = (
    "efinet",
    "tftp",
    "http",
    "net",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
    "echo",
    "test",
    "sleep",
)
_SIGNED = Path(__file__).parents[2] / ".kernel" / "signed"
_LONGEST_S = 60.0


def missing() -> str | None:
    """Return why it cannot be put together here."""
    if shutil.which("grub-mkimage") is None:
        return "no grub-mkimage on this machine (Debian package grub-common)"
    if not (_SIGNED / "grubx64.efi").exists():
        return "no boot loaders for Secure Boot in .kernel (scripts/kernel)"
    return None if _MODULES.exists() else "no GRUB for UEFI (Debian package grub-efi-amd64-bin)"


def grub(directory: Path, prefix: str = "/grub2") -> bytes:
    """Return ``grubx64.efi``, which looks for ``grub.cfg`` and its like below a path, at the server that it came from."""
    made = directory / "grubx64.efi"
    subprocess.run(
        ["grub-mkimage", "-O", "x86_64-efi", "-d", _MODULES, "-p", prefix, "-o", made, *_NEEDED],
        check=True, capture_output=True, timeout=_LONGEST_S,
    )  # fmt: skip
    return made.read_bytes()


def signed(name: str) -> bytes:
    """Return Debian's own ``shimx64.efi`` or ``grubx64.efi``, which Secure Boot lets run."""
    return (_SIGNED / name).read_bytes()
