"""The feed's far end with sources that are scripts; the near one and the wire are in ``tests/contract/test_dhcp_fed.py``."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from muster.content.backend import Answer, Backend, once
from muster.features.dhcp.isc import replica as room
from muster.features.dhcp.isc.frames import written
from muster.features.dhcp.isc.replica import Replica
from muster.kernel.errors import Unavailable
from muster.kernel.tasks import ended

pytestmark = pytest.mark.anyio

CONF, FIRST, SECOND = b"subnet 10.0.0.0 netmask 255.0.0.0 {\n}\n", b"lease 10.0.0.1 {\n}\n", b"lease 10.0.0.2 {\n}\n"
WHOLE = [written("conf", CONF), written("whole"), written("more", FIRST), written("all")]


class Script:
    """A member that tells one stream after another, the last again and again.

    Attributes:
        held: what it was told that the replica has, of each stream.
        marks: whether it answers marks, in the stream they are of.
    """

    def __init__(self, *streams: Sequence[bytes | Exception], marks: bool = True, name: str = "member x") -> None:
        self.name = name
        self.marks = marks
        self.held: list[dict[str, list[str]]] = []
        self._streams = list(streams)
        self._marked = asyncio.Queue[int]()

    async def ask(self, _method: str, path: str, _headers: Any) -> Answer:
        parts = urlsplit(path)
        if not parts.query:
            if not self.marks:
                return Answer.absent(self.name)
            self._marked.put_nowait(int(parts.path.rpartition("/")[2]))
            return self._answer(once(b"{}"))
        self.held.append(parse_qs(parts.query, keep_blank_values=True))
        stream = self._streams.pop(0) if len(self._streams) > 1 else self._streams[0]
        return self._answer(self._told(stream))

    def _answer(self, pieces: AsyncGenerator[bytes, None]) -> Answer:
        return Answer(self.name, 200, (), pieces, lambda: None)

    async def _told(self, stream: Sequence[bytes | Exception]) -> AsyncGenerator[bytes, None]:
        for frame in stream:
            if isinstance(frame, Exception):
                raise frame
            yield frame
        while True:
            yield written("all", mark=await self._marked.get())


GONE = Unavailable("member x broke off its answer")


@asynccontextmanager
async def replica(directory: Path, *sources: Script) -> AsyncIterator[Replica]:
    made = Replica(cast(Sequence[Backend], sources), directory / "dhcp")
    keeping = asyncio.create_task(made.keep())
    try:
        yield made
    finally:
        await ended([keeping])
        await made.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def test_what_is_told_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    async with replica(tmp_path, Script([*WHOLE, written("more", SECOND)])) as kept:
        await kept.brought()
        kept.heard()
        # What is appended comes after what was whole.
        await until(lambda: kept.leases.read_bytes() == FIRST + SECOND)
        assert kept.conf.read_bytes() == CONF
        for path, mode in ((kept.conf, 0o600), (kept.leases, 0o600), (kept.leases.parent, 0o700)):
            assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_half_of_a_file_stands_in_nobodys_place(tmp_path: Path) -> None:
    half = Script([*WHOLE[:-1], GONE], [*WHOLE, written("whole"), written("more", SECOND), GONE], WHOLE)
    async with replica(tmp_path, half) as kept:
        await until(lambda: len(half.held) == 2)
        # Nothing was whole until now; and of what the second told, only what it had told whole counts.
        await until(lambda: len(half.held) == 3)
        await kept.brought()
        assert kept.leases.read_bytes() == FIRST
    assert [h["leases"] for h in half.held[:2]] == [[""], [""]]
    assert half.held[2]["leases"] == [hashlib.sha256(FIRST).hexdigest()]
    assert half.held[2]["size"] == [str(len(FIRST))]


async def test_a_new_file_is_put_in_place_at_once_and_followed_there(tmp_path: Path) -> None:
    new = [written("whole"), written("more", SECOND)]
    source = Script([*WHOLE, *new])
    async with replica(tmp_path, source) as kept:
        await until(lambda: kept.leases.exists())
        await until(lambda: kept.leases.with_name("dhcpd.leases.new").exists())
        assert kept.leases.read_bytes() == FIRST
        await kept.brought()
        assert kept.leases.read_bytes() == SECOND
        assert not kept.leases.with_name("dhcpd.leases.new").exists()


async def test_what_is_here_is_said_to_the_next_one_and_after_a_restart(tmp_path: Path) -> None:
    async with replica(tmp_path, Script(WHOLE)) as kept:
        await kept.brought()
    source = Script([written("more", SECOND), written("all"), GONE], [written("all")])
    async with replica(tmp_path, source) as kept:
        await until(lambda: len(source.held) == 2)
        await kept.brought()
        assert kept.leases.read_bytes() == FIRST + SECOND
    conf = [hashlib.sha256(CONF).hexdigest()]
    assert [(h["size"], h["leases"], h["conf"]) for h in source.held] == [
        ([str(len(text))], [hashlib.sha256(text).hexdigest()], conf) for text in (FIRST, FIRST + SECOND)
    ]


async def test_the_next_is_asked_where_one_has_trouble_and_kept_to(tmp_path: Path) -> None:
    troubled = Script([written("trouble", b"Reading x failed")], name="member a")
    well = Script([*WHOLE, GONE], WHOLE, name="member b")
    async with replica(tmp_path, troubled, well) as kept:
        await kept.brought()
        await until(lambda: len(well.held) == 2)
        await kept.brought()


async def test_nothing_that_was_kept_is_told_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BROUGHT_WITHIN_S", 0.2)
    async with replica(tmp_path, Script(WHOLE)) as kept:
        await kept.brought()
    # One that says nothing more than half of it, one that takes no marks, one that has trouble.
    silent = {
        "nothing was heard": Script([written("more", SECOND)], marks=False),
        "answered 404 to a mark": Script([written("all")], marks=False),
        "member x: Reading x failed": Script([written("trouble", b"Reading x failed")]),
        "no part of dhcpd's files": Script([b"<html>", b" " * 40]),
    }
    for why, source in silent.items():
        async with replica(tmp_path, source) as kept:
            await asyncio.sleep(0.05)
            with pytest.raises(Unavailable, match="dhcpd's files come from member x, and nothing was heard") as said:
                await kept.brought()
            if why != "answered 404 to a mark":
                assert why in str(said.value)
                with pytest.raises(Unavailable):
                    kept.heard()


async def test_a_feed_that_went_silent_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Script(WHOLE)
    async with replica(tmp_path, source) as kept:
        await kept.brought()
        kept.heard()
        monkeypatch.setattr(room, "_SILENT_S", 0.05)
        await asyncio.sleep(0.1)
        for _ in range(2):
            with pytest.raises(Unavailable, match="nothing was heard of them for 0 s"):
                kept.heard()
            with pytest.raises(Unavailable, match="nothing was heard"):
                async with asyncio.timeout(0.05):
                    await kept.brought()


async def test_a_disk_that_refuses_is_said_and_nothing_is_believed(tmp_path: Path) -> None:
    (tmp_path / "dhcp").write_text("a file in the directory's place")
    async with replica(tmp_path, Script(WHOLE)) as kept:
        with pytest.raises(Unavailable, match="nothing was heard"):
            await kept.brought()


async def test_many_that_ask_at_once_are_answered_by_few_marks(tmp_path: Path) -> None:
    source = Script(WHOLE)
    async with replica(tmp_path, source) as kept:
        await kept.brought()
        before = asyncio.get_running_loop().time()
        await asyncio.gather(*(kept.brought() for _ in range(200)))
        assert asyncio.get_running_loop().time() - before < 2
