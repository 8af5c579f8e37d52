"""Real clients of AMQP 1.0 and MQTT that listen for hours: each a process, and all that happened to it, with the time.

AMQP is Qpid Proton (what goferd and Katello's agents spoke with), MQTT is ``mosquitto_sub``. The former connects again
by itself, the latter ends and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muster.kernel.process import clean_environment
from tests.servers.clients import Identity

_PATIENCE_S = 40.0
_TELL_S = 20.0
_RESTART_S = 0.2
# Debian's Python has Debian's Proton.
PYTHON = "/usr/bin/python3"
_PROTON = [PYTHON, str(Path(__file__).with_name("amqp_client.py"))]
_WORD = "word"
_MESSAGE = "message: "
_MQTT = {
    "sending CONNECT": "connecting",
    "received CONNACK (0)": "connected",
    "received SUBACK": "subscribed",
    "connection was lost": "lost",
}


@dataclass(frozen=True)
class Happening:
    """What a subscriber met: ``connected``, ``subscribed``, ``message``, ``lost`` and others; ``said`` is its own line."""

    what: str
    at: float
    text: str
    said: str


@dataclass
class Subscriber:
    """A client that listens until the block ends."""

    happened: list[Happening] = field(default_factory=list)

    def count(self, what: str) -> int:
        return sum(h.what == what for h in self.happened)

    def heard(self) -> list[str]:
        """The messages it got, in order."""
        return [h.text for h in self.happened if h.what == "message"]

    async def until(self, holds: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> float:
        """Wait until something holds of it and return when that was."""
        limit = time.monotonic() + patience_s
        while not holds():
            said = "\n".join(f"{h.at:.2f} {h.said}" for h in self.happened)
            assert time.monotonic() < limit, f"after {patience_s:g} s still not: {what}\n{said}"
            await asyncio.sleep(0.05)
        return time.monotonic()

    async def until_subscribed(self, times: int = 1) -> float:
        """Wait for its so-manieth subscription and return when that was."""
        await self.until(lambda: self.count("subscribed") >= times, f"subscription {times}")
        return [h.at for h in self.happened if h.what == "subscribed"][times - 1]

    async def until_heard(self, text: str) -> float:
        """Wait for a message and return when it came."""
        await self.until(lambda: text in self.heard(), f"the message {text}")
        return next(h.at for h in self.happened if h.text == text)


@contextlib.contextmanager
def amqp(address: str, port: int, name: str, client: Identity, *, heartbeat_s: float = 0.0) -> Iterator[Subscriber]:
    """Subscribe over AMQP 1.0; the certificate must carry the name. Without heartbeats the connection is silent."""
    beating = ["--heartbeat", str(heartbeat_s)]
    with _running([*_PROTON, *_shown(address, port, name, client), *beating], _amqp_happening) as it:
        yield it


@contextlib.contextmanager
def mqtt(address: str, port: int, client: Identity, *, keepalive_s: int = 600) -> Iterator[Subscriber]:
    """Subscribe over MQTT; the certificate must come from the CA."""
    arguments = [
        "mosquitto_sub",
        *_mqtt_place(address, port, client),
        "-k",
        str(keepalive_s),
        "-d",
        "-F",
        f"{_MESSAGE}%p",
    ]
    with _running(["stdbuf", "-oL", *arguments], _mqtt_happening) as it:
        yield it


def tell_amqp(address: str, port: int, client: Identity, text: str) -> bool:
    """Send a message to those who listen at one broker and return whether it took it."""
    told = [*_PROTON, *_shown(address, port, "", client), "--send", text]
    return _done(told)


def tell_mqtt(address: str, port: int, client: Identity, text: str) -> bool:
    """Send a message to those who listen at one broker and return whether it took it."""
    return _done(["mosquitto_pub", *_mqtt_place(address, port, client), "-q", "1", "-m", text])


def _shown(address: str, port: int, name: str, client: Identity) -> list[str]:
    files = ["--ca", str(client.ca), "--certificate", str(client.certificate), "--key", str(client.key)]
    return ["--place", f"{address}:{port}", "--name", name, *files]


def _mqtt_place(address: str, port: int, client: Identity) -> list[str]:
    # It takes the name to be verified from the address alone, and no DNS has the cluster's.
    files = ["--cafile", str(client.ca), "--cert", str(client.certificate), "--key", str(client.key), "--insecure"]
    return ["-h", address, "-p", str(port), "-t", _WORD, *files]


def _done(arguments: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TELL_S, check=False,
            env=clean_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@contextlib.contextmanager
def _running(arguments: Sequence[str], read: Callable[[str], tuple[str, str]]) -> Iterator[Subscriber]:
    it = Subscriber()
    over = threading.Event()
    started: list[subprocess.Popen[str]] = []

    def listen() -> None:
        # Started again when it ends, as systemd does with a client that gives up.
        while not over.is_set():
            with _started(arguments) as process:
                started.append(process)
                assert process.stdout is not None
                for line in process.stdout:
                    what, text = read(line.strip())
                    it.happened.append(Happening(what, time.monotonic(), text, line.strip()))
            it.happened.append(Happening("ended", time.monotonic(), "", f"exit {process.returncode}"))
            over.wait(_RESTART_S)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield it
    finally:
        over.set()
        for process in started:
            process.kill()
        listener.join(10)


def _started(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=clean_environment(), start_new_session=True,
    )  # fmt: skip


def _amqp_happening(line: str) -> tuple[str, str]:
    try:
        said = json.loads(line)
    except ValueError:
        return "said", ""
    return str(said["event"]), str(said.get("text", said.get("why", "")))


def _mqtt_happening(line: str) -> tuple[str, str]:
    for words, what in _MQTT.items():
        if words in line:
            return what, ""
    if line.startswith(_MESSAGE):
        return "message", line.removeprefix(_MESSAGE)
    return "said", ""
