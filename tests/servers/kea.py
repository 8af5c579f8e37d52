"""A real kea-dhcp4 on a segment of its own, told what to do over a unix socket or by a real Control Agent. Needs root.

It lives in a network namespace, because it answers whoever asks for an address there. Its socket is a file, which is here
as well.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.available import sbin
from tests.servers.ending import ended
from tests.servers.namespaces import DEVICE, Host, segment

__all__ = ["ADDRESS", "NETWORK", "KeaServer", "running"]

ADDRESS = "127.0.0.63"
NETWORK = "10.231.8"
LEASE_CMDS, HOST_CMDS, PGSQL = "libdhcp_lease_cmds.so", "libdhcp_host_cmds.so", "libdhcp_pgsql.so"
_HOOKS = "/usr/lib/x86_64-linux-gnu/kea/hooks"
_LONGEST_START_S = 20.0
_LONGEST_STOP_S = 10.0
_numbers = itertools.count(1)
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK = 1, 2, 3, 5, 6


@dataclass
class KeaServer:
    """A running ``kea-dhcp4``. Use :func:`running`.

    Attributes:
        host, client: it, and another host on its segment; None: it gives nobody an address, and lives here.
        directory: its files as they are here; ``inside`` as it has them, where it has a root directory of its own.
    """

    directory: Path
    inside: Path
    host: Host | None
    client: Host | None
    root: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def control(self) -> Path:
        return self.directory / "kea4.sock"

    @property
    def conf(self) -> Path:
        return self.directory / "kea-dhcp4.conf"

    @property
    def log(self) -> Path:
        return self.directory / "kea-dhcp4.log"

    @property
    def settings(self) -> dict[str, object]:
        """Settings of provider ``kea``."""
        return {"url": f"unix:{self.control}"}

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what it answers."""
        asked = {"command": command, **({} if arguments is None else {"arguments": arguments})}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.control))
            connection.sendall(json.dumps(asked).encode())
            answer = bytearray()
            while piece := connection.recv(1 << 16):
                answer += piece
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    def done(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return the arguments of an answer that is a success."""
        answer = self.ask(command, arguments)
        assert answer["result"] == 0, f"{command}: {answer}"
        return answer.get("arguments")

    def written(self) -> dict[str, Any]:
        """Return what its configuration's file says under ``Dhcp4``."""
        found = json.loads(self.conf.read_text("utf-8"))["Dhcp4"]
        assert isinstance(found, dict)
        return found

    def start(self) -> None:
        """Start it and return when it has answered."""
        assert self._process is None, "Kea runs"
        places = (
            "KEA_PIDFILE_DIR",
            "KEA_LOCKFILE_DIR",
            "KEA_CONTROL_SOCKET_DIR",
            "KEA_DHCP_DATA_DIR",
            "KEA_LOG_FILE_DIR",
        )
        program = "/usr/sbin/kea-dhcp4" if self.root is not None else sbin("kea-dhcp4")
        assert program is not None
        changed = () if self.root is None else ("chroot", self.root)
        command = [str(word) for word in (*changed, program, "-c", self.inside / self.conf.name)]
        if self.host is not None:
            command = self.host.command(*command)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent,
                env=clean_environment(dict.fromkeys(places, str(self.inside))),
            )  # fmt: skip
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                if self.ask("version-get")["result"] == 0:
                    return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"Kea did not come up: {self.log.read_text('utf-8', 'replace')[-1500:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, unless it is stopped."""
        process, self._process = self._process, None
        ended(process, how)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Hold it so that it takes connections and answers nothing."""
        assert self._process is not None, "Kea is stopped"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)

    def given(self, mac: str) -> tuple[str, str, str]:
        """Ask for an address as a machine does that boots behind a relay; return address, boot loader and next server."""
        assert self.host is not None
        assert self.client is not None
        with contextlib.closing(self.client.opened_udp(67)) as relay:
            relay.settimeout(5)
            offered = self._answer(relay, mac, _DISCOVER, b"")
            requested = socket.inet_aton(offered[0])
            server = offered[3]
            options = b"\x32\x04" + requested + b"\x36\x04" + server
            address, filename, following, _ = self._answer(relay, mac, _REQUEST, options)
        return address, filename, following

    def _answer(self, relay: socket.socket, mac: str, kind: int, options: bytes) -> tuple[str, str, str, bytes]:
        assert self.host is not None
        assert self.client is not None
        number = os.urandom(4)
        hardware = bytes.fromhex(mac.replace(":", ""))
        fixed = struct.pack(
            "!BBBB4sHH4s4s4s4s16s64s128s4s", 1, 1, len(hardware), 1, number, 0, 0, bytes(4), bytes(4), bytes(4),
            socket.inet_aton(self.client.address), hardware, b"", b"", b"\x63\x82\x53\x63",
        )  # fmt: skip
        relay.sendto(fixed + bytes((53, 1, kind)) + options + b"\xff", (self.host.address, 67))
        while True:
            heard = relay.recv(2048)
            if heard[4:8] == number:
                break
        told = _options(heard[240:])
        assert told[53][0] in (_OFFER, _ACK), f"{mac} was refused: {told[53][0]}"
        filename = heard[108:236].split(b"\0")[0].decode("ascii")
        return socket.inet_ntoa(heard[16:20]), filename, socket.inet_ntoa(heard[20:24]), told[54]


def _options(content: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(content) and content[at] != 255:
        if content[at] == 0:
            at += 1
            continue
        length = content[at + 1]
        found[content[at]] = content[at + 2 : at + 2 + length]
        at += 2 + length
    return found


@contextlib.contextmanager
def running(
    *,
    subnets: Sequence[Mapping[str, Any]] = (),
    libraries: Sequence[str] = (LEASE_CMDS,),
    root: Path | None = None,
    alone: bool = False,
    **settings: Any,
) -> Iterator[KeaServer]:
    """Yield a Kea.

    Args:
        subnets: its ``subnet4``; its segment's, 10.231.8.0/24, is added as number 99 where none is numbered so.
        libraries: what it has loaded.
        root: where another release of it is unpacked; None: this machine's.
        alone: it has no segment: it gives nobody an address, and reaches what is here.
        settings: what else stands under ``Dhcp4``, with underscores for hyphens.
    """
    number = next(_numbers)
    # Short, because a socket's path has little room, and Kea's own.
    directory = Path(tempfile.mkdtemp(prefix="kea-", dir=None if root is None else root / "tmp"))
    # 2.6 takes a socket in a directory of exactly this mode, 3.0 of no more.
    directory.chmod(0o750)
    inside = directory if root is None else Path("/tmp") / directory.name
    given = [*subnets]
    if not alone and not any(s["id"] == 99 for s in given):
        given.append({"id": 99, "subnet": f"{NETWORK}.0/24", "pools": [{"pool": f"{NETWORK}.100 - {NETWORK}.110"}]})
    # The newer release calls it so and has several.
    content = {
        "interfaces-config": {"interfaces": [] if alone else [DEVICE], "dhcp-socket-type": "udp"},
        "control-socket": {"socket-type": "unix", "socket-name": str(inside / "kea4.sock")},
        "lease-database": {"type": "memfile", "persist": True, "name": str(inside / "leases4.csv"), "lfc-interval": 0},
        "ip-reservations-unique": False,
        "hooks-libraries": [{"library": f"{_HOOKS}/{name}"} for name in libraries],
        "subnet4": given,
        "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stdout"}]}],
        **{name.replace("_", "-"): value for name, value in settings.items()},
    }
    try:
        with contextlib.ExitStack() as stack:
            host, client = None, None
            if not alone:
                host, client = stack.enter_context(segment(f"kea{number}", f"machine{number}", network=NETWORK))
            server = KeaServer(directory, inside, host, client, root)
            server.conf.write_text(json.dumps({"Dhcp4": content}), "utf-8")
            try:
                server.start()
                yield server
            finally:
                server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def control_agent(server: KeaServer, *, user: str, password: str) -> Iterator[str]:
    """Yield the URL of a Control Agent that passes commands on to a Kea."""
    program = sbin("kea-ctrl-agent")
    assert program is not None
    port = free_port(ADDRESS)
    client = {"user": user, "password": password}
    content = {
        "http-host": ADDRESS,
        "http-port": port,
        "control-sockets": {"dhcp4": {"socket-type": "unix", "socket-name": str(server.control)}},
        "authentication": {"type": "basic", "realm": "kea", "clients": [client]},
        "loggers": [{"name": "kea-ctrl-agent", "severity": "WARN", "output_options": [{"output": "stdout"}]}],
    }
    conf = server.directory / "kea-ctrl-agent.conf"
    conf.write_text(json.dumps({"Control-agent": content}), "utf-8")
    places = dict.fromkeys(("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR"), str(server.directory))
    with (server.directory / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [program, "-c", conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=clean_environment(places), preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), 1):
                break
            time.sleep(0.05)
        assert process.poll() is None, "the Control Agent did not come up"
        yield f"http://{ADDRESS}:{port}"
    finally:
        process.terminate()
        process.wait(_LONGEST_STOP_S)
