"""HAProxy's two command sockets: the worker's, for servers, and the master's, for processes and reloads.

HAProxy reads ``;`` and line ends as further commands, so every name that goes into one is checked here again.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.names import shown

_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")
_LIMIT_BYTES = 16 << 20
_PROCESS = re.compile(
    r"^(?P<pid>\d+)\s+(?P<type>master|worker)\s+(?P<reloads>\d+)\s+(?P<uptime>\S+)\s*(?P<version>\S*)"
)


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server of one backend as HAProxy sees it now.

    Attributes:
        status: HAProxy's word: UP, DOWN, NOLB (told to drain by its own answer), DRAIN, MAINT, ``no check`` …
        check: outcome of the last check, such as L7OK or L4CON; empty without one.
        check_code: the HTTP status it answered; None when it answered none.
        last_check: what the answer said.
        agent: what an agent said; empty without one.
        down_s: seconds it was down since the worker started.
        changed_s: seconds since the status changed.
    """

    backend: str
    server: str
    status: str
    weight: int
    sessions: int
    total_sessions: int
    check: str
    check_code: int | None
    last_check: str
    agent: str
    bytes_in: int
    bytes_out: int
    down_s: int
    changed_s: int
    address: str

    @property
    def takes_traffic(self) -> bool:
        """Whether new connections go there."""
        return self.status.startswith(("UP", "no check"))


@dataclass(frozen=True, slots=True)
class Process:
    """One line of ``show proc``."""

    pid: int
    type: Literal["master", "worker"]
    reloads: int
    is_old: bool
    version: str


class RuntimeSocket:
    """The worker's command socket. Concurrency: safe; each question has its own connection."""

    def __init__(self, path: Path, *, timeout_s: float = 3.0) -> None:
        self.path = path
        self.timeout_s = timeout_s

    async def ask(self, command: str) -> str:
        """Return the answer to one command.

        Raises:
            Rejected: the command holds a line end or ``;``.
            Unavailable: nobody listens on the socket, or no answer came in time.
        """
        return await _asked(self.path, [command], self.timeout_s)

    async def servers(self) -> list[ServerState]:
        """Return every server of every backend, in the configuration's order."""
        return server_states(await self.ask("show stat -1 4 -1"))

    async def drain(self, backend: str, server: str) -> None:
        """Let the server finish what it has and send it nothing new.

        Raises:
            NotFound: no such backend or server.
        """
        await self._tell(f"set server {_server(backend, server)} state drain")

    async def ready(self, backend: str, server: str) -> None:
        """Undo drain and maintenance; checks decide again."""
        await self._tell(f"set server {_server(backend, server)} state ready")

    async def maint(self, backend: str, server: str) -> None:
        """Take the server out and stop its checks."""
        await self._tell(f"set server {_server(backend, server)} state maint")

    async def health(self, found: Mapping[tuple[str, str], Literal["down", "stopping"]]) -> None:
        """Say what checks of these servers would find: they fail, or drain. Their next checks decide again.

        All of it goes over one connection, because HAProxy takes ten at once. Servers that are not there, or are
        checked elsewhere (``track``), are passed over; one without checks would stay down.

        Raises:
            Unavailable: HAProxy did not answer.
        """
        commands = [f"set server {_server(*place)} health {state}" for place, state in found.items()]
        await _asked(self.path, commands, self.timeout_s)

    async def weight(self, backend: str, server: str, weight: int) -> None:
        """Set the server's share, 0 to 256, where 100 is everybody's."""
        if not 0 <= weight <= 256:
            raise Rejected(f"Weight {weight} is not between 0 and 256")
        await self._tell(f"set server {_server(backend, server)} weight {weight:d}")

    async def add(self, command: str) -> None:
        """Carry out one of the commands that add a server (:class:`~muster.balancer.haproxy.additions.Addition`).

        Raises:
            Rejected: HAProxy refuses; it says only so in words.
        """
        answer = (await self.ask(command)).strip()
        if answer and "New server registered" not in answer:
            raise Rejected(f"HAProxy refuses {command!r}: {shown(answer)}")

    async def cut_sessions(self, backend: str, server: str) -> None:
        """Close every connection the server has; clients see it."""
        await self._tell(f"shutdown sessions server {_server(backend, server)}")

    async def sessions(self, server: str) -> int:
        """Return how many connections the server has, all services together, in this worker only."""
        _name(server)
        return sum(s.sessions for s in await self.servers() if s.server == server)

    async def state_file_content(self) -> str:
        """Return what a new worker must read to know drains, maintenance and downs."""
        return await self.ask("show servers state")

    async def _tell(self, command: str) -> None:
        answer = (await self.ask(command)).strip()
        if not answer:
            return
        if answer.startswith("No such"):
            raise NotFound(f"HAProxy has no server for {command!r}: {shown(answer)}")
        raise Rejected(f"HAProxy refuses {command!r}: {shown(answer)}")


