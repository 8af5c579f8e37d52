"""Processes that answer ports of the member beside it, on sockets that the member holds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from muster.app.duties.duty import Duty, Found
from muster.app.line import Asked, Line
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.kernel.rings import LogRecord, LogRings

_log = log.logger("app")

# With the rest between two questions, three times that: 15 s (docs/admin/content.md).
_WELL_TIMEOUT_S = 4.0
# So many questions in a row unanswered, and it hangs; one less, and it is not counted on.
_FALL = 3
_COUNTED_TIMEOUT_S = 2.0
# Half a second, where nothing else wants the processor; a balancer's name that does not resolve takes five.
_STARTING_S = 60.0
# Who lived that long did not end for what it was started with.
_SOON_S = 10.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LAST_WORDS_S = 1.0
# Beyond what calls in flight may take: for what a process does at its end.
_LAST_S = 5.0


@dataclass
class _Place:
    """What is known of one of them.

    Attributes:
        serving: it said that it accepts.
        unanswered: questions in a row whether it is well.
        cannot: why it says that it cannot serve; empty while it does not say so.
        why: how the last one ended; empty when none has.
    """

    number: int
    process: Process | None = None
    line: Line | None = None
    serving: bool = False
    unanswered: int = 0
    cannot: str = ""
    why: str = ""

    @property
    def away(self) -> bool:
        """Whether it takes no calls, as far as is known."""
        return not self.serving or self.unanswered >= _FALL - 1

    @property
    def said(self) -> str:
        """Why it is away; empty while it starts for the first time."""
        if self.serving:
            return "does not answer"
        return f"is started anew: {self.why}" if self.why else ""


class Workers(Duty):
    """Keeps so many workers, starts anew which ended, ends which hang, and says so.

    One socket a port, held by the member and accepted from by all: when one worker is killed, those who wait to be accepted
    are taken by the others, or by the next.

    Args:
        count: how many.
        order: what each gets at its start (:mod:`muster.app.worker`); sockets, and whether the member drains, are added.
        services: which leave the balancer while none serves.
        rings: where their records go.
        revoked: answers whether a client certificate is revoked; None: nobody asks.
        patience_s: how long calls in flight may take when the member stops.
    """

    name = "workers"
    every_s = 1.0

    def __init__(
        self,
        count: int,
        order: Mapping[str, Any],
        services: Iterable[str],
        rings: LogRings,
        revoked: Callable[[x509.Certificate], Awaitable[bool]] | None,
        *,
        patience_s: float,
    ) -> None:
        self._places = [_Place(n) for n in range(1, count + 1)]
        self._order = {**order, "has_revocations": revoked is not None}
        self._services = tuple(services)
        self._rings = rings
        self._revoked = revoked
        self._patience_s = patience_s
        self._sockets: dict[str, socket.socket] = {}
        # What each that is started hears, by its kind.
        self._holds: dict[str, Any] = {"drain": False}
        self._answers: dict[str, Asked] = {"revoked": self._is_revoked}
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Start them on listening sockets, by the listener's name; the sockets are closed with :meth:`leave`."""
        self._sockets = dict(sockets)
        self._tasks = [asyncio.create_task(self._kept(p), name=f"worker {p.number}") for p in self._places]

    def answer(self, kind: str, asked: Asked) -> None:
        """Answer questions of this kind that workers ask; said before they are started."""
        self._answers[kind] = asked

    async def beat(self) -> None:
        await asyncio.gather(*(self._looked_at(p) for p in self._places if p.serving))

    def found(self) -> Found:
        away = [p for p in self._places if p.away]
        said = [f"worker {p.number} of {len(self._places)} {p.said}" for p in away if p.said]
        if len(away) == len(self._places):
            why = f": {said[0]}" if said else ""
            return Found(dict.fromkeys(self._services, f"no worker serves{why}"))
        return Found(notes=said)

    def drain(self, draining: bool) -> None:
        """As :meth:`muster.edge.server.Server.drain`, in each of them."""
        self.hold("drain", draining)

    def hold(self, kind: str, content: Any) -> None:
        """Tell each of them something that holds until something else is told; whoever is started later hears it, too."""
        self._holds[kind] = content
        self._tell(kind, content)

    def reload(self) -> None:
        """Have each of them read its certificates again."""
        self._tell("reload")

    async def counted(self) -> dict[str, str]:
        """Return what each that answers counts, in Prometheus' text form, by its number."""
        asked = [p for p in self._places if p.line is not None and p.serving]
        answers = await asyncio.gather(*(_counted(p) for p in asked))
        return {str(p.number): text for p, text in zip(asked, answers, strict=True) if text}

    async def traffic(self) -> list[dict[str, list[int]]]:
        """Return what each that answers has counted since it was asked last (``edge/traffic.py``)."""
        asked = [p for p in self._places if p.line is not None and p.serving]
        return [t for t in await asyncio.gather(*(_traffic(p) for p in asked)) if t]

    def leave(self) -> None:
        """Have them take who waits to be accepted, finish what runs, and end; nobody is started anew."""
        self._leaving.set()
        # Theirs stay open until they have emptied them.
        for sock in self._sockets.values():
            sock.close()
        self._tell("stop")

    async def close(self) -> None:
        """As :meth:`leave`, and wait until they have ended; who hangs, or has not in time, is killed."""
        self.leave()
        if not self._tasks:
            return
        watching = asyncio.create_task(self._watched(), name="workers watched")
        _, late = await asyncio.wait(self._tasks, timeout=self._patience_s + _LAST_S)
        watching.cancel()
        for place in self._places:
            if late and place.process is not None and place.process.returncode is None:
                _log.warning("A worker did not end in time", worker=place.number)
                _kill(place.process)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watched(self) -> None:
        # The duty itself has had its last beat by now.
        while True:
            await self.beat()
            await asyncio.sleep(self.every_s)

    def _tell(self, kind: str, content: Any = None) -> None:
        for place in self._places:
            if place.line is not None:
                place.line.tell(kind, content)

    async def _kept(self, place: _Place) -> None:
        loop = asyncio.get_running_loop()
        wait_s = 0.0
        while not self._leaving.is_set():
            began = loop.time()
            try:
                how = await self._lived(place)
            except OSError as e:
                how = f"it could not be started: {e.strerror or e}"
            except Exception as e:  # noqa: BLE001 - boundary: a bug here must not be the end of a worker for good
                _log.exception("Keeping a worker broke", worker=place.number)
                how = f"{type(e).__name__}: {e}"
            finally:
                place.process = place.line = None
                place.serving = False
            if self._leaving.is_set():
                return
            lived_s = loop.time() - began
            wait_s = 0.0 if lived_s > _SOON_S else min(max(_FIRST_WAIT_S, 2 * wait_s), _LONGEST_WAIT_S)
            place.why = how
            _log.error("A worker ended; another is started", worker=place.number, how=how, in_s=wait_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._leaving.wait()

    async def _lived(self, place: _Place) -> str:
        """Start one, and return how it ended."""
        place.cannot = ""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = {name: sock.fileno() for name, sock in self._sockets.items()}
            try:
                place.process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "muster.app.worker", str(theirs.fileno()),
                    stdin=DEVNULL, pass_fds=(theirs.fileno(), *descriptors.values()), start_new_session=True,
                )  # fmt: skip
            except OSError:
                ours.close()
                raise
        process = place.process
        late = asyncio.get_running_loop().call_later(_STARTING_S, _end_unless_serving, place, process)
        try:
            status = await self._followed(place, process, ours, descriptors)
        finally:
            late.cancel()
            _kill(process)
        if place.cannot:
            return f"it cannot serve: {place.cannot}"
        return f"signal {-status}" if status < 0 else f"status {status}"

    async def _followed(
        self, place: _Place, process: Process, ours: socket.socket, descriptors: Mapping[str, int]
    ) -> int:
        """Give one its order, hear what it says, and return the status that it ended with."""

        def serves(_: Any) -> None:
            place.serving, place.unanswered, place.why = True, 0, ""

        def cannot(why: Any) -> None:
            place.cannot = str(why)

        told = {"serving": serves, "cannot": cannot, "log": self._hear}
        try:
            line = await Line.over(ours, told, self._answers)
        except BaseException:
            ours.close()
            raise
        place.line = line
        line.tell("order", {**self._order, "sockets": descriptors})
        for kind, content in self._holds.items():
            line.tell(kind, content)
        if self._leaving.is_set():
            line.tell("stop")
        following = asyncio.create_task(line.follow(), name=f"worker {place.number}'s words")
        try:
            status = await process.wait()
            # What it said last.
            await asyncio.wait({following}, timeout=_LAST_WORDS_S)
            return status
        finally:
            line.close()
            await asyncio.gather(following, return_exceptions=True)

    async def _looked_at(self, place: _Place) -> None:
        line, process = place.line, place.process
        if line is None or process is None:
            return
        try:
            await line.ask("well", timeout_s=_WELL_TIMEOUT_S)
            place.unanswered = 0
        except MusterError:
            place.unanswered += 1
            if place.unanswered >= _FALL and place.process is process:
                _log.error("A worker hangs and is ended", worker=place.number, unanswered=place.unanswered)
                _kill(process)

    def _hear(self, record: Any) -> None:
        self._rings.add(LogRecord(**record))

    async def _is_revoked(self, pem: Any) -> bool:
        if self._revoked is None:
            return False
        return await self._revoked(x509.load_pem_x509_certificate(pem.encode()))


def _end_unless_serving(place: _Place, process: Process) -> None:
    if not place.serving:
        _log.error("A worker does not come to serve and is ended", worker=place.number, after_s=_STARTING_S)
        _kill(process)


async def _counted(place: _Place) -> str:
    if place.line is None:
        return ""
    try:
        return str(await place.line.ask("counted", timeout_s=_COUNTED_TIMEOUT_S))
    except MusterError:
        return ""


async def _traffic(place: _Place) -> dict[str, list[int]]:
    if place.line is None:
        return {}
    try:
        return dict(await place.line.ask("traffic", timeout_s=_COUNTED_TIMEOUT_S))
    except MusterError:
        return {}


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
