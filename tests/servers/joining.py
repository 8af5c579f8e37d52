"""A host that joins a cluster: this machine seen by programs that may change it, and nothing of that stays.

``/etc``, ``/usr/local`` and ``/var`` are this machine's with a layer on top, in a mount namespace that ends with the block;
needs root. Debian 12 has no subscription-manager: a stand-in records how it is called, and does of ``config`` what rhsm.conf
shows of the real one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from muster.client import bootstrap
from muster.kernel.process import clean_environment

PROGRAM = Path(bootstrap.__file__)
STEPS = ("fsync", "replace", "unlink", "mkdir", "rename", "rmdir")
_RUN_S = 120.0
_LAYERED = ("/etc", "/usr/local", "/var")
# Paths and names reach the shell as arguments only.
_MADE = """
set -e
mount -t tmpfs layers "$1" && hosts="$2" && shift 2
for below in "$@"; do
  mkdir -p "$0$below/over" "$0$below/work"
  mount -t overlay over -o "lowerdir=$below,upperdir=$0$below/over,workdir=$0$below/work" "$below"
done
cp "$hosts" /etc/hosts
echo made
exec sleep 100000
"""
# It is run by any Python that the program is run by, and ends it before the step of that number.
ENDED = """
import os, runpy, sys
left = int(sys.argv[1])
def counted(call):
    def step(*given, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return call(*given, **named)
    return step
for name in sys.argv[2].split(","):
    setattr(os, name, counted(getattr(os, name)))
del sys.argv[:3]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# A stand-in: what the real one does besides is not tested with it.
SUBSCRIPTION_MANAGER = """\
#!/usr/bin/python3
import configparser, sys
with open("/var/log/subscription-manager.calls", "a") as log:
    print(*sys.argv[1:], file=log)
if sys.argv[1] == "config":
    read = configparser.RawConfigParser()
    read.read("/etc/rhsm/rhsm.conf")
    for word in sys.argv[2:]:
        key, _, value = word[2:].partition("=")
        section, _, name = key.partition(".")
        read.has_section(section) or read.add_section(section)
        read.set(section, name, value)
    with open("/etc/rhsm/rhsm.conf", "w") as out:
        read.write(out)
"""


@dataclass(frozen=True)
class Said:
    """What a run of a program came to."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.text}"


@dataclass(frozen=True)
class JoiningHost:
    """A host of its own. Use :func:`running`."""

    pid: int

    @property
    def root(self) -> Path:
        """Where its files are to be seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, *command: str | Path, **variables: str) -> Said:
        """Run a program there."""
        return ran("nsenter", "--mount", f"--target={self.pid}", *command, **variables)

    def join(self, *arguments: str | Path, python: str | Path = sys.executable, **variables: str) -> Said:
        """Run muster-bootstrap there."""
        return self.run(python, PROGRAM, *arguments, **variables)

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file


@contextlib.contextmanager
def running(directory: Path, hosts: Mapping[str, str], *also: str) -> Iterator[JoiningHost]:
    """Yield a host that knows these names and addresses; ``also`` are other directories in which it may change things."""
    directory.mkdir(parents=True, exist_ok=True)
    layers, names = directory / "layers", directory / "hosts"
    layers.mkdir()
    names.write_text("".join(["127.0.0.1 localhost\n", *(f"{address} {name}\n" for name, address in hosts.items())]))
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _MADE, layers, layers, names, *_LAYERED, *also],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "made\n", said + process.stdout.read()
        yield JoiningHost(process.pid)
    finally:
        process.kill()
        process.wait()


def ran(*command: str | Path, **variables: str) -> Said:
    """Run a program to its end."""
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=_RUN_S, check=False,
        env=clean_environment({"PATH": f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:{os.defpath}", **variables}),
    )  # fmt: skip
    return Said(done.returncode, done.stdout.decode("utf-8", "replace"))


def tree(root: Path, *below: str) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Return every file below directories: mode, owner, group, time and bytes; directories and links without their time."""
    found = {}
    for directory in below or ("",):
        for path in sorted((root / directory.lstrip("/")).rglob("*")):
            seen = path.lstat()
            is_file = stat.S_ISREG(seen.st_mode)
            content = path.read_bytes() if is_file else os.fsencode(path.readlink()) if path.is_symlink() else b""
            found[f"/{path.relative_to(root)}"] = (
                seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns if is_file else 0, content,
            )  # fmt: skip
    return found
