"""``muster netboot tftp``: a TFTP server in the foreground, by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import one_line
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import in_url, ip_address, shown

if TYPE_CHECKING:
    from muster.netboot.tftp.settings import TFTPSettings
    from muster.netboot.tftp.told import TransferEnded

_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]{2,60})\]|([0-9.]{7,15})):([0-9]{1,5})\Z")
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})\Z")
# The first descriptor that systemd hands over (sd_listen_fds(3)).
_FIRST_HANDED = 3
_LINES = 4096
_LAST_LINES_S = 2.0


class Place(click.ParamType[tuple[str, int]]):
    """An address with a port, IPv6 in brackets."""

    name = "address:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        found = _LISTEN.match(str(value))
        if found is None or int(found[3]) > 65535:
            self.fail(f"{shown(value)} is no ADDRESS:PORT such as 192.0.2.1:69 or [2001:db8::1]:69", param, ctx)
        try:
            return str(ip_address(found[1] or found[2])), int(found[3])
        except Rejected as e:
            self.fail(str(e), param, ctx)


class Ports(click.ParamType[tuple[int, int]]):
    """Two ports, first and last."""

    name = "low-high"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = _PORTS.match(str(value))
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
            self.fail(f"{shown(value)} is no LOW-HIGH such as 30000-30999", param, ctx)
        return int(found[1]), int(found[2])


@click.command()
@click.option(
    "--root",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MUSTER_TFTP_ROOT",
    show_envvar=True,
    help="The directory whose files are served.",
)
@click.option(
    "--listen",
    type=Place(),
    multiple=True,
    help="Where to listen; may be repeated. [default: port 69 of every address, or what systemd hands over]",
)
@click.option("--data-ports", type=Ports(), help="Send files from these UDP ports, for a firewall. [default: any]")
@click.option(
    "--blksize", type=click.IntRange(8, 65464), default=65464, show_default=True, help="The most a client gets."
)
@click.option(
    "--windowsize", type=click.IntRange(1, 1024), default=64, show_default=True, help="The most a client gets."
)
@click.option(
    "--transfers", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="How many files at a time."
)
@click.option(
    "--per-client",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="How many of them to one address.",
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    help="Seconds that files on their way have left when it is stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tftp(
    root: Path,
    listen: tuple[tuple[str, int], ...],
    data_ports: tuple[int, int] | None,
    blksize: int,
    windowsize: int,
    transfers: int,
    per_client: int,
    drain_s: float,
    as_json: bool,
) -> None:
    """Serve the files below a directory over TFTP, to read, until it is stopped.

    Prints a line for each request when it is over. TERM and INT let files on their way finish; a second one ends them.
    """
    from muster.netboot.tftp.settings import TFTPSettings

    settings = TFTPSettings(
        root.absolute(),
        data_ports=data_ports,
        blksize_limit=blksize,
        windowsize_limit=windowsize,
        transfers_limit=transfers,
        transfers_per_client=per_client,
        drain_s=drain_s,
    )
    asyncio.run(_served(settings, listen, as_json=as_json))


async def _served(settings: TFTPSettings, listen: tuple[tuple[str, int], ...], *, as_json: bool) -> None:
    from muster.kernel import log
    from muster.netboot.tftp import sockets
    from muster.netboot.tftp.server import TFTPServer

    log.configure(form="json" if as_json else "text")

    def told(one: TransferEnded) -> None:
        lines.say(json.dumps({"event": "transfer", **one.as_json()}) if as_json else _line(one))

    lines = _Lines()
    bound = [sockets.listening(*place) for place in listen] or _handed()
    async with TFTPServer(settings, told=told, handed=bound) as server:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        if as_json:
            lines.say(json.dumps({"event": "ready", "listening": server.places, "root": str(settings.root)}))
        else:
            places = ", ".join(f"{in_url(address)}:{port}" for address, port in server.places)
            lines.say(f"Serving {settings.root} over TFTP on {places}")
        await asked.wait()
        asked.clear()
        stopping = asyncio.create_task(server.stop())
        again = asyncio.create_task(asked.wait())
        await asyncio.wait([stopping, again], return_when=asyncio.FIRST_COMPLETED)
        for task in (again, stopping):
            task.cancel()
        await asyncio.gather(again, stopping, return_exceptions=True)
        done = server.statistics
    if as_json:
        said = {"files": done.files, "bytes": done.bytes, "ended": done.ended, "dropped": done.dropped}
        lines.say(json.dumps({"event": "stopped", **said}))
    lines.close()


def _handed() -> list[socket.socket]:
    """Return the UDP sockets that systemd has bound for this process; none when it was not started so.

    Source: sd_listen_fds(3).
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    found = []
    for fd in range(_FIRST_HANDED, _FIRST_HANDED + (int(count) if re.fullmatch(r"[0-9]{1,3}", count) else 0)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise Misconfigured("systemd hands over a socket that is not UDP: TFTP wants ListenDatagram=")
        found.append(sock)
    return found


def _line(one: TransferEnded) -> str:
    rate = f", {one.bytes / one.duration_s / 1e6:.1f} MB/s" if one.outcome == "sent" and one.duration_s > 0 else ""
    terms = f", blksize {one.blksize}, windowsize {one.windowsize}" if one.blksize else ""
    resent = f", {one.resent} sent again" if one.resent else ""
    why = f": {one.reason}" if one.reason else ""
    return (
        f"{in_url(one.client)}:{one.port} {one.name or '-'} {one.outcome}, {one.bytes} bytes in {one.duration_s:.2f} s"
        f"{rate}{terms}{resent}{why}"
    )


class _Lines:
    """Lines to standard output, written by a thread: a reader that hangs, or a pipe that nobody empties, holds up no file.

    What is said while so many lines wait is lost.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_LINES)
        self._thread = threading.Thread(target=self._write, name="lines", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        # Names of files come from whoever asks, and a terminal obeys what it is sent.
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(one_line(text).encode("utf-8", "replace") + b"\n")

    def close(self) -> None:
        """Wait a little until all is written."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_LAST_LINES_S)
            self._thread.join(_LAST_LINES_S)

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            # Not by way of Python's own buffer, whose lock would keep the process from ending.
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(1, line) :]
