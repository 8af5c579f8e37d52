"""A network segment to test with: hosts in network namespaces on one bridge, gone with the block. Needs root."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

DEVICE = "eth0"
PREFIX = 24
_CLONE_NEWNET = 0x40000000
_taps = itertools.count(1)


@dataclass(frozen=True)
class Host:
    """One network namespace with one device on the segment, whose bridge is in the namespace ``switch``."""

    namespace: str
    address: str
    switch: str = ""

    def command(self, *arguments: str | Path) -> list[str]:
        """The argument list that runs a program on this host."""
        return ["ip", "netns", "exec", self.namespace, *(str(a) for a in arguments)]

    def addresses(self) -> set[str]:
        """The IPv4 addresses its device has now."""
        said = _ip("-n", self.namespace, "-j", "-4", "address", "show", "dev", DEVICE)
        return {a["local"] for device in json.loads(said) for a in device.get("addr_info", ())}

    def opened(self) -> socket.socket:
        """A TCP socket that lives on this host, whoever uses it."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._opened).result()

    def opened_udp(self, port: int) -> socket.socket:
        """A UDP socket that lives on this host, bound to its address."""

        def opened() -> socket.socket:
            self.enter()
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        with ThreadPoolExecutor(1) as thread:
            s = thread.submit(opened).result()
        s.bind((self.address, port))
        return s

    def listening(self, port: int) -> socket.socket:
        s = self.opened()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((self.address, port))
        s.listen(100)
        s.setblocking(False)
        return s

    def enter(self) -> None:
        """Move the calling thread to this host; for a thread that ends soon, because it stays."""
        _move(Path(f"/run/netns/{self.namespace}"))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread on this host for the block: its sockets, and every thread and process it starts there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self.enter()
            yield
        finally:
            _move(Path(f"/proc/self/fd/{home}"))
            os.close(home)

    def _opened(self) -> socket.socket:
        # A namespace belongs to a thread, a socket to the namespace it was made in; the thread ends, the socket stays.
        self.enter()
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


@contextlib.contextmanager
def segment(*names: str, network: str = "10.231.7") -> Iterator[list[Host]]:
    """Hosts that reach each other and nothing else, numbered from ``network``.11."""
    _forget_the_dead()
    # Named for the first of them: segments of different hosts can be held at once.
    switch = f"muster-{os.getpid()}-{names[0]}-switch"
    hosts = [Host(f"muster-{os.getpid()}-{name}", f"{network}.{11 + n}", switch) for n, name in enumerate(names)]
    with contextlib.ExitStack() as stack:
        for namespace in (switch, *(h.namespace for h in hosts)):
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "delete", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for n, host in enumerate(hosts):
            port = f"port{n}"
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", DEVICE, "netns", host.namespace)
            _ip("-n", switch, "link", "set", port, "master", "br0", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.address}/{PREFIX}", "dev", DEVICE)
            _ip("-n", host.namespace, "link", "set", DEVICE, "up")
        yield hosts


@contextlib.contextmanager
def tap(host: Host, *, mbit_s: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield the namespace of a host's segment, and a device in it that a machine can have for its network.

    What comes out of it is no faster than ``mbit_s``.
    """
    device = f"tap{next(_taps)}"
    _ip("-n", host.switch, "tuntap", "add", "dev", device, "mode", "tap")
    try:
        _ip("-n", host.switch, "link", "set", device, "master", "br0", "up")
        if mbit_s is not None:
            slow = ("root", "tbf", "rate", f"{mbit_s}mbit", "burst", "64kb", "latency", "50ms")
            _run("tc", "-n", host.switch, "qdisc", "add", "dev", device, *slow)
        yield host.switch, device
    finally:
        _ip("-n", host.switch, "tuntap", "delete", "dev", device, "mode", "tap")


def _move(namespace: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def _forget_the_dead() -> None:
    """Delete what a test that was killed has left behind."""
    for left in Path("/run/netns").glob("muster-*-*"):
        if not Path(f"/proc/{left.name.split('-')[1]}").exists():
            with contextlib.suppress(OSError):
                _ip("netns", "delete", left.name)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
