from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.process import clean_environment, run


async def test_a_tool_runs_to_its_end_and_its_status_is_returned() -> None:
    done = await run(
        [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], timeout_s=30
    )
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


async def test_arguments_are_not_read_by_a_shell(tmp_path: Path) -> None:
    nasty = f"$(touch {tmp_path}/owned); `id`\n*"
    done = await run([sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", nasty, tmp_path], timeout_s=30)
    assert done.stdout.strip() == ascii([nasty, str(tmp_path)])
    assert not (tmp_path / "owned").exists()


async def test_a_tool_sees_few_variables_and_speaks_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    seen = clean_environment({"EXTRA": "1"})
    assert "SECRET_TOKEN" not in seen
    assert (seen["LC_ALL"], seen["EXTRA"], seen["PATH"]) == ("C.UTF-8", "1", os.environ["PATH"])
    done = await run([sys.executable, "-c", "import os; print('SECRET_TOKEN' in os.environ)"], timeout_s=30)
    assert done.stdout == "False\n"


async def test_a_tool_that_is_not_installed_is_misconfigured() -> None:
    with pytest.raises(Misconfigured, match="Running /nonexistent/tool failed: No such file or directory"):
        await run(["/nonexistent/tool"], timeout_s=5)


async def test_a_tool_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    # Parent and child hold the pipe's other end: both are gone when reading finds the end.
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(Unavailable, match=r"did not finish within 1 s and was killed"):
            await run(["sh", "-c", f"exec 3>{fifo}; sleep 60 & echo started >&3; sleep 60"], timeout_s=1)
        async with asyncio.timeout(20):
            assert await _read_to_the_end(held) == b"started\n"
    finally:
        os.close(held)


async def _read_to_the_end(descriptor: int) -> bytes:
    content = b""
    while True:
        try:
            found = os.read(descriptor, 100)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            continue
        if not found:
            return content
        content += found


async def test_output_that_is_not_utf_8_is_replaced_and_too_much_is_cut() -> None:
    done = await run(
        [sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\xff' + b'a' * (2 << 20))"], timeout_s=30
    )
    assert done.stdout.startswith("\N{REPLACEMENT CHARACTER}aaa")
    assert len(done.stdout) == 1 << 20
