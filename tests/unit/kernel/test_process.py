from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tracemalloc
from pathlib import Path

import pytest

from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.process import clean_environment, follow, run


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


async def test_a_tool_runs_at_the_root_where_nobody_could_come_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAProxy ends where it may not enter the directory it was started in: a home of root's, for another account."""
    where = [sys.executable, "-c", "import os; print(os.getcwd())"]
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert (await run(where, timeout_s=30)).stdout == f"{tmp_path / 'gone'}\n"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert (await run(where, timeout_s=30)).stdout == "/\n"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert (await run(where, timeout_s=30)).stdout == "/\n"


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


async def test_a_tool_that_never_ends_its_output_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Unavailable, match="did not finish within 1 s and was killed"):
            await run(["yes", "x" * 1000], timeout_s=1)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_whom_a_tool_leaves_behind_with_its_output_keeps_nobody(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"setsid sleep 60 & echo $! > {pid}; sleep 60"
    with pytest.raises(Unavailable, match=r"did not finish within 0\.5 s and was killed"):
        await asyncio.wait_for(run(["sh", "-c", script], timeout_s=0.5), 10)
    os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_a_tool_may_read_much_and_say_much_at_once_or_read_nothing() -> None:
    given = b"0123456789abcdef" * (1 << 16)
    done = await run(["tee", "/dev/stderr"], timeout_s=30, stdin=given)
    assert (done.stdout.encode(), done.stderr.encode()) == (given, given)
    assert (await run(["false"], timeout_s=30, stdin=given)).status == 1


async def test_somebody_s_own_command_is_heard_while_it_runs_and_its_status_is_returned(tmp_path: Path) -> None:
    answered = tmp_path / "answered"
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        # It goes on only when it was heard.
        answered.touch()

    script = 'echo early; until test -e "$0"; do sleep 0.01; done; echo late >&2; exit 3'
    assert await follow(["sh", "-c", script, str(answered)], timeout_s=30, heard=hear) == 3
    assert said == ["early", "late"]


async def test_somebody_s_own_command_sees_all_their_variables_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {
        "SSH_AUTH_SOCK": "/run/user/0/agent",
        "KRB5CCNAME": "KCM:0",
        "LC_ALL": "de_DE.UTF-8",
        "PYTHONSTARTUP": "x",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    assert await follow(["env"], timeout_s=30, heard=said.append) == 0
    assert {f"{name}={value}" for name, value in theirs.items()} <= set(said)


async def test_lines_may_end_in_any_way_and_be_of_any_length_and_bytes() -> None:
    said: list[str] = []
    program = (
        "import sys; w = sys.stdout.buffer.write;"
        "w(b'one\\r\\n\\n10 %\\r20 %\\r\\xc3\\xa4\\xff\\n'); w(b'a' * 200_000 + b'\\nend')"
    )
    assert await follow([sys.executable, "-c", program], timeout_s=30, heard=said.append) == 0
    assert said[:5] == ["one", "", "10 %", "20 %", "ä\N{REPLACEMENT CHARACTER}"]
    assert "".join(said[5:-1]) == "a" * 200_000
    assert max(map(len, said)) < 1 << 18
    assert said[-1] == "end"


@pytest.mark.parametrize("left_behind", ["sleep 60", "yes"])
async def test_what_a_command_leaves_in_the_background_is_not_waited_for(left_behind: str, tmp_path: Path) -> None:
    said: list[str] = []
    script = f'echo started; {left_behind} & echo $! > "$0"'
    number = tmp_path / "pid"
    try:
        assert await follow(["sh", "-c", script, str(number)], timeout_s=30, heard=said.append) == 0
    finally:
        # Who went on writing has died of that by now.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number.read_text()), signal.SIGKILL)
    assert "started" in said


async def test_somebody_s_own_command_that_takes_too_long_or_is_not_there_ends_as_a_tool_does() -> None:
    with pytest.raises(Unavailable, match=r"sh did not finish within 0.2 s and was killed"):
        await follow(["sh", "-c", "sleep 60; true"], timeout_s=0.2, heard=print)
    with pytest.raises(Misconfigured, match="Running /nonexistent failed: No such file or directory"):
        await follow(["/nonexistent"], timeout_s=5, heard=print)


async def test_what_a_tool_says_without_end_is_not_held() -> None:
    script = "import sys\nfor _ in range(32): sys.stdout.write('x' * (1 << 20)); sys.stderr.write('y' * (1 << 20))"
    tracemalloc.start()
    try:
        done = await run([sys.executable, "-c", script], timeout_s=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.status, len(done.stdout), len(done.stderr)) == (0, 1 << 20, 1 << 20)
    assert peak < 16 << 20


async def test_a_tool_that_ends_before_it_has_read_all_is_no_error() -> None:
    done = await run(["true"], timeout_s=10, stdin=b"x" * (4 << 20))
    assert done.status == 0
