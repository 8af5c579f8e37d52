"""The server: takes requests, opens what they name, and has one :class:`Transfer` for each until it is over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Denied, Misconfigured, MusterError, NotFound, Rejected
from muster.kernel.names import shown, unmapped
from muster.kernel.tasks import ended
from muster.netboot.buckets import Buckets
from muster.netboot.tftp import jail, packets, sockets
from muster.netboot.tftp.blocks import Blocks
from muster.netboot.tftp.jail import Jail, OpenedFile
from muster.netboot.tftp.metrics import TFTPMetrics
from muster.netboot.tftp.packets import ErrorCode, Opcode, Request
from muster.netboot.tftp.settings import WORDS, TFTPSettings
from muster.netboot.tftp.sockets import Arrived
from muster.netboot.tftp.terms import Bounds, agreed
from muster.netboot.tftp.told import Dropped, Outcome, TransferEnded
from muster.netboot.tftp.transfer import Transfer

_log = log.logger("netboot")

_BEAT_S: Final = 0.05
_REQUESTS_PER_WAKE: Final = 64
_SHOWN_NAME: Final = 200
# Machines answer within milliseconds: who has not by then gives his place away where others wait for one.
_HEARD_WITHIN_S: Final = 1.0
_WITHOUT_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

# Where a client sends from: one that asks anew from there has forgotten what it asked before.
_Place = tuple[str, int]


@dataclass(slots=True)
class _Live:
    """A request that is not over: first its file is opened, then it is sent."""

    arrived: Arrived
    request: Request
    source: str
    begun: float
    transfer: Transfer | None = None
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a server has done since it began.

    Attributes:
        live: requests that are being answered now.
        files, bytes: of those that were sent whole; all bytes that clients acknowledged.
        ended: how many requests had which outcome.
        dropped: how many datagrams got no answer, by why.
    """

    live: int
    files: int
    bytes: int
    ended: Mapping[Outcome, int]
    dropped: Mapping[Dropped, int]


