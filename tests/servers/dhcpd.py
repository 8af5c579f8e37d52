"""A real ISC dhcpd on a segment of its own, whose OMAPI answers on a loopback address of this machine. Needs root.

Its OMAPI port binds every address there is (``omapi-port`` knows none), so it lives in a network namespace, and a relay
brings connections there.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import resource
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pypureomapi

from muster.features.dhcp.isc.omapi import Key
from muster.kernel.process import clean_environment, end_with_parent
from muster.kernel.secrets import Secret
from tests.servers import relay
from tests.servers.available import sbin
from tests.servers.ending import ended
from tests.servers.namespaces import DEVICE, Host, segment

__all__ = ["ADDRESS", "NETWORK", "DHCPServer", "running"]

ADDRESS = "127.0.0.61"
NETWORK = "10.231.9"
_PORT = 7911
_LONGEST_START_S = 20.0
_numbers = itertools.count(1)


@dataclass
class DHCPServer:
    """A running ``dhcpd``. Use :func:`running`.

    Attributes:
        host, client: it, and another host on its segment.
        address, omapi_port: where its OMAPI answers.
        key: None: it takes orders from everybody.
        conf, leases: its files; what a test writes into them counts from the next start on.
    """

    directory: Path
    host: Host
    client: Host
    omapi_port: int
    key: Key | None
    address: str = ADDRESS
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def settings(self) -> dict[str, object]:
        """Settings of provider ``isc``."""
        key = {} if self.key is None else {"key_name": self.key.name, "key_secret": self.key.secret.reveal()}
        algorithm = {} if self.key is None else {"key_algorithm": self.key.algorithm}
        files = {"config": str(self.conf), "leases": str(self.leases)}
        return {"server": self.address, "omapi_port": self.omapi_port, **key, **algorithm, **files}

    def host_in_leases(self, name: str) -> str | None:
        """Return the last block of a host in the leases file."""
        text = self.leases.read_text("utf-8")
        start = text.rfind(f"host {name} {{")
        return text[start : text.index("\n}", start) + 2] if start >= 0 else None

    @property
    def conf(self) -> Path:
        return self.directory / "dhcpd.conf"

    @property
    def leases(self) -> Path:
        return self.directory / "dhcpd.leases"

    @property
    def log(self) -> Path:
        return self.directory / "dhcpd.log"

    @property
    def pid(self) -> int:
        assert self._process is not None, "dhcpd is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it and return when its OMAPI has answered."""
        assert self._process is None, "dhcpd runs"
        server = sbin("dhcpd")
        assert server is not None
        command = self.host.command(
            *(server, "-4", "-f", "-d", "--no-pid"), *("-cf", self.conf, "-lf", self.leases, DEVICE)
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment(), preexec_fn=end_with_parent,
                # As Python itself has it: SIGXFSZ would end a server whose disk is said to be full.
                restore_signals=False,
            )  # fmt: skip
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"dhcpd did not come up: {self.log.read_text('utf-8', 'replace')[-1500:]}")

    def _answers(self) -> bool:
        try:
            omapi = pypureomapi.Omapi(self.address, self.omapi_port, timeout=1.0)
        except (OSError, pypureomapi.OmapiError):
            return False
        with contextlib.closing(omapi):
            try:
                omapi.lookup_by_host(name="nobody")
            except pypureomapi.OmapiErrorNotFound:
                # So it says to whoever brings no key, too.
                return True
            except (OSError, pypureomapi.OmapiError):
                return False
            return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, unless it is stopped; connections to it end."""
        process, self._process = self._process, None
        ended(process, how)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Hold its disk so that its leases file cannot grow."""
        before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (self.leases.stat().st_size, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            if self._process is not None:
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, before)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Hold it so that it takes connections and answers nothing."""
        assert self._process is not None, "dhcpd is stopped"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(
    directory: Path, *, conf: str = "", leases: str = "", algorithm: str | None = "hmac-sha256", address: str = ADDRESS
) -> Iterator[DHCPServer]:
    """Yield a dhcpd.

    Args:
        conf: stands in its configuration after what OMAPI needs; its segment's subnet, 10.231.9.0/24, is added where it is
            not named there, because dhcpd insists on it.
        leases: what its leases file says at first.
        algorithm: of its key; None: it has none.
    """
    number = next(_numbers)
    directory.mkdir(parents=True, exist_ok=True)
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    key = None if algorithm is None else Key("muster-test", Secret(secret), algorithm)
    with (
        segment(f"dhcpd{number}", f"client{number}", network=NETWORK) as (host, client),
        relay.running(host, _PORT, address) as port,
    ):
        server = DHCPServer(directory, host, client, port, key, address)
        server.conf.write_text(_conf(conf, key))
        server.leases.write_text(leases)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _conf(given: str, key: Key | None) -> str:
    said = [f"omapi-port {_PORT};"]
    if key is not None:
        # A bare word: dhcpd takes no quotes there, and it wants no semicolon after the brace, but bears one.
        clauses = f"algorithm {key.algorithm}; secret {key.secret.reveal()};"
        said += [f"key {key.name} {{ {clauses} }};", f"omapi-key {key.name};"]
    if f"subnet {NETWORK}.0 " not in given:
        said.append(f"subnet {NETWORK}.0 netmask 255.255.255.0 {{ }}")
    return "\n".join([*said, given, ""])
