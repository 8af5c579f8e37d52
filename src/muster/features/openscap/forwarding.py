"""Reports on their way to Foreman: each sent by one member at a time, until Foreman has it or has refused it.

Foreman knows a report by its host and its time, and takes no second one with both: whoever sends again what Foreman took
before it died, hears that, and that is as good as its first answer. Source: docs/facts/openscap.md §3, §4.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from muster.content.backend import once
from muster.content.handed import Said
from muster.content.metadata.malformed import Malformed
from muster.features.openscap import arf
from muster.features.openscap.ledger import Ledger, Upload
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.names import shown
from muster.kernel.tasks import OneEach

_log = log.logger("features")

FIRST_GO_S = 30.0
"""For how long only the member that took a report sends it, unless it dies."""

# Beside Foreman's time: to read the report, to connect, to hear the end of the answer.
_BESIDE_S = 120.0
_FIRST_PAUSE_S = 15.0
_LONGEST_PAUSE_S = 300.0
_AWAY_S = 10.0
_AT_ONCE = 2
_MOST_DUE = 20
MOST_UNDER_WAY = 200
_PIECE_BYTES = 256 << 10
_ENDED_WITHIN_S = 3.0
_HEADERS = (("Accept", "application/json,version=2"), ("Content-Type", "application/json"))
# Whoever is refused so is told by what has to be changed at Foreman, or in the cluster file; then it is taken.
_MENDABLE = frozenset({401, 403, 404, 408, 425, 429})
# Of Foreman's own words for a report whose host has one of that time (docs/facts/openscap.md §3).
_TAKEN = "already been taken"
_LONGEST_WORDS = 300


class Asking(Protocol):
    """How Foreman is asked: as :meth:`muster.content.handed.Foreman.ask`."""

    async def __call__(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        *,
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        limit_bytes: int = ...,
    ) -> Said: ...


@dataclass(frozen=True)
class Proxy:
    """By which name and URL Foreman knows the Smart Proxy that a report came through."""

    name: str
    url: str


@dataclass(frozen=True)
class Taken:
    """Foreman has it. ``id``: how Foreman calls it; empty: it did not say."""

    id: str = ""


@dataclass(frozen=True)
class PutOff:
    """Foreman has not taken it, and may another time."""

    why: str


@dataclass(frozen=True)
class Refused:
    """Foreman will not take it, whenever it is sent."""

    why: str


def judged(said: Said) -> Taken | PutOff | Refused:
    """Return what an answer of Foreman's means for the report."""
    content = _content(said.body)
    if 200 <= said.status < 300:
        if isinstance(content.get("id"), str | int):
            return Taken(shown(str(content["id"])[:64]))
        return PutOff(f"Foreman answered {said.status} without the report's id")
    words = f"Foreman answered {said.status}{_words(content)}"
    if said.status == 422 and _TAKEN in _words(content):
        return Taken()
    if 400 <= said.status < 500 and said.status not in _MENDABLE:
        return Refused(words)
    return PutOff(words)


def _content(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(content: dict[str, object]) -> str:
    error = content.get("error")
    said = (
        content.get("errors") or content.get("message") or (error.get("message") if isinstance(error, dict) else error)
    )
    if not isinstance(said, str) or not said:
        return ""
    # Not every text can be kept: PostgreSQL takes no zero, and nobody half a character.
    return f": {shown(' '.join(said.split())[:_LONGEST_WORDS], _LONGEST_WORDS)}"


class Forwarding:
    """One member's part in sending reports. Use :meth:`close` at its end.

    Attributes:
        trouble: why Foreman could not be asked last; empty: it could.

    Args:
        directory: where reports are unpacked from, and nothing is left.

    Concurrency: one loop; two reports at a time, of which one is read.
    """

    def __init__(
        self,
        ledger: Ledger,
        ask: Asking,
        proxy: Proxy,
        directory: Path,
        *,
        timeout_s: float,
        unpacked_limit_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._ask = ask
        self._proxy = proxy
        self._directory = directory
        self._timeout_s = timeout_s
        self._limit_bytes = unpacked_limit_bytes
        self._monotonic = monotonic
        self._sending: OneEach[str] = OneEach(_failed)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._reading = asyncio.Semaphore(1)
        self._away_until = float("-inf")
        self.trouble = ""

    async def forward(self, id: str) -> None:
        """Return when a report was sent, or is not to be sent now, or ``timeout_s`` is over; how it stands, its row says."""
        if self._monotonic() < self._away_until or len(self._sending) >= MOST_UNDER_WAY:
            # It is due soon, and others wait, too.
            return
        task = self._sending.begin(id, self._send, name="compliance report")
        await asyncio.wait([task], timeout=self._timeout_s)

    async def beat(self) -> None:
        """Begin to send what is due.

        Raises:
            Unavailable: the store did not answer.
        """
        if self._monotonic() < self._away_until:
            return
        # While Foreman is away each question is in vain: one is enough to find out that it is back.
        for id in await self._ledger.due(1 if self.trouble else _MOST_DUE):
            if len(self._sending) < MOST_UNDER_WAY:
                self._sending.begin(id, self._send, name="compliance report")

    async def close(self) -> None:
        """Let what is under way come to its end for a moment, then end it: another member sends it when its claim ends."""
        await self._sending.finish(_ENDED_WITHIN_S)
        await self._sending.close()

    async def _send(self, id: str) -> None:
        async with self._slots:
            upload = await self._ledger.claim(id, self._timeout_s + _BESIDE_S)
            if upload is None:
                return
            try:
                verdict = await self._sent(upload)
            except Malformed as e:
                verdict = Refused(str(e))
            except MusterError as e:
                self.trouble, self._away_until = str(e), self._monotonic() + _AWAY_S
                verdict = PutOff(str(e))
            else:
                self.trouble = ""
            match verdict:
                case Taken():
                    await self._ledger.sent(upload, verdict.id)
                case Refused():
                    _log.warning(f"A compliance report was refused: {verdict.why}", host=upload.cname, report=upload.id)
                    await self._ledger.refuse(upload, verdict.why)
                case PutOff():
                    _log.warning(f"A compliance report is kept: {verdict.why}", host=upload.cname, report=upload.id)
                    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(upload.attempts - 1, 10))
                    await self._ledger.put_off(upload, verdict.why, pause_s)

    async def _sent(self, upload: Upload) -> Taken | PutOff | Refused:
        body = await self._told(upload)
        path = f"/api/v2/compliance/arf_reports/{upload.cname}/{upload.policy}/{upload.reported_at}"
        said = await self._ask("POST", path, _HEADERS, body=once(body), length=len(body))
        return judged(said)

    async def _told(self, upload: Upload) -> bytes:
        """Return what Foreman is told of a report; it is read in a thread, one at a time."""
        try:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                async for piece in self._ledger.pieces(upload):
                    await asyncio.to_thread(file.write, piece)
                file.seek(0)
                async with self._reading:
                    return await asyncio.to_thread(self._read, file, upload.digest)
        except OSError as e:
            raise Unavailable(f"Reading a report in {self._directory} failed: {e.strerror or e}") from e

    def _read(self, file: IO[bytes], digest: str) -> bytes:
        report = arf.read(pieces_of(file), limit_bytes=self._limit_bytes)
        return arf.told(report, digest=digest, proxy_name=self._proxy.name, proxy_url=self._proxy.url)


def pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what a file holds from where it stands."""
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _failed(id: str, error: BaseException) -> None:
    if isinstance(error, MusterError):
        _log.warning(f"A compliance report was not sent: {error}", report=id)
    else:
        _log.error("Bug while sending a compliance report", report=id, exc_info=error)
