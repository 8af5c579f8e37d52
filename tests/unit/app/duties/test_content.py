"""What a member says of the programs behind its content: out after two questions, in words that say which and where."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from muster.app.duties.content import BackendAsked, PubLooked
from muster.app.duties.duty import NOTHING
from muster.content import backend
from muster.content.backend import Patience

pytestmark = pytest.mark.anyio

OK, BROKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
PLACE = "http://127.0.0.1:24816"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@contextlib.asynccontextmanager
async def asked(
    answer: Callable[[], bytes | None],
    services: tuple[str, ...] = ("https", "http"),
    *,
    absent: int | None = None,
    patience_s: float = 5.0,
) -> AsyncIterator[BackendAsked]:
    """Yield the duty in front of a program that gives these answers; None: it says nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                if (said := answer()) is not None:
                    writer.write(said)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        # A client's call may take a minute.
        async with backend.opened("Pulp's content application", url, Patience(2.0, 60.0, 60.0)) as it:
            yield BackendAsked(it, "/pulp/content/", services, PLACE, absent=absent, patience_s=patience_s)
    finally:
        server.close()


async def test_nobody_gets_clients_before_the_program_has_answered() -> None:
    async with asked(lambda: OK) as duty:
        assert set(duty.found().down) == {"https", "http"}
        await duty.beat()
        assert duty.found() == NOTHING


async def test_a_program_that_hangs_is_out_after_two_questions_however_long_a_client_may_wait() -> None:
    said: list[bytes | None] = [OK, None, None]
    async with asked(lambda: said.pop(0), patience_s=0.2) as duty:
        for _ in range(2):
            await duty.beat()
        # One answer that does not come is none that is missing.
        assert duty.found() == NOTHING
        await duty.beat()
        why = f"Pulp's content application did not answer within 0.2 s ({PLACE})"
        assert duty.found().down == {"https": why, "http": why}


async def test_what_it_answers_instead_is_said_and_where() -> None:
    async with asked(lambda: BROKEN) as duty:
        await duty.beat()
        assert duty.found().down["https"] == f"Pulp's content application answers 500 to /pulp/content/ ({PLACE})"


async def test_the_log_has_a_line_when_it_goes_and_one_when_it_returns() -> None:
    said = [OK, BROKEN, OK, BROKEN, BROKEN, BROKEN, OK, OK]
    with capture_logs() as logged:
        async with asked(lambda: said.pop(0)) as duty:
            while said:
                await duty.beat()
    assert [(line["log_level"], line["event"]) for line in logged] == [
        ("warning", "What is behind content does not answer"), ("info", "What is behind content answers again"),
    ]  # fmt: skip
    assert logged[0]["why"] == f"Pulp's content application answers 500 to /pulp/content/ ({PLACE})"


async def test_a_program_that_no_service_needs_is_a_note() -> None:
    async with asked(lambda: BROKEN, ()) as duty:
        await duty.beat()
        found = duty.found()
    assert (found.down, found.notes) == ({}, (f"Pulp's content application answers 500 to /pulp/content/ ({PLACE})",))


async def test_a_directory_of_pub_that_is_not_there_is_a_note_until_it_is(tmp_path: Path) -> None:
    duty = PubLooked(tmp_path / "pub")
    await duty.beat()
    assert duty.found().notes == (f"what is in /pub is 404: {tmp_path}/pub is no directory of this host",)
    (tmp_path / "pub").mkdir()
    await duty.beat()
    assert duty.found() == NOTHING


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404])
async def test_any_answer_below_500_will_do(status: int) -> None:
    async with asked(lambda: b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % status) as duty:
        await duty.beat()
        assert duty.found() == NOTHING


async def test_a_registry_without_its_path_is_none() -> None:
    said = [404, 404, 401]
    async with asked(
        lambda: b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % said.pop(0), ("docker",), absent=404
    ) as duty:
        for _ in range(2):
            await duty.beat()
        assert duty.found().down == {"docker": f"Pulp's content application answers 404 to /pulp/content/ ({PLACE})"}
        await duty.beat()
        assert duty.found() == NOTHING
