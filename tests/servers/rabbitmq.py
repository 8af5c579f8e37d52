"""Debian's RabbitMQ with its AMQP 1.0 plug-in on a loopback address, everything it writes below one directory.

It stands as the router of a content proxy did: AMQP 1.0 over TLS, and nobody without a certificate of the CA. Its node has
a name, a cookie and a port mapper (epmd) of its own, so that it meets no other Erlang on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment
from tests.servers.clients import Identity
from tests.servers.subscribers import tell_amqp

# Debian's script on the PATH changes the account first; this is what it starts.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_S = 90.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class RabbitMQ:
    """A running broker."""

    address: str
    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, as the kernel does when memory is short."""
        _kill(self.process)


@contextlib.contextmanager
def running(directory: Path, *, address: str, port: int, tls: Identity, client: Identity) -> Iterator[RabbitMQ]:
    """Hold a broker running; ask ``needs("rabbitmq")`` first.

    Args:
        directory: what it writes lies below; made when absent.
        tls: its certificate, and the CA of those it asks of its clients.
        client: shown when it is asked whether it is ready.
    """
    directory.mkdir(parents=True, exist_ok=True)
    mapper_port, node_port = free_port("0.0.0.0"), free_port("0.0.0.0")
    (directory / "rabbitmq.conf").write_text(
        "listeners.tcp = none\n"
        f"listeners.ssl.1 = {address}:{port}\n"
        f"ssl_options.cacertfile = {tls.ca}\n"
        f"ssl_options.certfile = {tls.certificate}\n"
        f"ssl_options.keyfile = {tls.key}\n"
        "ssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\n"
        # It would ask its clients for a sign of life every 30 s; these shall be silent.
        "heartbeat = 0\n"
        f"load_definitions = {directory / 'definitions.json'}\n"
    )
    # Whoever has a certificate may do everything; the plug-in makes anonymous clients this user.
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "vhosts": [{"name": "/"}],
        "users": [{"name": "guest", "password": "guest", "tags": ""}],
        "permissions": [{"user": "guest", "vhost": "/", **everything}],
    }
    (directory / "definitions.json").write_text(json.dumps(definitions))
    (directory / "plugins").write_text("[rabbitmq_amqp1_0].\n")
    environment = clean_environment(
        {
            "HOME": str(directory),
            "ERL_EPMD_ADDRESS": _LOOPBACK,
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_NODENAME": "muster@localhost",
            "RABBITMQ_DIST_PORT": str(node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "absent.config"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "absent.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
        }
    )
    log = directory / "rabbitmq.log"
    with log.open("ab") as said, contextlib.ExitStack() as stack:
        # In the foreground: one that RabbitMQ starts would stay behind.
        mapper = subprocess.Popen(
            ["epmd", "-port", str(mapper_port), "-address", _LOOPBACK], stdin=subprocess.DEVNULL, stdout=said,
            stderr=said, env=environment, start_new_session=True,
        )  # fmt: skip
        stack.callback(_kill, mapper)
        process = subprocess.Popen(
            [SERVER], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, start_new_session=True
        )
        stack.callback(_kill, process)
        limit = time.monotonic() + _START_S
        while not tell_amqp(address, port, client, "ready"):
            assert process.poll() is None, f"RabbitMQ ended: {log.read_text('utf-8', 'replace')}"
            assert time.monotonic() < limit, f"RabbitMQ did not start: {log.read_text('utf-8', 'replace')}"
            time.sleep(0.2)
        yield RabbitMQ(address, port, process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
