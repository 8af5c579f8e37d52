"""Debian's mosquitto on a loopback address, everything it writes below one directory: a broker of MQTT over TLS.

It stands as on a content proxy: nobody without a certificate of the CA, and who it names is the user.
Source: docs/facts/deployment.md §3.7.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muster.kernel.process import clean_environment
from tests.servers.available import sbin
from tests.servers.clients import Identity
from tests.servers.subscribers import tell_mqtt

_START_S = 30.0


@dataclass(frozen=True)
class Mosquitto:
    """A running broker."""

    address: str
    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(directory: Path, *, address: str, port: int, tls: Identity, client: Identity) -> Iterator[Mosquitto]:
    """Hold a broker running; ask ``needs("mosquitto")`` first.

    Args:
        directory: what it writes lies below; made when absent.
        tls: its certificate, and the CA of those it asks of its clients.
        client: shown when it is asked whether it is ready.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "mosquitto.conf"
    # As root it would become its own user, who cannot read the key.
    config.write_text(
        f"user root\n"
        f"listener {port} {address}\n"
        f"cafile {tls.ca}\n"
        f"certfile {tls.certificate}\n"
        f"keyfile {tls.key}\n"
        "require_certificate true\n"
        "use_identity_as_username true\n"
        "persistence false\n"
        "log_dest stderr\n"
    )
    log = directory / "mosquitto.log"
    program = sbin("mosquitto")
    assert program is not None, "no mosquitto"
    with log.open("ab") as said:
        process = subprocess.Popen(
            [program, "-c", config], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            env=clean_environment(), start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + _START_S
        while not tell_mqtt(address, port, client, "ready"):
            assert process.poll() is None, f"mosquitto ended: {log.read_text('utf-8', 'replace')}"
            assert time.monotonic() < limit, f"mosquitto did not start: {log.read_text('utf-8', 'replace')}"
            time.sleep(0.05)
        yield Mosquitto(address, port, process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
