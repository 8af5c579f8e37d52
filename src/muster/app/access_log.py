"""Finished calls, written down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from datetime import UTC, datetime
from typing import Literal


class AccessLog:
    """Finished calls, written a few at a time: one system call for many lines."""

    def __init__(self, form: Literal["json", "text"] = "text", member: str = "", stream_fd: int = 2) -> None:
        self._form = form
        self._member = member
        self._fd = stream_fd
        self._lines: list[tuple[float, str]] = []

    def __call__(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(0.05, self.flush)
        self._lines.append((time.time(), line))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        text = "".join(self._written(at, line) for at, line in lines)
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "replace"))

    def _written(self, at: float, line: str) -> str:
        when = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        if self._form == "text":
            return f"{when} [access   ] {line}\n"
        record = {"timestamp": when, "level": "info", "event": line, "room": "access", "member": self._member}
        return json.dumps(record, ensure_ascii=False) + "\n"
