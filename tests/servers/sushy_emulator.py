"""A real Redfish service as software: OpenStack's ``sushy-emulator`` with its machines of nothing."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers import certificates
from tests.servers.ending import ended

USER, PASSWORD = "admin", r"se$;'&#!% ü:\x"
MACHINE = "27946b59-9e44-4fa7-8e91-f3527a1ef094"
_LONGEST_START_S = 60.0


@dataclass
class Emulator:
    """A running emulator. Use :func:`running`."""

    directory: Path
    address: str
    port: int
    ca: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and return when it has told of its machine."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("sushy-emulator"), "--fake", "--config", self.directory / "conf.py",
                    "-i", self.address, "-p", str(self.port),
                    "--ssl-certificate", self.directory / "cert.pem", "--ssl-key", self.directory / "key.pem",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=end_with_parent,
                env=clean_environment(),
            )  # fmt: skip
        end = time.monotonic() + _LONGEST_START_S
        while True:
            with contextlib.suppress(OSError):
                self.machine()
                return
            assert time.monotonic() < end, (self.directory / "log").read_text()
            time.sleep(0.2)

    def machine(self) -> dict[str, Any]:
        """Return what it tells of its machine."""
        url = f"https://{self.address}:{self.port}/redfish/v1/Systems/{MACHINE}"
        basic = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        asked = urllib.request.Request(url, headers={"Authorization": f"Basic {basic}"})
        trusting = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(asked, timeout=10, context=trusting) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found

    @property
    def asked(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self) -> None:
        ended(self._process)
        self._process = None


@contextlib.contextmanager
def running(directory: Path, *, port: int, address: str = "127.0.7.11") -> Iterator[Emulator]:
    """Run one until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (directory / "auth").write_text(f"{USER}:{password}\n")
    (directory / "conf.py").write_text(
        f"SUSHY_EMULATOR_AUTH_FILE = {str(directory / 'auth')!r}\nSUSHY_EMULATOR_STATE_DIR = {str(directory)!r}\n"
    )
    emulator = Emulator(directory, address, port, certificates.at_an_address(directory, address))
    try:
        emulator.start()
        yield emulator
    finally:
        emulator.stop()
