"""Which client was served by whom, when it was cut and why: HAProxy's line about every finished connection, kept.

Workers send a datagram to a socket of ours when a connection ends, old workers too, so one place hears of every
connection once and its totals survive reloads. A datagram socket holds ten messages: a burst of more is lost while this
process is stopped, and HAProxy counts what it could not send (``DroppedLogs``).

Source: HAProxy 2.6 configuration manual §8.2.4 (log format), §8.5 (termination state).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.log import logger
from muster.kernel.names import shown

_log = logger("balancer")

FORMAT = "muster %pid %rt %ci %cp %Ts %ms %f %b %s %Tw %Tc %Tt %U %B %ts %rc"
"""What HAProxy writes about a connection; every field is a number or a name without blanks."""

_FIELDS = len(FORMAT.split())
_LINE_LIMIT_BYTES = 1024
# HAProxy's own names, <NOSRV> among them; nothing a terminal would obey.
_NAME = re.compile(r"[A-Za-z0-9._<>~-]{1,255}\Z")
_STATE = re.compile(r"[A-Za-z-]{2}\Z")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_FILE_LIMIT_BYTES = 8 << 20
_FILES = 3
_SAVE_EVERY = 200
_WAKE_S = 0.5

_WHO = {
    "C": "the client closed it",
    "S": "the member closed it or refused it",
    "P": "the balancer refused it (a limit, or no TLS ClientHello)",
    "L": "the balancer answered it itself",
    "R": "the balancer had no memory, sockets or ports left",
    "I": "the balancer failed inside",
    "D": "the member was found dead",
    "U": "a better member came back",
    "K": "an administrator or a stopping worker cut it",
    "c": "the client was silent for too long",
    "s": "the member was silent for too long",
}
_WHEN = {
    "R": "before it had said what it wants",
    "Q": "while it waited for a free place on a member",
    "C": "while the balancer connected to the member",
    "H": "while the member's first words were awaited",
    "D": "while data went to and fro",
    "L": "while the last data went to the client",
    "T": "while it was held back",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """One finished connection.

    Attributes:
        at: when it was accepted, seconds since the epoch by the balancer's clock.
        server: the member, empty when none was reached.
        queued_ms: how long it waited for a place on a member; -1: it left before.
        connected_ms: how long connecting took, tries included; -1: no connection came about.
        total_ms: from accept to end.
        bytes_in: from the client; ``bytes_out`` to the client.
        state: HAProxy's two letters about its end; ``--`` is a normal one.
        retries: failed tries to connect.
        redispatched: it ended on another member than the one it was meant for.
    """

    client: str
    port: int
    at: float
    service: str
    backend: str
    server: str
    queued_ms: int
    connected_ms: int
    total_ms: int
    bytes_in: int
    bytes_out: int
    state: str
    retries: int
    redispatched: bool

    @property
    def failed(self) -> bool:
        """Whether the member or the balancer, not the client, ended it early."""
        return self.state[:1] not in ("-", "C", "c", "L")

    @property
    def end(self) -> str:
        """How it ended, in words."""
        who, when = _WHO.get(self.state[:1], ""), _WHEN.get(self.state[1:2], "")
        if not who:
            return "ended normally" if self.state.startswith("-") else f"ended as {self.state}"
        return f"{who} {when}".strip()

    @property
    def sentence(self) -> str:
        """Everything about it in one line."""
        when = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        open_to = self.backend.endswith("_panic")
        member = self.server or "no member"
        tried = f", {self.retries} failed tries to connect" if self.retries else ""
        moved = " after another member refused" if self.redispatched else ""
        panic = ", while every check failed" if open_to else ""
        return (
            f"{when}Z {self.client}:{self.port} {self.service} → {member}{moved}{panic}: {self.total_ms / 1000:.3f} s, "
            f"{self.bytes_in} bytes in, {self.bytes_out} out{tried}; {self.end}"
        )

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "failed": self.failed, "end": self.end}


def parsed(line: str) -> tuple[str, Connection] | None:
    """Return a line's identity and connection, None when it is no line of :data:`FORMAT`."""
    words = line.split()
    if len(words) != _FIELDS or words[0] != "muster":
        return None
    if not all(_NAME.match(w) for w in words[7:10]) or not _STATE.match(words[15]):
        return None
    try:
        client = _client(words[3])
        numbers = [_number(w) for w in (*words[4:7], *words[10:15], words[16])]
    except ValueError:
        return None
    port, seconds, ms, queued, connected, total, up, down, retries = numbers
    frontend, backend, server, state = words[7], words[8], words[9], words[15]
    found = Connection(
        client=client,
        port=port,
        at=seconds + ms / 1000,
        service=frontend.rstrip("~").removesuffix("_in"),
        backend=backend,
        server="" if server.startswith("<") else server,
        queued_ms=queued,
        connected_ms=connected,
        total_ms=total,
        bytes_in=up,
        bytes_out=down,
        state=state,
        retries=retries,
        redispatched=words[16].startswith("+"),
    )
    return f"{words[1]}:{words[2]}", found


