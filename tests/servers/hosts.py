"""Hosts that boot: Debian 12 under its own systemd, on a network segment of their own, gone with the block. Needs root.

Each is a container of systemd-nspawn from one root directory, of which none changes anything: what is written is kept in
memory. They are reached by SSH, as an administrator's hosts are, from a place on the segment that is none of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.servers import namespaces

KEY = "root/key"
_BOOT_S = 90.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Host:
    """One booted host.

    Attributes:
        outside: from where it is reached.
        key: of root there.
    """

    name: str
    address: str
    outside: namespaces.Host
    key: Path

    def run(self, *command: str | Path, given: bytes = b"", timeout_s: float = 120.0) -> str:
        """Run a command there as root and return what it printed; a status that is not zero fails the test."""
        done = self.tried(*command, given=given, timeout_s=timeout_s)
        assert done.returncode == 0, f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def tried(
        self, *command: str | Path, given: bytes = b"", timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """As :meth:`run`, whatever the status is."""
        ssh = self.outside.command("ssh", *ssh_options(self.key), f"root@{self.address}", shlex.join(map(str, command)))
        done = subprocess.run(ssh, input=given, capture_output=True, timeout=timeout_s, check=False)
        out, err = (said.decode("utf-8", "replace") for said in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(ssh, done.returncode, out, err)

    def put(self, place: str | Path, content: str | bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        """Write a file there, and the directories it lies in."""
        given = content.encode() if isinstance(content, str) else content
        self.run("install", "-D", "-m", f"{mode:o}", "-o", owner, "/dev/stdin", place, given=given)

    def journal(self, unit: str, lines: int = 200) -> str:
        """Return the last lines of a unit's log."""
        return self.run("journalctl", "--no-pager", "--output=short-precise", f"--lines={lines}", f"--unit={unit}")


def ssh_options(key: Path) -> list[str]:
    """Return the options by which ssh knows the key, and believes every host: none of them is there for long."""
    known = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    return [word for one in known for word in ("-o", one)] + ["-i", str(key), "-o", "ConnectTimeout=10"]


@contextlib.contextmanager
def booted(
    root: Path, *names: str, network: str = "10.231.8", also: Mapping[str, str] | None = None
) -> Iterator[tuple[namespaces.Host, list[Host]]]:
    """Hold hosts running, which know each other by name; with them the place outside, from which they are reached.

    Args:
        root: of ``debian.of_hosts``.
        names: of the hosts; their addresses are ``network``.12 and up, the place outside has ``network``.11.
        also: further names and their addresses.
    """
    labels = [f"h{n}" for n in range(len(names))]
    with contextlib.ExitStack() as stack:
        outside, *places = stack.enter_context(namespaces.segment("outside", *labels, network=network))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-hosts-")))
        table = directory / "hosts"
        known = {**{n: p.address for n, p in zip(names, places, strict=True)}, **(also or {})}
        lines = [f"{address} {name} {name.partition('.')[0]}" for name, address in known.items()]
        table.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        hosts = [Host(n, p.address, outside, root / KEY) for n, p in zip(names, places, strict=True)]
        for host, place in zip(hosts, places, strict=True):
            stack.enter_context(_running(root, host, place.namespace, table, directory / f"{place.namespace}.log"))
        limit = time.monotonic() + _BOOT_S
        for host in hosts:
            _wait_for(host, limit, directory)
        yield outside, hosts


@contextlib.contextmanager
def _running(root: Path, host: Host, namespace: str, table: Path, log: Path) -> Iterator[None]:
    nspawn = [
        "systemd-nspawn", f"--directory={root}", "--boot", "--volatile=overlay", "--register=no", "--keep-unit",
        f"--network-namespace-path=/run/netns/{namespace}", f"--machine={namespace}", f"--hostname={host.name}",
        f"--bind-ro={table}:/etc/hosts", "--resolv-conf=off", "--console=read-only",
        # As on a host of one's own: addresses move, and packet filters are set.
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
    ]  # fmt: skip
    # nspawn that is killed leaves its host running; with this its processes end with the first of them.
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*alone, *nspawn], stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=_killed_with_parent
        )
    try:
        yield
    finally:
        process.kill()
        process.wait(30)


def _killed_with_parent() -> None:
    # unshare lets nothing but KILL end it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for(host: Host, limit: float, logs: Path) -> None:
    """Return when the host lets root in and has started what it starts."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            said = host.tried("systemctl", "is-system-running", "--wait", timeout_s=60)
            if said.stdout.strip() in ("running", "degraded"):
                return
        if time.monotonic() > limit:
            texts = "\n".join(f"{log.name}:\n{log.read_text('utf-8', 'replace')[-2000:]}" for log in logs.glob("*.log"))
            raise AssertionError(f"{host.name} did not boot: {said.stdout}{said.stderr}\n{texts}")
        time.sleep(0.3)
