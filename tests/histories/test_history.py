from __future__ import annotations

import asyncio
from math import inf

import pytest

from tests.histories.history import History


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        self.at += 1.0
        return self.at


def test_a_call_has_its_times_and_what_was_heard() -> None:
    history = History(now=Clock())
    with history.call("admin", "revoke", "a.test") as answer:
        answer.ok()
    with history.call("agent", "submit", "a.test", ("key", True)) as answer:
        answer.refused()
    assert [str(c) for c in history.calls] == [
        "#1 revoke by admin from 1.000 to 2.000 s: acknowledged",
        "#2 submit key True by agent from 3.000 to 4.000 s: refused",
    ]


def test_what_broke_or_said_nothing_is_unknown_and_never_ends() -> None:
    history = History(now=Clock())

    def broken() -> None:
        with history.call("admin", "revoke", "a.test") as answer:
            answer.ok("too early: the block did not end")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        broken()
    with history.call("admin", "revoke", "a.test"):
        pass
    assert [(c.outcome, c.ended, c.answer) for c in history.calls] == [("unknown", inf, None)] * 2
    assert str(history.calls[0]) == "#1 revoke by admin from 1.000 s: not answered"


def test_a_refused_connection_carried_no_call() -> None:
    history = History()
    with pytest.raises(ConnectionRefusedError), history.call("admin", "revoke", "a.test"):
        raise ConnectionRefusedError
    assert history.calls == []


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_is_unknown() -> None:
    history = History()

    async def client() -> None:
        with history.call("admin", "revoke", "a.test"):
            await asyncio.sleep(60)

    task = asyncio.create_task(client())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [c.outcome for c in history.calls] == ["unknown"]
