"""A file in blocks (``netboot/tftp/blocks.py``)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster.netboot.tftp import blocks as blocks_module
from muster.netboot.tftp.blocks import Blocks, Changed
from muster.netboot.tftp.jail import Jail
from muster.netboot.tftp.packets import Mode


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


@pytest.fixture
def nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "_cached", lambda *_: None)


def opened(path: Path, executor: ThreadPoolExecutor, blksize: int, mode: Mode = "octet") -> Blocks:
    return Blocks(Jail(path.parent).opened((path.name,)), blksize, mode, executor)


async def all_of(blocks: Blocks, at_once: int = 3) -> AsyncIterator[bytes]:
    while True:
        more: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def read(failed: BaseException | None, more: asyncio.Future[None] = more) -> None:
            if failed is not None:
                more.set_exception(failed)
            else:
                more.set_result(None)

        if not blocks.need(at_once, read):
            await more
            continue
        while blocks.ready:
            yield bytes(blocks.ready.popleft())
        if blocks.ended:
            return


def cut(path: Path, executor: ThreadPoolExecutor, blksize: int, mode: Mode = "octet") -> list[bytes]:
    async def run() -> list[bytes]:
        blocks = opened(path, executor, blksize, mode)
        try:
            return [one async for one in all_of(blocks)]
        finally:
            blocks.close()

    return asyncio.run(run())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(size=st.integers(0, 300_000), blksize=st.integers(500, 65464))
def test_all_blocks_are_full_but_the_last(
    tmp_path: Path, executor: ThreadPoolExecutor, size: int, blksize: int
) -> None:
    path = tmp_path / "file"
    content = os.urandom(size)
    path.write_bytes(content)
    found = cut(path, executor, blksize)
    assert b"".join(found) == content
    assert {len(one) for one in found[:-1]} <= {blksize}
    assert len(found[-1]) < blksize


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65536, 65535, 131_072])
@pytest.mark.usefixtures("nothing_cached")
def test_threads_read_the_same(tmp_path: Path, executor: ThreadPoolExecutor, size: int) -> None:
    (tmp_path / "file").write_bytes(content := os.urandom(size))
    found = cut(tmp_path / "file", executor, 512)
    assert b"".join(found) == content
    assert len(found[-1]) == size % 512


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(alphabet="\r\nab", max_size=400), repeated=st.integers(1, 400), blksize=st.integers(8, 700))
def test_a_text_is_converted_and_cut_afterwards(
    tmp_path: Path, executor: ThreadPoolExecutor, text: str, repeated: int, blksize: int
) -> None:
    content = text.encode() * repeated
    (tmp_path / "file").write_bytes(content)
    found = cut(tmp_path / "file", executor, blksize, "netascii")
    assert {len(one) for one in found[:-1]} <= {blksize}
    assert len(found[-1]) < blksize
    assert _back(b"".join(found)) == content


def _back(text: bytes) -> bytes:
    """Read netascii byte by byte, as a client does."""
    found, at = bytearray(), 0
    while at < len(text):
        if text[at] == 0x0D:
            found.append({0x0A: 0x0A, 0: 0x0D}[text[at + 1]])
            at += 1
        else:
            found.append(text[at])
        at += 1
    return bytes(found)


def _shorter(path: Path) -> None:
    os.truncate(path, 100_000)


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _written(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [_shorter, _longer, _written])
def test_a_file_that_is_changed_in_its_place_is_no_file_any_more(
    tmp_path: Path, executor: ThreadPoolExecutor, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))

    async def run() -> int:
        blocks = opened(path, executor, 512)
        count = 0
        try:
            async for _ in all_of(blocks):
                count += 1
                if count == 1:
                    change(path)
        except Changed:
            return count
        finally:
            blocks.close()
        raise AssertionError("nobody noticed")

    assert asyncio.run(run()) < 300_000 // 512


def test_a_file_that_is_replaced_stays_what_it_was(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))
    (tmp_path / "new").write_bytes(b"new")

    async def run() -> int:
        blocks = opened(path, executor, 512)
        (tmp_path / "new").rename(path)
        try:
            return sum([len(one) async for one in all_of(blocks)])
        finally:
            blocks.close()

    assert asyncio.run(run()) == 300_000


@pytest.mark.usefixtures("nothing_cached")
def test_a_file_that_a_thread_still_reads_is_closed_afterwards(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    goes_on, whole = threading.Event(), blocks_module._whole

    def slow(fd: int, wanted: int, offset: int) -> bytes:
        goes_on.wait(10)
        return whole(fd, wanted, offset)

    monkeypatch.setattr(blocks_module, "_whole", slow)

    async def run() -> None:
        file = Jail(tmp_path).opened(("file",))
        blocks = Blocks(file, 512, "octet", executor)
        told: list[object] = []
        assert not blocks.need(1, told.append)
        blocks.close()
        os.fstat(file.fd)
        goes_on.set()
        while Path(f"/proc/self/fd/{file.fd}").exists():
            await asyncio.sleep(0.01)
        assert told == []

    asyncio.run(run())
