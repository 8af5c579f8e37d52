"""One process of a local cluster."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent

_RESTART_PAUSE_S = 1.0


@dataclass
class Child:
    """One process of the local cluster, kept running."""

    name: str
    arguments: Sequence[str]
    log: Path
    restarts: int = -1
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False

    async def start(self) -> None:
        # Processes of the cluster must not die of the terminal's Ctrl-C before they are asked in order.
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "muster", *self.arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment(), start_new_session=True,
                # A supervisor that is killed cannot stop them any more.
                preexec_fn=end_with_parent,
            )  # fmt: skip
        self.restarts += 1

    async def keep_running(self, say: Callable[[str], None]) -> None:
        while not self.stopping:
            assert self.process is not None  # noqa: S101 - started before it is kept
            status = await self.process.wait()
            if self.stopping:
                return
            say(f"{self.name} ended with {_status(status)}; starting it again")
            await asyncio.sleep(_RESTART_PAUSE_S)
            await self.start()

    async def stop(self, patience_s: float = 15.0) -> None:
        self.stopping = True
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def tail(self) -> str:
        try:
            return self.log.read_text("utf-8", "replace")[-600:].strip()
        except OSError:
            return ""


def _status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