@dataclass
class TFTPServer:
    """Serves a directory over TFTP for as long as its block lasts.

    ::

        async with TFTPServer(TFTPSettings(Path("/srv/tftp"))) as server:
            ...

    Args:
        told: hears of each request that was taken up, when it is over.
        is_fit: says whether what lies below the root may be given now; asked of each request, so it looks at values only.
            Where it may not nothing is answered, and the client asks again.
        handed: bound UDP sockets to listen on instead of the settings' addresses, as systemd hands them over; the server
            closes them.

    Raises:
        Misconfigured: on entering: the root is none, or an address or port cannot be had.

    Concurrency: one loop, all of it; files are opened, and read where the disk has to be waited for, by threads of its own.
    """

    settings: TFTPSettings
    clock: Clock = field(default_factory=SystemClock)
    metrics: TFTPMetrics | None = None
    told: Callable[[TransferEnded], None] = lambda _: None
    is_fit: Callable[[], bool] = lambda: True
    handed: Sequence[socket.socket] = ()
    _sockets: list[socket.socket] = field(default_factory=list, init=False, repr=False)
    _live: dict[_Place, _Live] = field(default_factory=dict, init=False, repr=False)
    # In the order in which they began; of those that were heard, or are over, the oldest are let go of now and then.
    _unheard: deque[_Live] = field(default_factory=deque, init=False, repr=False)
    _clients: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _ended: Counter[Outcome] = field(default_factory=Counter, init=False, repr=False)
    _dropped: Counter[Dropped] = field(default_factory=Counter, init=False, repr=False)
    _bytes: int = field(default=0, init=False, repr=False)
    _stops: bool = field(default=False, init=False, repr=False)

    async def __aenter__(self) -> Self:
        self._jail = Jail(self.settings.root)
        await asyncio.to_thread(self._jail.check)
        settings = self.settings
        each = (settings.client_requests_per_s, settings.client_requests_at_once)
        self._buckets = Buckets(each, (settings.requests_per_s, settings.requests_at_once), self.clock.monotonic())
        self._seldom = log.Seldom(now=self.clock.monotonic)
        self._is_busy = asyncio.Event()
        self._executor = ThreadPoolExecutor(settings.reader_threads, thread_name_prefix="tftp")
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        self._task = asyncio.create_task(self._beats(), name="tftp")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Address and port of each socket it listens on."""
        return tuple(s.getsockname()[:2] for s in self._sockets)

    @property
    def statistics(self) -> Statistics:
        files = self._ended["sent"]
        return Statistics(len(self._live), files, self._bytes, dict(self._ended), dict(self._dropped))

    async def stop(self) -> None:
        """Take no request any more, let transfers finish for ``drain_s``, then end them; the second time nothing is done."""
        if self._stops:
            return
        self._stops = True
        self._close_listeners()
        try:
            limit = self.clock.monotonic() + self.settings.drain_s
            while self._live and self.clock.monotonic() < limit:
                await self.clock.sleep(_BEAT_S)
        finally:
            said = packets.error(ErrorCode.UNDEFINED, "The server is being stopped")
            for one in list(self._live.values()):
                self._end(one, "stopped", "", said)
            await ended([self._task])
            self._close()

    def _open(self) -> None:
        if self.handed:
            self._sockets = list(self.handed)
            for sock in self._sockets:
                sockets.prepared(sock)
        else:
            port = self.settings.port
            for address in self.settings.addresses:
                try:
                    sock = sockets.listening(address, port)
                except Misconfigured as e:
                    # All addresses of a family that this host does not have are none.
                    cause = e.__cause__
                    if (
                        address == "::"
                        and isinstance(cause, OSError)
                        and cause.errno in _WITHOUT_IPV6
                        and self._sockets
                    ):
                        continue
                    raise
                self._sockets.append(sock)
                # Any free port is the same one on all addresses.
                port = port or sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock.fileno(), self._readable, sock)

    def _close_listeners(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _close(self) -> None:
        self._close_listeners()
        # A disk that hangs would hold up whoever waits for its thread.
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _beats(self) -> None:
        while True:
            if not self._live:
                self._is_busy.clear()
                await self._is_busy.wait()
            await self.clock.sleep(_BEAT_S)
            now = self.clock.monotonic()
            for one in list(self._live.values()):
                try:
                    self._look_at(one, now)
                except Exception as e:  # noqa: BLE001 - boundary: the others are still to be looked at, now and later
                    self._defect(e)

    def _look_at(self, one: _Live, now: float) -> None:
        if now - one.begun > self.settings.longest_s:
            said = packets.error(ErrorCode.UNDEFINED, "It takes too long")
            self._end(one, "expired", f"not done after {self.settings.longest_s:g} s", said)
        elif one.transfer is not None:
            one.transfer.beat()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_REQUESTS_PER_WAKE):
            try:
                arrived = sockets.received(sock)
            except OSError:
                # What the kernel holds against an answer sent earlier is told with the next call.
                continue
            if arrived is None:
                return
            try:
                self._take(sock, arrived)
            except Exception as e:  # noqa: BLE001 - boundary: whatever one datagram runs into, the next one is served
                self._defect(e)

    def _take(self, sock: socket.socket, arrived: Arrived) -> None:
        if arrived.to_many:
            # RFC 1123 §4.2.3.5.
            self._drop("broadcast")
            return
        if arrived.datagram[:2] not in (b"\0\1", b"\0\2"):
            # Answers that come too late, mostly; an answer to them would help nobody, and somebody could ask for it.
            self._drop("no request")
            return
        if not self.is_fit():
            self._drop("not fit")
            return
        now = self.clock.monotonic()
        # Not by network as elsewhere: a whole hall of machines that boot has one /64 of IPv6, and one is fe80::.
        source = unmapped(arrived.client[0])
        full = self._buckets.full(source, now)
        if full is not None:
            self._drop(full)
            return
        try:
            request = packets.parsed(arrived.datagram)
        except Rejected as e:
            self._refuse(sock, arrived, ErrorCode.ILLEGAL_OPERATION, "", str(e))
            return
        if not isinstance(request, Request):
            self._drop("no request")
            return
        if request.opcode is Opcode.WRQ:
            self._refuse(sock, arrived, ErrorCode.ACCESS_VIOLATION, _shown(request), "nothing is written here")
            return
        try:
            wanted = jail.steps(request.name)
        except Rejected as e:
            self._refuse(sock, arrived, ErrorCode.ACCESS_VIOLATION, _shown(request), str(e))
            return
        self._begin(sock, arrived, request, wanted, source, now)

    def _begin(
        self, sock: socket.socket, arrived: Arrived, request: Request, wanted: tuple[str, ...], source: str, now: float
    ) -> None:
        place = _place(arrived)
        before = self._live.get(place)
        if before is not None:
            is_same = before.arrived.datagram == arrived.datagram
            if is_same and before.transfer is None:
                return
            if is_same and before.transfer is not None and not before.transfer.window.is_heard:
                before.transfer.begin_again()
                return
            self._end(before, "superseded", "the client asked anew")
        if self._clients[source] >= self.settings.transfers_per_client:
            self._drop("client transfers")
            return
        if len(self._live) >= self.settings.transfers_limit and not self._made_room(now):
            self._drop("transfers")
            return
        one = self._live[place] = _Live(arrived, request, source, now)
        self._forget_heard()
        self._unheard.append(one)
        self._clients[source] += 1
        self._is_busy.set()
        self._gauge()
        opening = asyncio.get_running_loop().run_in_executor(self._executor, self._jail.opened, wanted)
        opening.add_done_callback(partial(self._opened, sock, one))

    def _made_room(self, now: float) -> bool:
        """End the oldest transfer whose client never answered, if it had its time: who asks in others' names never does."""
        self._forget_heard()
        if not self._unheard or now - self._unheard[0].begun < _HEARD_WITHIN_S:
            return False
        self._end(self._unheard.popleft(), "silent", "others waited for its place")
        return True

    def _forget_heard(self) -> None:
        waiting = self._unheard
        while waiting and (
            waiting[0].is_over or (waiting[0].transfer is not None and waiting[0].transfer.window.is_heard)
        ):
            waiting.popleft()

    def _opened(self, sock: socket.socket, one: _Live, opening: asyncio.Future[OpenedFile]) -> None:
        if opening.cancelled():
            return
        failed = opening.exception()
        if failed is None and not one.is_over:
            try:
                self._send(one, opening.result())
                return
            except MusterError as e:
                failed = e
            except Exception as e:  # noqa: BLE001 - boundary: one transfer's defect is not the others'
                failed = e
        elif failed is None:
            Blocks(opening.result(), 512, "octet", self._executor).close()
        if one.is_over or failed is None:
            return
        code = ErrorCode.UNDEFINED
        outcome: Outcome = "failed"
        words = "The file cannot be sent"
        if isinstance(failed, NotFound):
            code, outcome = ErrorCode.FILE_NOT_FOUND, "absent"
            words = WORDS[code]
        elif isinstance(failed, Denied):
            code, outcome = ErrorCode.ACCESS_VIOLATION, "denied"
            # Somebody reads it on the machine's screen, and it is mostly a file's mode.
            words = f"{WORDS[code]}: {failed}"
        elif not isinstance(failed, MusterError):
            self._defect(failed)
        self._over(one, outcome, str(failed))
        if sock.fileno() >= 0:
            sockets.answer(sock, one.arrived, packets.error(code, words))

    def _send(self, one: _Live, file: OpenedFile) -> None:
        settings = self.settings
        with contextlib.ExitStack() as stack:
            wanted = one.request
            # Without the option 512 goes everywhere, and nobody has to ask the kernel.
            fitting = sockets.fitting_blksize(one.arrived) if wanted.options else None
            blksize = settings.blksize_limit if fitting is None else min(fitting, settings.blksize_limit)
            terms = agreed(wanted, file.size, Bounds(blksize, settings.windowsize_limit, settings.window_limit_bytes))
            blocks = Blocks(file, terms.blksize, wanted.mode, self._executor)
            stack.callback(blocks.close)
            sock = sockets.transfer_socket(one.arrived, settings.data_ports)
            stack.callback(sock.close)
            transfer = Transfer(
                sock,
                one.arrived.client,
                blocks,
                terms,
                attempts=settings.attempts,
                segmentation=settings.segmentation,
                now=self.clock.monotonic,
                ended=partial(self._over, one),
            )
            stack.pop_all()
        one.transfer = transfer
        transfer.begin()

    def _end(self, one: _Live, outcome: Outcome, reason: str, said: bytes | None = None) -> None:
        if one.transfer is not None:
            one.transfer.end(outcome, reason, said)
        else:
            self._over(one, outcome, reason)

    def _over(self, one: _Live, outcome: Outcome, reason: str) -> None:
        if one.is_over:
            return
        one.is_over = True
        if self._live.get(_place(one.arrived)) is one:
            del self._live[_place(one.arrived)]
        self._clients[one.source] -= 1
        if not self._clients[one.source]:
            del self._clients[one.source]
        self._gauge()
        transfer = one.transfer
        self._tell(
            TransferEnded(
                unmapped(one.arrived.client[0]),
                one.arrived.client[1],
                unmapped(one.arrived.local[0]),
                _shown(one.request),
                transfer.bytes if transfer else 0,
                outcome,
                reason,
                self.clock.monotonic() - one.begun,
                transfer.terms.blksize if transfer else 0,
                transfer.terms.windowsize if transfer else 0,
                transfer.window.resent if transfer else 0,
            )
        )

    def _refuse(self, sock: socket.socket, arrived: Arrived, code: ErrorCode, name: str, why: str) -> None:
        sockets.answer(sock, arrived, packets.error(code, WORDS[code]))
        client = unmapped(arrived.client[0])
        self._tell(
            TransferEnded(client, arrived.client[1], unmapped(arrived.local[0]), name, 0, "refused", why, 0.0, 0, 0, 0)
        )  # fmt: skip

    def _tell(self, one: TransferEnded) -> None:
        self._ended[one.outcome] += 1
        self._bytes += one.bytes
        if self.metrics is not None:
            self.metrics.ended(one)
        try:
            self.told(one)
        except Exception as e:  # noqa: BLE001 - boundary: whoever listens must not stop what is served
            self._defect(e)

    def _drop(self, why: Dropped) -> None:
        self._dropped[why] += 1
        if self.metrics is not None:
            self.metrics.dropped(why)

    def _gauge(self) -> None:
        if self.metrics is not None:
            self.metrics.live.set(len(self._live))

    def _defect(self, why: BaseException) -> None:
        if (held := self._seldom.held_back(type(why).__name__)) is not None:
            _log.error(f"A request over TFTP ran into a defect{log.and_more(held)}", exc_info=why)


def _place(arrived: Arrived) -> _Place:
    return arrived.client[0], arrived.client[1]


def _shown(request: Request) -> str:
    return shown(request.name.decode("utf-8", "backslashreplace"), _SHOWN_NAME)
