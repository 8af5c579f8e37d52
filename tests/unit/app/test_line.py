"""What a member and its worker say to each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.app import line
from muster.app.line import Line
from muster.kernel.errors import Misconfigured, Unavailable

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def lines(heard: list[Any], answers: dict[str, Any]) -> AsyncIterator[tuple[Line, Line]]:
    one, other = socket.socketpair()

    def broken(_: Any) -> None:
        raise RuntimeError("a bug")

    here = await Line.over(one, {}, {})
    there = await Line.over(other, {"word": heard.append, "broken": broken}, answers)
    following = [asyncio.create_task(end.follow()) for end in (here, there)]
    try:
        yield here, there
    finally:
        here.close()
        there.close()
        await asyncio.gather(*following)


async def test_questions_are_answered_out_of_order_and_words_in_order() -> None:
    go_on = asyncio.Event()

    async def slowly(content: Any) -> Any:
        await go_on.wait()
        return content

    async def at_once(content: Any) -> Any:
        return [content]

    heard: list[Any] = []
    async with lines(heard, {"slowly": slowly, "at once": at_once}) as (here, _):
        first = asyncio.create_task(here.ask("slowly", 1, timeout_s=20))
        assert [here.tell("word", n) for n in range(3)] == [True] * 3
        assert await here.ask("at once", {"ä": None}, timeout_s=20) == [{"ä": None}]
        assert heard == [0, 1, 2]
        go_on.set()
        assert await first == 1


async def test_what_a_question_fails_for_reaches_the_asker() -> None:
    async def refused(_: Any) -> None:
        raise Misconfigured("no such file")

    async def broken(_: Any) -> None:
        raise ValueError("a bug")

    async def hanging(_: Any) -> None:
        await asyncio.Event().wait()

    async with lines([], {"refused": refused, "broken": broken, "hanging": hanging}) as (here, there):
        for kind, why in (("refused", "no such file"), ("broken", "ValueError: a bug"), ("unknown", "does not know")):
            with pytest.raises(Unavailable, match=why):
                await here.ask(kind, timeout_s=20)
        with pytest.raises(Unavailable, match="did not answer within"):
            await here.ask("hanging", timeout_s=0.05)
        waiting = asyncio.create_task(here.ask("hanging", timeout_s=20))
        await asyncio.sleep(0.05)
        there.close()
        with pytest.raises(Unavailable, match="gone"):
            await waiting
        with pytest.raises(Unavailable, match="gone"):
            await here.ask("hanging", timeout_s=20)
        assert here.tell("word") is False


async def test_words_that_are_not_known_or_break_do_not_keep_the_next_from_being_heard() -> None:
    heard: list[Any] = []

    async def well(_: Any) -> bool:
        return True

    async with lines(heard, {"well": well}) as (here, _):
        for kind in ("of another version", "broken", "word"):
            here.tell(kind, kind)
        assert await here.ask("well", timeout_s=20)
        assert heard == ["word"]


async def test_what_nobody_reads_is_dropped_and_holds_no_memory() -> None:
    one, other = socket.socketpair()
    with contextlib.closing(other):
        here = await Line.over(one, {}, {})
        told = [here.tell("word", "x" * 65536) for _ in range(64)]
        assert told[0] is True
        assert told[-1] is False
        here.close()


async def test_what_is_too_long_is_not_said_and_does_not_end_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_LONGEST_LINE", 100_000)
    heard: list[Any] = []

    async def as_long(length: Any) -> str:
        return "x" * int(length)

    async with lines(heard, {"as long": as_long}) as (here, _):
        assert here.tell("word", "x" * 200_000) is False
        with pytest.raises(Unavailable, match="question is too long"):
            await here.ask("as long", "1" * 200_000, timeout_s=20)
        with pytest.raises(Unavailable, match="answer is too long"):
            await here.ask("as long", 200_000, timeout_s=20)
        assert here.tell("word", "short") is True
        assert await here.ask("as long", 90_000, timeout_s=20) == "x" * 90_000
        assert heard == ["short"]