def _client(text: str) -> str:
    """Return an address as people write it: an IPv4 client of a dual-stack listener as IPv4."""
    address = ipaddress.ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _number(text: str) -> int:
    # int() also takes blanks, underscores and the digits of every script.
    if not _NUMBER.match(text):
        raise ValueError(text)
    return int(text)


@dataclass(slots=True)
class Totals:
    """What went to one member since its balancer was first started."""

    connections: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, connection: Connection) -> None:
        self.connections += 1
        self.failed += connection.failed
        self.bytes_in += connection.bytes_in
        self.bytes_out += connection.bytes_out


class Journal:
    """The socket HAProxy's workers write to, and the files that keep what they wrote; open inside its block.

    Attributes:
        totals: by member.

    Concurrency: a thread of its own reads; ``totals`` may be looked at from others.
    """

    def __init__(self, run: Path, *, limit_bytes: int = _FILE_LIMIT_BYTES) -> None:
        self._path = socket_path(run)
        self._files = files(run)
        self._totals_file = run / "totals.json"
        self._limit_bytes = limit_bytes
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.totals: dict[str, Totals] = _remembered(self._totals_file)

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        try:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            opened.bind(str(self._path))
        except OSError as e:
            raise Unavailable(f"Listening on {self._path} failed: {e.strerror or e}") from e
        self._path.chmod(0o600)
        opened.settimeout(_WAKE_S)
        self._socket = opened
        self._thread = threading.Thread(target=self._read, args=(opened,), name="haproxy journal", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2 * _WAKE_S + 1)
        if self._socket is not None:
            self._socket.close()
        self._path.unlink(missing_ok=True)
        self.save()

    def save(self) -> None:
        """Keep the totals for the next start; a full disk loses them and nothing else."""
        content = {name: asdict(t) for name, t in sorted(self.totals.items())}
        try:
            write_atomically(self._totals_file, json.dumps(content), mode=0o600)
        except Unavailable as e:
            _log.debug("Totals were not saved", why=str(e))

    def _read(self, opened: socket.socket) -> None:
        unsaved = 0
        while not self._closing.is_set():
            try:
                line = opened.recv(_LINE_LIMIT_BYTES).decode("utf-8", "replace").strip()
            except TimeoutError:
                continue
            except OSError:
                return
            found = parsed(line)
            if found is None:
                continue
            _, connection = found
            if connection.server:
                self.totals.setdefault(connection.server, Totals()).add(connection)
            self._keep(line)
            unsaved += 1
            if unsaved >= _SAVE_EVERY:
                unsaved = 0
                self.save()

    def _keep(self, line: str) -> None:
        newest = self._files[0]
        # A full disk costs what is told about connections, never the connections.
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                if newest.stat().st_size > self._limit_bytes:
                    for older, old in zip(reversed(self._files[1:]), reversed(self._files[:-1]), strict=True):
                        with contextlib.suppress(FileNotFoundError):
                            old.replace(older)
            fd = os.open(newest, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "ab") as f:
                f.write(f"{line}\n".encode())


def socket_path(run: Path) -> Path:
    return run / "journal.sock"


def files(run: Path) -> list[Path]:
    """Return the files that keep lines, the newest first."""
    return [run / f"connections.{n}.log" for n in range(_FILES)]


def connections(run: Path) -> Iterator[Connection]:
    """Yield what is kept about finished connections, the newest first."""
    for path in files(run):
        try:
            lines = path.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in reversed(lines):
            found = parsed(line)
            if found is not None:
                yield found[1]


def asked_for(text: str) -> Callable[[Connection], bool]:
    """Return whether a connection is the one, or of the client, that a person named: ``ADDRESS`` or ``ADDRESS:PORT``.

    Raises:
        Rejected: it is neither.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        client = _client(host)
        number = int(port) if port else None
    except ValueError:
        raise Rejected(f"{shown(text)} is neither a client's address nor ADDRESS:PORT of a connection") from None
    return lambda c: c.client == client and number in (None, c.port)


def found(run: Path, text: str, *, most: int) -> list[Connection]:
    """Return the newest connections a person asks for, the newest first.

    Raises:
        Rejected: the text is no address.
    """
    wanted = asked_for(text)
    out: list[Connection] = []
    for connection in connections(run):
        if wanted(connection):
            out.append(connection)
            if len(out) >= most:
                break
    return out


def summed(totals: Mapping[str, Totals]) -> dict[str, dict[str, int]]:
    """Return totals as plain numbers."""
    return {name: asdict(t) for name, t in sorted(totals.items())}


def _remembered(path: Path) -> dict[str, Totals]:
    fields: Iterable[str] = Totals.__dataclass_fields__
    try:
        content = json.loads(path.read_text())
        return {str(name): Totals(**{f: int(row.get(f, 0)) for f in fields}) for name, row in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
