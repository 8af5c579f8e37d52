"""The line between a member and one of its workers: a socket pair, a JSON text a line, questions answered out of order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable

_log = log.logger("app")

# The longest is a worker's metrics, of which there are some hundred bytes a route and status. A longer one would end the
# line, and the worker with it; it is not said.
_LONGEST_LINE = 8 << 20
# What the other end has not read yet; beyond that what is merely told is dropped.
_UNREAD_BYTES = 1 << 20

Told = Callable[[Any], None]
Asked = Callable[[Any], Awaitable[Any]]


class Line:
    """One end of it.

    Args:
        told: what is done with what the other end tells, by its kind.
        asked: what answers the other end's questions, by their kind. What it raises of :class:`MusterError` reaches the
            asker as :class:`Unavailable`.

    What an end does not know it leaves: files may have been replaced by another version's since the other end started.

    Concurrency: one event loop; any number of questions at once.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        told: Mapping[str, Told],
        asked: Mapping[str, Asked],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._told = told
        self._asked = asked
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def over(cls, sock: socket.socket, told: Mapping[str, Told], asked: Mapping[str, Asked]) -> Line:
        """Return one end, over a connected socket that it closes."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=_LONGEST_LINE)
        return cls(reader, writer, told, asked)

    async def follow(self) -> None:
        """Take what the other end says until it is gone, or this end was closed."""
        try:
            while text := await self._reader.readline():
                self._take(json.loads(text))
        except (OSError, ValueError, asyncio.LimitOverrunError) as e:
            if not self._closed:
                _log.warning("What a member and its worker say to each other broke off", why=str(e))
        finally:
            self.close()

    def tell(self, kind: str, content: Any = None) -> bool:
        """Say something that needs no answer; false when it was dropped: the other end does not read, or it is too long."""
        if self._closed or self._writer.transport.get_write_buffer_size() > _UNREAD_BYTES:
            return False
        return self._send({"tell": kind, "content": content})

    async def ask(self, kind: str, content: Any = None, *, timeout_s: float) -> Any:
        """Return the other end's answer.

        Raises:
            Unavailable: it gave none in time, is gone, or said why it has none.
        """
        if self._closed:
            raise Unavailable("The other process is gone")
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        if not self._send({"ask": kind, "number": number, "content": content}):
            waiting.set_exception(Unavailable("The question is too long"))
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            raise Unavailable(f"The other process did not answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """End the line; whoever waits for an answer gets :class:`Unavailable`."""
        self._closed = True
        self._writer.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("The other process is gone"))

    def _take(self, said: dict[str, Any]) -> None:
        content = said.get("content")
        if (kind := said.get("tell")) is not None:
            try:
                self._told.get(kind, _left)(content)
            except Exception:  # noqa: BLE001 - boundary: what one word breaks must not keep the next from being heard
                _log.exception("Doing what the other process said broke", kind=kind)
        elif (kind := said.get("ask")) is not None:
            task = asyncio.create_task(self._answer(kind, said["number"], content), name=f"answer {kind}")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (waiting := self._waiting.get(said["answer"])) is not None and not waiting.done():
            if (why := said.get("failed")) is not None:
                waiting.set_exception(Unavailable(why))
            else:
                waiting.set_result(content)

    async def _answer(self, kind: str, number: int, content: Any) -> None:
        try:
            if kind not in self._asked:
                raise Unavailable(f"The other process does not know what {kind} is")
            answer = {"answer": number, "content": await self._asked[kind](content)}
        except MusterError as e:
            answer = {"answer": number, "failed": str(e)}
        except Exception as e:  # noqa: BLE001 - boundary: whoever asks must not wait for what broke
            _log.exception("Answering the other process broke", kind=kind)
            answer = {"answer": number, "failed": f"{type(e).__name__}: {e}"}
        if not self._send(answer):
            self._send({"answer": number, "failed": "The answer is too long"})

    def _send(self, said: dict[str, Any]) -> bool:
        """Say it, unless the line is closed; false, and it is not said, when it is too long."""
        text = json.dumps(said).encode() + b"\n"
        if len(text) > _LONGEST_LINE:
            return False
        if not self._closed:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write(text)
        return True


def _left(_: Any) -> None:
    return
