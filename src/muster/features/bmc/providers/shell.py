"""The host that this member runs on: it is on, and can be started anew (docs/facts/smart-proxy-protocol.md §13).

Whichever member answers is the one that is meant, so a cluster of several should not use it; ``muster doctor`` says so.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NoReturn

from muster.features.bmc.contract import BootDevice, ControllerField, Device, FruField, LanField, Power, Reset
from muster.kernel import process
from muster.kernel.errors import MusterError, Rejected, Unsupported
from muster.kernel.log import logger
from muster.kernel.names import shown

_log = logger("features")
_COMMAND = ("sudo", "-n", "shutdown", "-r", "now", "Foreman BMC API")
# By then Foreman has its answer.
_PAUSE_S = 5.0


class ShellBMC:
    """Starts its own host anew; nothing else can be asked of it."""

    needs_credentials: ClassVar[bool] = False

    def __init__(self, command: tuple[str, ...] = _COMMAND, pause_s: float = _PAUSE_S) -> None:
        self._command = command
        self._pause_s = pause_s
        self._pending: asyncio.Task[None] | None = None

    async def power(self, device: Device) -> str:  # noqa: ARG002
        return "on"

    async def switch(self, device: Device, action: Power) -> None:  # noqa: ARG002
        if action != "cycle":
            _cannot(f"switch its own host {action}")
        for program in (self._command[0], "shutdown") if self._command[0] == "sudo" else self._command[:1]:
            if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
                raise Rejected(f"This host has no {program}, by which it would be started anew")
        if self._pending is None or self._pending.done():
            self._pending = asyncio.create_task(self._begun_anew(), name="shutdown of this host")

    async def _begun_anew(self) -> None:
        await asyncio.sleep(self._pause_s)
        try:
            done = await process.run(self._command, timeout_s=30)
        except MusterError as e:
            _log.error("This host was not started anew: %s", e)
            return
        if done.status != 0:
            _log.error("This host was not started anew: %s", shown(done.stderr.strip() or f"status {done.status}", 200))

    async def close(self) -> None:
        """Forget a start that has not begun."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)

    async def identified(self, device: Device) -> str:  # noqa: ARG002
        _cannot("identify its own host")

    async def identify(self, device: Device, *, lit: bool) -> None:  # noqa: ARG002
        _cannot("identify its own host")

    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:  # noqa: ARG002
        _cannot("say from what its own host boots")

    async def lan(self, device: Device, field: LanField) -> Any:  # noqa: ARG002
        _cannot("tell of its own host's network")

    async def fru(self, device: Device, field: FruField) -> Any:  # noqa: ARG002
        _cannot("tell what its own host is")

    async def controller(self, device: Device, field: ControllerField) -> Any:  # noqa: ARG002
        _cannot("tell of a BMC")

    async def reset(self, device: Device, kind: Reset) -> None:  # noqa: ARG002
        _cannot("start a BMC anew")

    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:  # noqa: ARG002
        _cannot("read sensors")


@asynccontextmanager
async def opened() -> AsyncIterator[ShellBMC]:
    """Yield the provider; a start of this host that has not begun on leaving is forgotten."""
    provider = ShellBMC()
    try:
        yield provider
    finally:
        await provider.close()


def _cannot(what: str) -> NoReturn:
    raise Unsupported(f"Provider shell cannot {what}")
