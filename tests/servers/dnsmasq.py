"""A real dnsmasq on a segment of its own, and machines there that ask it for addresses. Needs root.

As on a host whose unit watches for it, it is started anew when members ask for that by a file.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.ending import ended
from tests.servers.machines import Told, asked
from tests.servers.namespaces import Host, segment

__all__ = ["NETWORK", "Dnsmasq", "running"]

NETWORK = "10.231.10"
_LONGEST_START_S = 10.0
_numbers = itertools.count(1)


@dataclass
class Dnsmasq:
    """A running ``dnsmasq``. Use :func:`running`.

    Attributes:
        host, client: it, and another host on its segment.
        conf, leases, pid_file: its files.
        target: where provider ``dnsmasq`` writes.
        restarts: how often it was started anew because members asked for it.
        misses: how many more of their requests are not seen.
    """

    directory: Path
    host: Host
    client: Host
    user: str
    restarts: int = 0
    misses: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _at_it: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def settings(self) -> dict[str, object]:
        """Settings of provider ``dnsmasq``."""
        return {
            "config": str(self.conf), "target_dir": str(self.target), "lease_file": str(self.leases),
            "pid_file": str(self.pid_file),
        }  # fmt: skip

    @property
    def conf(self) -> Path:
        return self.directory / "dnsmasq.conf"

    @property
    def leases(self) -> Path:
        return self.directory / "dnsmasq.leases"

    @property
    def pid_file(self) -> Path:
        return self.directory / "dnsmasq.pid"

    @property
    def log(self) -> Path:
        return self.directory / "dnsmasq.log"

    @property
    def target(self) -> Path:
        return self.directory / "target"

    @property
    def hosts(self) -> Path:
        return self.target / "dhcphosts"

    @property
    def options(self) -> Path:
        return self.target / "dhcpopts"

    def start(self) -> None:
        """Start it and return when it has answered a machine."""
        with self._at_it:
            self._start()

    def restart(self) -> None:
        """Start it anew if it runs, as ``systemctl try-restart`` does."""
        with self._at_it:
            if self._process is not None:
                self.stop()
                self._start()
                self.restarts += 1

    def _start(self) -> None:
        assert self._process is None, "dnsmasq runs"
        self.pid_file.unlink(missing_ok=True)
        server = shutil.which("dnsmasq", path="/usr/sbin:/sbin:/usr/bin")
        assert server is not None
        with self.log.open("ab") as log:
            said = log.tell()
            self._process = subprocess.Popen(
                self.host.command(server, "--keep-in-foreground", "--conf-file=" + str(self.conf)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), preexec_fn=end_with_parent,
            )  # fmt: skip
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and self._process.poll() is None:
            if b"DHCP, " in self.log.read_bytes()[said:] and self.asked("02:00:00:00:00:01"):
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"dnsmasq did not come up: {self.log.read_text('utf-8', 'replace')[-1500:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, unless it is stopped."""
        with self._at_it:
            process, self._process = self._process, None
        ended(process, how)

    @contextlib.contextmanager
    def without_its_unit(self) -> Iterator[None]:
        """Hold what starts it anew when members ask for that."""
        with self._at_it:
            yield

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Hold it so that it reads nothing."""
        assert self._process is not None, "dnsmasq is stopped"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def asked(self, mac: str, *, takes: bool = False) -> Told | None:
        """Return what a machine is offered, and with ``takes`` has leased; None: nobody offers it anything in 4 s."""
        # Not while it is being started anew.
        with self._at_it:
            return asked(self.client, mac, takes=takes)


@contextlib.contextmanager
def running(directory: Path, *, conf: str = "", leases: str = "", user: str = "root") -> Iterator[Dnsmasq]:
    """Yield a dnsmasq that serves no DNS.

    Args:
        conf: stands in its configuration after what every test needs; addresses of its segment's machines, 10.231.10.100 to
            10.231.10.110, are leased.
        leases: what its leases file says at first.
        user: whom it becomes.
    """
    number = next(_numbers)
    directory.mkdir(parents=True, exist_ok=True)
    with segment(f"dnsmasq{number}", f"boots{number}", network=NETWORK) as (host, client):
        server = Dnsmasq(directory, host, client, user)
        for made in (server.hosts, server.options):
            made.mkdir(parents=True, exist_ok=True)
        said = [
            "port=0", "dhcp-authoritative", "no-ping", f"user={user}", "log-dhcp", f"log-facility={server.log}",
            f"pid-file={server.pid_file}", f"dhcp-leasefile={server.leases}", f"dhcp-hostsdir={server.hosts}",
            f"dhcp-optsdir={server.options}",
            f"dhcp-range={NETWORK}.100,{NETWORK}.110,255.255.255.0,1h",
        ]  # fmt: skip
        server.conf.write_text("\n".join([*said, conf, ""]))
        server.leases.write_text(leases)
        ended = threading.Event()
        watching = threading.Thread(target=_restarted, args=(server, ended), name="dnsmasq's unit", daemon=True)
        try:
            server.start()
            watching.start()
            yield server
        finally:
            ended.set()
            if watching.is_alive():
                watching.join()
            server.stop()


def _restarted(server: Dnsmasq, ended: threading.Event) -> None:
    """Start it anew whenever members ask, as the host's path unit does."""
    wanted = server.target / "reload-wanted"
    seen = None
    while not ended.wait(0.02):
        now = wanted.stat().st_ino if wanted.exists() else None
        if now != seen:
            seen = now
            if server.misses:
                server.misses -= 1
            else:
                server.restart()
