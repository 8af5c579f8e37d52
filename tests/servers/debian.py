"""Root directories of Debian 12, and the packages of Muster that are installed there. Needs root."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIRROR = "http://deb.debian.org/debian"
# What a host of a cluster has besides what Debian itself installs; nothing of it starts by itself.
_OF_HOSTS = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "procps"),
    *("python3", "python3-apt", "libpq5", "ca-certificates", "openssl", "haproxy", "keepalived", "postgresql"),
)
_STILL = ("haproxy", "keepalived", "postgresql", "apt-daily.timer", "apt-daily-upgrade.timer")


def run(*command: str | Path, timeout_s: float = 600.0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def inside(root: Path, *command: str) -> list[str]:
    """Return the command that runs another in there, with a /proc that ends with it."""
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, str(root), *command]


def bare(root: Path) -> None:
    """Make the least Debian 12 there is; nothing but what its own installer needs."""
    run("debootstrap", "--variant=minbase", "bookworm", root, MIRROR)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")


def of_hosts(root: Path, of: Path) -> None:
    """Make one that boots, from a bare one: it lets root in by the key beside it (``NAME.key``), and starts nothing else."""
    run("cp", "--archive", of, root)
    policy = root / "usr" / "sbin" / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    install = (
        f"apt-get update -q && apt-get install -y -q --no-install-recommends {' '.join(_OF_HOSTS)} && apt-get clean"
    )
    run(*inside(root, "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", install))
    policy.unlink()
    run("systemctl", f"--root={root}", "--quiet", "disable", *_STILL)
    # Each is told its own.
    (root / "etc" / "hostname").unlink(missing_ok=True)
    # Nobody answers there, and a question that is asked costs seconds.
    (root / "etc" / "resolv.conf").write_text("")
    key = root / "root" / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f", key)
    # Some of the packages may have made it.
    (root / "root" / ".ssh").mkdir(mode=0o700, exist_ok=True)
    key.with_suffix(".pub").rename(root / "root" / ".ssh" / "authorized_keys")


def packages(to: Path) -> None:
    """Build Muster's deb and rpm, packed less tightly than those that are shipped."""
    run("env", "MUSTER_PACKED=quick", ROOT / "scripts" / "packaged", to, timeout_s=1200)


def unpacked(deb: Path, to: Path) -> Path:
    """Return the directory where a package is unpacked, for :func:`repacked`."""
    run("dpkg-deb", "--raw-extract", deb, to)
    return to


def repacked(tree: Path, version: str, to: Path, *, breaks: bool = False) -> Path:
    """Return an unpacked package with another version, of the program and of the package; one that breaks serves nothing."""
    control = tree / "DEBIAN" / "control"
    before = next(line for line in control.read_text().splitlines() if line.startswith("Version: "))
    control.write_text(control.read_text().replace(before, f"Version: {version}"))
    program = tree / "usr/lib/muster/lib/python3.11/site-packages/muster"
    _written_anew(program / "version.py", f'"""Muster\'s own version."""\n\nVERSION = "{version}"\n')
    member = program / "app" / "member.py"
    serves = member.read_text()
    if breaks:
        _written_anew(member, 'raise SystemExit("broken on purpose")\n')
    built = to / f"muster_{version}.deb"
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, built)
    member.write_text(serves)
    return built


def _written_anew(module: Path, text: str) -> None:
    module.write_text(text)
    # What was compiled before is not compared with it.
    (module.parent / "__pycache__" / f"{module.stem}.cpython-311.pyc").unlink(missing_ok=True)
