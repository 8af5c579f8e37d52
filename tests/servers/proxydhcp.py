"""Members that answer ProxyDHCP on a segment of their own, beside an ISC dhcpd that knows nothing of booting. Needs root."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers import member, namespaces
from tests.servers.available import sbin
from tests.servers.namespaces import DEVICE, Host
from tests.servers.postgresql import PASSWORD, PostgreSQL
from tests.servers.pxe_client import Machine

NETWORK = "10.231.8"
_START_S = 60.0
_STOP_S = 20.0


@dataclass
class Answering:
    """``muster serve`` on a host of the segment; whether it is ready is asked of it by whoever uses it."""

    name: str
    host: Host
    directory: Path
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        return (self.directory / f"{self.name}.log").read_text("utf-8", "replace")

    def begin(self) -> None:
        """Start it and do not wait for it."""
        assert self.process is None, f"{self.name} runs"
        self.process = _begun(self.command, self.directory / f"{self.name}.log")

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        assert self.process is not None, f"{self.name} is stopped"
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self.process is not None:
            self.ask_to_stop()
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def ask_to_stop(self) -> None:
        assert self.process is not None, f"{self.name} is stopped"
        self.process.terminate()


@dataclass
class Segment:
    """A network with members, a DHCP server and a machine.

    Attributes:
        dhcpd: host of the DHCP server.
        peer: host with nothing on it.
        machine: host without an address, for :func:`tests.servers.pxe_client.opened`.
    """

    directory: Path
    members: list[Answering]
    dhcpd: Host
    peer: Host
    machine: Host
    cluster_file: Path

    def holder(self, machine: Machine) -> Answering:
        """The member that answers a machine."""
        server = machine.first(within_s=_START_S).server
        return next(m for m in self.members if m.host.address == server)

    def serve(self, machine: Machine) -> None:
        """Wait until all members serve, as those are told that answer."""
        limit = time.monotonic() + _START_S
        before, named = machine.mac, set[str]()
        while not named >= {m.host.address for m in self.members if m.process is not None}:
            assert time.monotonic() < limit, named
            # Machines are spread, so that one in many names each member.
            machine.mac = f"52:54:00:00:01:{secrets.randbelow(256):02x}"
            named.add(machine.first(within_s=_START_S).siaddr)
            time.sleep(0.05)
        machine.mac = before

    @contextlib.contextmanager
    def with_address(self, address: str) -> Iterator[None]:
        """Give the machine an address for a while."""
        _ip(self.machine, "address", "add", f"{address}/{namespaces.PREFIX}", "dev", DEVICE)
        try:
            yield
        finally:
            _ip(self.machine, "address", "flush", "dev", DEVICE)


@contextlib.contextmanager
def running(
    directory: Path,
    store: PostgreSQL,
    members: int = 2,
    *,
    proxy_dhcp: Mapping[str, Any] | None = None,
    dhcpd: bool = True,
    before: Sequence[str] = (),
    begun: bool = True,
    **sections: Any,
) -> Iterator[Segment]:
    """Yield members of which one answers, and a DHCP server that gives addresses and nothing to boot.

    Args:
        store: reached by its socket in the file system, which all hosts of the segment share.
        proxy_dhcp: its settings.
        before: what stands before ``muster serve``, as a program that takes capabilities away.
        begun: the members are started, and not left to whoever uses them.
        sections: of the cluster file.
    """
    names = [f"m{n}" for n in range(1, members + 1)]
    netboot = sections.pop("netboot", {})
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(namespaces.segment(*names, "dhcpd", "peer", "machine", network=NETWORK))
        made = member.made(
            directory,
            members=[
                {"id": n, "name": f"{name}.example.com", "address": hosts[n - 1].address}
                for n, name in enumerate(names, 1)
            ],
            store={"url": by_socket(store)},
            netboot={**netboot, "proxy_dhcp": dict(proxy_dhcp or {})},
            **sections,
        )
        found = []
        for name, host in zip(names, hosts, strict=False):
            made.other_member(f"{name}.example.com")
            command = host.command(
                *before, sys.executable, "-m", "muster", "serve", "--cluster", made.cluster_file, "--pki", made.pki,
                "--member", f"{name}.example.com", "--state", directory / f"state-{name}",
            )  # fmt: skip
            found.append(Answering(name, host, directory, command))
            stack.callback(found[-1].stop)
        server, peer, machine = hosts[members:]
        segment = Segment(directory, found, server, peer, machine, made.cluster_file)
        _ip(segment.machine, "address", "flush", "dev", DEVICE)
        if dhcpd:
            stack.enter_context(addresses_given(directory, segment.dhcpd))
        for one in found if begun else ():
            one.begin()
        yield segment


def by_socket(store: PostgreSQL) -> str:
    """Make an empty database, and return its URL by the server's socket."""
    database = store.fresh_database().rpartition("/")[2]
    return f"postgresql://muster:{PASSWORD}@/{database}?host={store.directory}&port={store.port}"


@contextlib.contextmanager
def addresses_given(directory: Path, host: Host) -> Iterator[None]:
    """Hold an ISC dhcpd on a host, which gives addresses of the segment and nothing else."""
    server = sbin("dhcpd")
    assert server is not None
    conf, leases = directory / "dhcpd.conf", directory / "dhcpd.leases"
    rooms = f"range {NETWORK}.100 {NETWORK}.150;"
    conf.write_text(f"authoritative;\nsubnet {NETWORK}.0 netmask 255.255.255.0 {{ {rooms} }}\n", "utf-8")
    leases.touch()
    command = host.command(server, "-4", "-f", "-d", "--no-pid", "-cf", conf, "-lf", leases, DEVICE)
    with ran(command, directory / "dhcpd.log"):
        yield


@contextlib.contextmanager
def ran(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a program of a host; whether it is ready is asked of it by whoever uses it."""
    process = _begun(command, log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _begun(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment(),
            preexec_fn=end_with_parent,
        )  # fmt: skip


def _ip(host: Host, *arguments: str) -> None:
    done = subprocess.run(["ip", "-n", host.namespace, *arguments], capture_output=True, timeout=10, check=False)
    assert done.returncode == 0, done.stderr
