"""An origin without sockets, whose files a test changes at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from muster.content.backend import Answer
from muster.kernel.errors import Unavailable

URL = "https://origin.test/x"


@dataclass
class Origin:
    """One.

    Attributes:
        files: by path below it.
        status: of the answer for a path, instead of 200 or 404.
        status_of_head: the same, for who asks for its head alone.
        breaks_at: after so many bytes the answer for a path breaks off, once.
        no_ranges: it gives the whole file to whoever asks for a part.
        before: is called before each answer with what is asked for.
        hangs: a path whose answer never begins.
        asked: method, path and range of what it was asked.
        open: how many answers were begun and not ended.
        most: how many at once.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    status_of_head: dict[str, int] = field(default_factory=dict)
    breaks_at: dict[str, int] = field(default_factory=dict)
    no_ranges: bool = False
    before: Callable[[str], None] = lambda _: None
    hangs: str = "-"
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    open: int = 0
    most: int = 0
    name: str = "the origin"
    url: str = URL

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        below = unquote(path).removeprefix("/")
        part = dict(headers).get("Range", "")
        self.asked.append((method, below, part))
        self.before(below)
        if below == self.hangs:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        # From here on whoever asked has it.
        self.open += 1
        self.most = max(self.most, self.open)
        body = self.files.get(below, b"")
        status = self.status.get(below, 200 if below in self.files else 404)
        status = self.status_of_head.get(below, status) if method == "HEAD" else status
        body = body if status == 200 else b"said"
        said = [("Content-Length", str(len(body)))]
        if status == 200 and part and not self.no_ranges:
            first, last = (int(n) for n in part.removeprefix("bytes=").split("-"))
            said = [("Content-Length", str(last - first + 1)), ("Content-Range", f"bytes {first}-{last}/{len(body)}")]
            status, body = 206, body[first : last + 1]
        is_open = [True]

        def end() -> None:
            self.open -= is_open[0]
            is_open[0] = False

        return Answer(self.name, status, said, self._pieces(body, below), end)

    async def _pieces(self, body: bytes, below: str) -> AsyncGenerator[bytes, None]:
        at = self.breaks_at.pop(below, None)
        whole = body if at is None else body[:at]
        for first in range(0, len(whole), 1000):
            await asyncio.sleep(0)
            yield whole[first : first + 1000]
        if at is not None:
            raise Unavailable(f"{self.name} broke off its answer")

    def paths(self) -> list[str]:
        """Return what it was asked for, and forget it."""
        found = [path for _, path, _ in self.asked]
        self.asked.clear()
        return found
