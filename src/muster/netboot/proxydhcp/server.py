"""The server: hears questions on two ports, lets the few through that are answered, and answers them one after another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from muster.kernel import log
from muster.kernel.errors import Rejected
from muster.kernel.happenings import Happening, Tell, untold
from muster.netboot.buckets import Buckets
from muster.netboot.proxydhcp import answers, sockets
from muster.netboot.proxydhcp.answers import BOOT_PORT, DHCP_PORT, BootServer, Client, Instructions
from muster.netboot.proxydhcp.metrics import Ignored, ProxyDHCPMetrics, Way
from muster.netboot.proxydhcp.packet import Packet, parsed, written
from muster.netboot.proxydhcp.sockets import Datagram

# A machine asks four times within half a minute; it may be that one of several systems on it asks at the same time.
ONE_PER_S, ONE_AT_ONCE = 5.0, 10.0
_MOST_SOURCES = 4096
_log = log.logger("netboot")

# What one turn of the loop takes from a socket; the kernel keeps the rest.
_AT_ONCE = 32
_MOST_WAITING = 256
# A machine asks again after a second at the soonest; who answers later answers nobody.
_DISK_S = 1.0
_LOOPBACK = "lo"
_NOWHERE = IPv4Address(0)


def paced(questions_per_s: float, now: float) -> Buckets:
    """Return what says how many questions are answered; one that asks too often uses up nothing of what others have."""
    each, together = (ONE_PER_S, ONE_AT_ONCE), (questions_per_s, 2 * questions_per_s)
    return Buckets(each, together, now, clients=_MOST_SOURCES)


class ProxyDHCPServer:
    """One member's. Use as an asynchronous context manager; :meth:`listen` opens its ports.

    Args:
        root: the directory in which the tree of boot files stands; None: there is none here.
        tell: hears what machines were told.

    Attributes:
        holds: this member answers on port 67.
        may_serve: it answers on port 4011.
        servers: who may serve boot files; the answer names one of them.

    Concurrency: one loop. Questions wait in a bounded queue, and are answered in their order.
    """

    def __init__(
        self,
        told: Instructions,
        root: Path | None,
        counted: ProxyDHCPMetrics,
        *,
        now: Callable[[], float] = time.monotonic,
        tell: Tell = untold,
    ) -> None:
        self._tell = tell
        self.holds = False
        self.may_serve = False
        self.servers: Sequence[BootServer] = ()
        self._told = told
        self._root = root
        self._counted = counted
        self._now = now
        self._buckets = paced(told.settings.questions_per_s, now())
        self._sockets: dict[int, socket.socket] = {}
        self._waiting: asyncio.Queue[tuple[Packet, Client, Datagram]] = asyncio.Queue(_MOST_WAITING)
        self._answering: asyncio.Task[None] | None = None
        self._looking: asyncio.Future[bool] | None = None

    async def __aenter__(self) -> ProxyDHCPServer:
        self._answering = asyncio.create_task(self._answer_all(), name="ProxyDHCP")
        return self

    async def __aexit__(self, *_: object) -> None:
        for sock in self._sockets.values():
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()
        if self._answering is not None:
            self._answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._answering

    @property
    def interfaces(self) -> Sequence[str]:
        """Those on which it hears; empty: all."""
        return self._told.settings.interfaces

    @property
    def listens(self) -> bool:
        return bool(self._sockets)

    def listen(self) -> None:
        """Open both ports, or none.

        Raises:
            Misconfigured: one cannot be listened on; the sentence says which, and why.
        """
        with contextlib.ExitStack() as stack:
            asked = sockets.listening(DHCP_PORT, broadcasts_only=not self._told.settings.relays)
            opened = {DHCP_PORT: stack.enter_context(asked)}
            opened[BOOT_PORT] = stack.enter_context(sockets.listening(BOOT_PORT))
            stack.pop_all()
        self._sockets = opened
        for port, sock in opened.items():
            asyncio.get_running_loop().add_reader(sock, self._hear, sock, port)

    def absent_interfaces(self) -> Sequence[str]:
        """Return the interfaces of the settings that this host has not."""
        if not self._told.settings.interfaces:
            return ()
        there = {name for _, name in socket.if_nameindex()}
        return [name for name in self._told.settings.interfaces if name not in there]

    def _hear(self, sock: socket.socket, port: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                datagram = sockets.received(sock, port)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                # What an earlier answer met on its way; the socket is as good as before.
                _log.debug("A socket of ProxyDHCP said", port=port, why=str(e))
                continue
            self._counted.asked(port)
            reason = self._taken(datagram) if datagram is not None else "malformed"
            if reason is not None:
                self._counted.ignored(reason)

    def _taken(self, datagram: Datagram) -> Ignored | None:
        """Put a question in the queue, or return why it is none that is answered."""
        if not self._hears(datagram.interface) or datagram.here == _NOWHERE:
            return "interface"
        # First what costs nothing: most that comes is a DHCP server's.
        if datagram.port == DHCP_PORT and not self.holds:
            return "other_member"
        if datagram.port == BOOT_PORT:
            if not datagram.was_for_us:
                return "not_addressed"
            if not self.may_serve:
                return "not_ready"
        try:
            packet = parsed(datagram.content)
        except Rejected:
            return "malformed"
        client = answers.asked(packet, datagram.port)
        if isinstance(client, str):
            return client
        if self._buckets.full(client.identity, self._now()) is not None:
            return "pace"
        try:
            self._waiting.put_nowait((packet, client, datagram))
        except asyncio.QueueFull:
            return "busy"
        return None

    def _hears(self, interface: int) -> bool:
        try:
            name = socket.if_indextoname(interface)
        except OSError:
            return False
        return name in self._told.settings.interfaces if self._told.settings.interfaces else name != _LOOPBACK

    async def _answer_all(self) -> None:
        while True:
            packet, client, datagram = await self._waiting.get()
            try:
                reason = await self._answer(packet, client, datagram)
            except Exception:  # noqa: BLE001 - boundary: one machine's question must not end the answers of all others
                _log.exception("A question for what to boot broke", mac=client.mac)
                continue
            if reason is not None:
                self._counted.ignored(reason)

    async def _answer(self, packet: Packet, client: Client, datagram: Datagram) -> Ignored | None:
        has_own = await self._looked(client)
        if has_own is None:
            # A machine with Secure Boot must not be told what it refuses.
            return "slow"
        boot = answers.decided(client, self._told, self.servers, has_own=has_own)
        if isinstance(boot, str):
            return boot
        sock = self._sockets.get(datagram.port)
        if sock is None:
            return "unsent"
        content = written(answers.reply(packet, boot, datagram.here))
        to = answers.way_back(packet, datagram.port, datagram.source)
        try:
            sockets.send(sock, content, datagram, to)
        except OSError as e:
            _log.warning("An answer of ProxyDHCP was not sent", to=f"{to[0]}:{to[1]}", why=str(e))
            return "unsent"
        way: Way = "tftp" if boot.server is not None else "ipxe" if client.is_ipxe else "http"
        self._counted.answered(datagram.port, way)
        _log.info(
            "A machine was told what to boot", mac=client.mac or packet.hardware_address.hex(), architecture=client.word,
            file=boot.file, server=str(boot.server or ""), port=datagram.port,
        )  # fmt: skip
        # Behind the question mark of a URL may stand a secret.
        said = {"file": boot.file.partition("?")[0], "server": str(boot.server or "") or None, "port": datagram.port}
        self._tell(Happening("proxydhcp", client.mac, "", said))
        return None

    async def _looked(self, client: Client) -> bool | None:
        """Return whether the tree has the machine's own loader; None: the disk does not say."""
        if self._told.own_file(client) is None or self._root is None:
            return False
        if self._looking is not None and not self._looking.done():
            # A disk that hangs holds one thread, and not one for each machine.
            return None
        self._looking = asyncio.ensure_future(asyncio.to_thread(self._has_own, client))
        done, _ = await asyncio.wait([self._looking], timeout=_DISK_S)
        return self._looking.result() if done else None

    def _has_own(self, client: Client) -> bool:
        own = self._told.own_file(client)
        if own is None or self._root is None:
            return False
        try:
            # A link that leads to nothing is as good as none.
            return (self._root / own.text).is_file()
        except OSError:
            return False
