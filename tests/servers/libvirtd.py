"""A real libvirtd with one network, in network and mount namespaces of its own. Needs root.

It keeps its files in one directory, so that another one that is started there finds them; as everywhere, the network's
dnsmasq goes on while libvirtd is away.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.available import sbin
from tests.servers.ending import ended
from tests.servers.machines import Told, asked
from tests.servers.namespaces import Host, segment

__all__ = ["NETWORK", "Libvirtd", "running"]

NETWORK = "muster"
_BRIDGE, _PORT = "virbr9", "eth1"
_LONGEST_START_S = 20.0
_numbers = itertools.count(1)
# What libvirtd takes for its own; nothing of this machine's is touched.
_START = """
for where in /etc/libvirt /var/lib/libvirt /var/log/libvirt /run; do
  mkdir -p "$where" "$0/root$where"
  mount --bind "$0/root$where" "$where"
done
exec "$1" --config "$0/libvirtd.conf" --pid-file "$0/pid"
"""


@dataclass
class Libvirtd:
    """A running ``libvirtd``. Use :func:`running`.

    Attributes:
        client: a host on the network.
    """

    directory: Path
    host: Host
    client: Host
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    # The kernel ends the server with the thread that started it, and a caller's may be one of a loop that ends before.
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "libvirtd"), repr=False)

    @property
    def url(self) -> str:
        return f"qemu:///system?socket={self.directory}/socket/libvirt-sock"

    @property
    def settings(self) -> dict[str, object]:
        """Settings of provider ``libvirt``."""
        return {"url": self.url, "network": NETWORK}

    @property
    def status(self) -> Path:
        """Where the network's dnsmasq has leases written, for libvirtd to read."""
        return self.directory / f"root/var/lib/libvirt/dnsmasq/{_BRIDGE}.status"

    def start(self) -> None:
        """Start it and return when it has answered."""
        assert self._process is None, "libvirtd runs"
        server = sbin("libvirtd")
        assert server is not None
        with (self.directory / "log").open("ab") as log:
            self._process = self._starter.submit(
                subprocess.Popen, self.host.command("unshare", "--mount", "bash", "-c", _START, str(self.directory), server),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), preexec_fn=end_with_parent,
            ).result()  # fmt: skip
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and self._process.poll() is None:
            if self.virsh("net-list").returncode == 0:
                return
            time.sleep(0.1)
        self.stop()
        raise AssertionError(
            f"libvirtd did not come up: {(self.directory / 'log').read_text('utf-8', 'replace')[-1500:]}"
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, unless it is stopped."""
        process, self._process = self._process, None
        ended(process, how)

    def virsh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run virsh."""
        command = ["virsh", "--quiet", f"--connect={self.url}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def define(self, definition: str) -> None:
        """Have the network, started, and a port of it for the client."""
        file = self.directory / "network.xml"
        file.write_text(definition)
        for arguments in (("net-define", str(file)), ("net-start", NETWORK)):
            done = self.virsh(*arguments)
            assert done.returncode == 0, done.stderr
        ip = ["ip", "-n", self.host.namespace]
        for words in (
            ("link", "add", "port9", "type", "veth", "peer", "name", _PORT, "netns", self.client.namespace),
            ("link", "set", "port9", "master", _BRIDGE, "up"),
        ):
            subprocess.run([*ip, *words], check=True, timeout=10)
        subprocess.run(["ip", "-n", self.client.namespace, "link", "set", _PORT, "up"], check=True, timeout=10)

    def asked(self, mac: str, *, takes: bool = False) -> Told | None:
        """Return what a machine on the network is offered."""
        return asked(self.client, mac, takes=takes, device=_PORT)

    def end_dnsmasq(self) -> None:
        """End what it leaves behind."""
        for file in (self.directory / "root/run/libvirt/network").glob("*.pid"):
            pid = file.read_text().strip()
            # It has two processes; the one that runs the lease helper ends with it.
            with contextlib.suppress(OSError):
                if "/dnsmasq" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(int(pid), signal.SIGTERM)


@contextlib.contextmanager
def running(directory: Path, definition: str) -> Iterator[Libvirtd]:
    """Yield a libvirtd that has this network, which is called :data:`NETWORK` and has bridge ``virbr9``."""
    number = next(_numbers)
    for made in ("socket", "root"):
        (directory / made).mkdir(parents=True)
    said = [
        "listen_tls = 0", 'auth_unix_rw = "none"', f'unix_sock_dir = "{directory}/socket"',
        f'log_outputs = "2:file:{directory}/log"',
    ]  # fmt: skip
    (directory / "libvirtd.conf").write_text("\n".join([*said, ""]))
    with segment(f"libvirtd{number}", f"guest{number}", network="10.231.12") as (host, client):
        server = Libvirtd(directory, host, client)
        try:
            server.start()
            server.define(definition)
            yield server
        finally:
            server.stop()
            server.end_dnsmasq()
            server._starter.shutdown()
