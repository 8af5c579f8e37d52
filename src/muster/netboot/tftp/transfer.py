"""One file on its way to one client, from a UDP port of its own; driven by what arrives and by the server's beat."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

from muster.kernel.errors import Rejected
from muster.kernel.names import shown
from muster.netboot.tftp import packets, sockets
from muster.netboot.tftp.blocks import Blocks, Changed
from muster.netboot.tftp.packets import Ack, Error, ErrorCode
from muster.netboot.tftp.settings import WORDS
from muster.netboot.tftp.sockets import MOST_BYTES, MOST_SEGMENTS, SocketAddress
from muster.netboot.tftp.terms import Terms
from muster.netboot.tftp.told import Outcome
from muster.netboot.tftp.window import Heard, Window

_ACK: Final = packets.ack(0)[:2]
_STRANGERS_TOLD: Final = 8
_LONGEST_ANSWER: Final = 1024
# What the kernel says where it cannot cut a window into packets: an old one, or a device that has no checksums.
_NOT_SEGMENTED: Final = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


class Transfer:
    """Sends blocks until all are acknowledged.

    Args:
        sock: its own; closed with it.
        now: seconds that only grow.
        ended: called once, with what became of it and one sentence more.

    Attributes:
        bytes: of the file, acknowledged.

    Concurrency: one loop; nothing here waits.
    """

    def __init__(
        self,
        sock: socket.socket,
        client: SocketAddress,
        blocks: Blocks,
        terms: Terms,
        *,
        attempts: int,
        segmentation: bool,
        now: Callable[[], float],
        ended: Callable[[Outcome, str], None],
    ) -> None:
        self.bytes = 0
        self.terms = terms
        self.window = Window(
            terms.windowsize, terms.rollover, terms.timeout_s, attempts, opens_with_oack=bool(terms.answered)
        )
        self._sock = sock
        self._client = client
        self._blocks = blocks
        self._segmentation = segmentation and terms.windowsize > 1
        self._now = now
        self._ended = ended
        self._is_over = False
        self._waits_for_room = False
        self._strangers = 0
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """Send the OACK, or what may be sent without one."""
        self._loop.add_reader(self._sock.fileno(), self._readable)
        if self.terms.answered:
            self.window.went(0, self._now())
            self._send(packets.options_ack(self.terms.answered))
        else:
            self._go_on()

    def begin_again(self) -> None:
        """Send what opened it once more, because the client asked once more and has not heard us."""
        if not self._is_over and not self.window.is_heard and self.window.is_waiting:
            self._repeat()

    def beat(self) -> None:
        """Look whether the client is late."""
        now = self._now()
        if self._is_over or not self.window.is_waiting or now < self.window.due_at:
            return
        if not self.window.overdue(now):
            self.end("silent", "", packets.error(ErrorCode.UNDEFINED, "Timed out"))
            return
        self._repeat()

    def end(self, outcome: Outcome, reason: str, said: bytes | None = None) -> None:
        """End it, and tell the client why where there is something to say; the second time nothing is done."""
        if self._is_over:
            return
        self._is_over = True
        if said is not None:
            self._send(said)
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._blocks.close()
        self._ended(outcome, reason)

    def _readable(self) -> None:
        # One and no more: the others have their turn, and asking in vain whether there is another costs as much as it.
        try:
            datagram, sender = self._sock.recvfrom(_LONGEST_ANSWER)
        except OSError:
            # Nothing is there, or something on the way said that the client cannot be reached; silence will tell.
            return
        if datagram[:2] == _ACK and len(datagram) >= 4 and sender == self._client:
            self._acknowledged(int.from_bytes(datagram[2:4], "big"))
            return
        try:
            packet = packets.parsed(datagram)
        except Rejected:
            return
        if sender[:2] != self._client[:2]:
            self._tell_stranger(packet, sender)
        elif isinstance(packet, Ack):
            self._acknowledged(packet.block)
        elif isinstance(packet, Error):
            is_question = self.bytes == 0 and bool(self.terms.answered) and not self.window.is_heard
            said = f"{packet.code} {shown(packet.message)}".strip()
            self.end("asked" if is_question else "cancelled", "" if is_question else f"the client said: {said}")

    def _acknowledged(self, number: int) -> None:
        before = max(self.window.acknowledged, 0)
        heard = self.window.heard(number, self._now())
        if heard is Heard.NOTHING:
            return
        if heard is Heard.GAP:
            self._loop.call_later(self.window.patience_s, self._look_for_gap, self.window.state)
        for _ in range(self.window.acknowledged - before):
            self.bytes += len(self._blocks.ready.popleft())
        if heard is Heard.ALL:
            self.end("sent", "")
        else:
            self._go_on()

    def _look_for_gap(self, state: tuple[int, int]) -> None:
        if not self._is_over and self.window.is_missing(state, self._now()):
            self._repeat()

    def _go_on(self) -> None:
        """Send what may be sent for the first time, as far as it is read and there is room in the kernel."""
        if self._is_over or self._waits_for_room:
            return
        window, blocks = self.window, self._blocks
        try:
            blocks.need(window.size, self._read)
        except (OSError, Changed) as e:
            self._failed(e)
            return
        if blocks.ended:
            window.last = max(window.acknowledged, 0) + len(blocks.ready)
        under_way = window.sent - max(window.acknowledged, 0)
        count = min(window.room, len(blocks.ready) - under_way)
        if count <= 0:
            return
        sent = self._transmit(window.sent + 1, under_way, count)
        if sent:
            window.went(sent, self._now())
        if sent < count and not self._is_over:
            self._waits_for_room = True
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        self._waits_for_room = False
        self._go_on()

    def _read(self, failed: BaseException | None) -> None:
        if self._is_over:
            return
        if failed is not None:
            self._failed(failed)
        else:
            self._go_on()

    def _failed(self, why: BaseException) -> None:
        if isinstance(why, Changed):
            self.end("changed", str(why), packets.error(ErrorCode.UNDEFINED, "File changed while it was read"))
            return
        said = why.strerror if isinstance(why, OSError) else str(why)
        self.end("failed", f"reading failed: {said}", packets.error(ErrorCode.UNDEFINED, "Reading failed"))

    def _repeat(self) -> None:
        """Send what is under way once more; what finds no room now is lost, and time brings it again."""
        window = self.window
        if window.acknowledged < 0:
            self._send(packets.options_ack(self.terms.answered))
        else:
            self._transmit(window.acknowledged + 1, 0, window.sent - window.acknowledged)

    def _transmit(self, first: int, at: int, count: int) -> int:
        """Send blocks, of which the first lies at that place of those that are ready; return how many went."""
        size = 4 + self.terms.blksize
        ready, number = self._blocks.ready, self.window.number
        each = min(MOST_SEGMENTS, MOST_BYTES // size) if self._segmentation else 1
        done = 0
        while done < count:
            now = min(max(each, 1), count - done)
            pieces: list[bytes | memoryview] = []
            for n in range(done, done + now):
                pieces.append(packets.data_head(number(first + n)))
                pieces.append(ready[at + n])
            try:
                if now > 1:
                    sockets.send_segmented(self._sock, pieces, size, self._client)
                else:
                    self._sock.sendmsg(pieces, [], 0, self._client)
            except OSError as e:
                if now > 1 and e.errno in _NOT_SEGMENTED:
                    self._segmentation, each = False, 1
                    continue
                if e.errno in _NO_ROOM:
                    return done
                if e.errno == errno.EINTR:
                    continue
                # The way to the client is gone, perhaps not for long: it counts as sent and lost.
            done += now
        return done

    def _tell_stranger(self, packet: packets.Packet, sender: SocketAddress) -> None:
        # An ERROR is never answered: two programs could do so for ever.
        if isinstance(packet, Error) or self._strangers >= _STRANGERS_TOLD:
            return
        self._strangers += 1
        code = ErrorCode.UNKNOWN_TRANSFER_ID
        self._send(packets.error(code, WORDS[code]), sender)

    def _send(self, datagram: bytes, to: SocketAddress | None = None) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendto(datagram, to or self._client)