class MasterSocket:
    """The master's command socket. Concurrency: safe; it is gone for a moment during each reload."""

    def __init__(self, path: Path, *, timeout_s: float = 3.0) -> None:
        self.path = path
        self.timeout_s = timeout_s

    async def ask(self, command: str, *, timeout_s: float | None = None) -> str:
        """As :meth:`RuntimeSocket.ask`."""
        return await _asked(self.path, [command], timeout_s or self.timeout_s)

    async def processes(self) -> list[Process]:
        """Return the master, the workers and the old workers that finish their connections."""
        return processes(await self.ask("show proc"))

    async def reload(self, *, timeout_s: float = 30.0) -> str:
        """Start a new worker from the configuration file and return what HAProxy said.

        2.6 says nothing and answers before the outcome is known; 2.7 and later say ``Success=1`` or ``Success=0`` and
        why. The caller looks for the new worker either way.
        """
        return await self.ask("reload", timeout_s=timeout_s)

    async def of_worker(self, pid: int, command: str) -> str:
        """Return one worker's answer, also an old one's."""
        return await self.ask(f"@!{pid:d} {command}")

    async def sessions(self, server: str) -> int:
        """Return how many connections the server has over all workers, old ones included."""
        _name(server)
        return sum(s.sessions for s in await self.servers_of_all_workers() if s.server == server)

    async def servers_of_all_workers(self) -> list[ServerState]:
        """Return every server as each worker sees it, old workers included."""
        workers = [p.pid for p in await self.processes() if p.type == "worker"]
        return [s for pid in workers for s in server_states(await self.of_worker(pid, "show stat -1 4 -1"))]


def server_states(text: str) -> list[ServerState]:
    """Return the servers of a ``show stat`` answer; lines that are none, or half of one, are left out."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("# ").replace("\0", "")), restkey="more", restval="")
    try:
        rows = list(reader)
    except csv.Error:
        return []
    return [_state(r) for r in rows if r.get("pxname") and r.get("svname") not in ("", None, "FRONTEND", "BACKEND")]


def processes(text: str) -> list[Process]:
    """Return the processes of a ``show proc`` answer."""
    found, is_old = [], False
    for line in text.splitlines():
        if line.startswith("#"):
            is_old = line.startswith("# old")
        elif m := _PROCESS.match(line):
            kind: Literal["master", "worker"] = "master" if m["type"] == "master" else "worker"
            found.append(Process(int(m["pid"]), kind, int(m["reloads"]), is_old, m["version"]))
    return found


def _state(row: dict[str, str]) -> ServerState:
    def number(column: str) -> int:
        text = row.get(column) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    return ServerState(
        backend=row["pxname"],
        server=row["svname"],
        status=row.get("status") or "",
        weight=number("weight"),
        sessions=number("scur"),
        total_sessions=number("stot"),
        check=(row.get("check_status") or "").removeprefix("* "),
        check_code=number("check_code") or None,
        last_check=row.get("last_chk") or "",
        agent=row.get("agent_status") or "",
        bytes_in=number("bin"),
        bytes_out=number("bout"),
        down_s=number("downtime"),
        changed_s=number("lastchg"),
        address=row.get("addr") or "",
    )


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise Rejected(f"{shown(text)} cannot be a name in an HAProxy command")
    return text


def _server(backend: str, server: str) -> str:
    return f"{_name(backend)}/{_name(server)}"


async def _asked(path: Path, commands: Sequence[str], timeout_s: float) -> str:
    for command in commands:
        if any(c in command for c in "\r\n;\0"):
            raise Rejected(f"{shown(command)} is more than one HAProxy command")
    command = "; ".join(commands)
    try:
        async with asyncio.timeout(timeout_s):
            return await _conversation(path, command)
    except TimeoutError:
        raise Unavailable(f"HAProxy did not answer {command!r} on {path} within {timeout_s:g} s") from None
    except OSError as e:
        raise Unavailable(f"Asking HAProxy {command!r} on {path} failed: {e.strerror or e}") from e


async def _conversation(path: Path, command: str) -> str:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(f"{command}\n".encode())
        await writer.drain()
        # The master waits for more commands until its client closes its half.
        writer.write_eof()
        answer = b""
        while chunk := await reader.read(1 << 16):
            answer += chunk
            if len(answer) > _LIMIT_BYTES:
                raise Unavailable(f"HAProxy's answer to {command!r} is longer than {_LIMIT_BYTES} bytes")
        return answer.decode("utf-8", "replace")
    finally:
        writer.close()
