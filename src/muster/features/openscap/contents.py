"""What hosts are measured by: SCAP contents and tailoring files of policies, fetched from Foreman once by each member.

One is known by its SHA-256, which hosts have in their configuration and ask for: what has another is not given to them, and
what has it never changes. Source: docs/facts/openscap.md §5.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from muster.content.backend import BadGateway
from muster.features.openscap.forwarding import Asking
from muster.kernel.errors import NotFound, Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.tasks import OneEach

Kind = Literal["content", "tailoring"]

_CALLED = {"content": "SCAP content", "tailoring": "tailoring file"}
_PIECE_BYTES = 256 << 10
_AT_ONCE = 2
_MOST_ASKED = 64
# For how long Foreman is not asked again for a policy's that it had under another digest than a host wanted: any host may
# make up digests, and Foreman sends the whole file each time.
_OTHER_FOR_S = 10.0


@dataclass(frozen=True)
class Key:
    """Which one is meant. ``digest``: its SHA-256, in hexadecimal digits."""

    kind: Kind
    policy: int
    digest: str

    @property
    def file(self) -> str:
        return f"{self.kind}-{self.policy}-{self.digest}.xml"


@dataclass(frozen=True)
class Given:
    """A file on this member's disk, open."""

    size: int
    pieces: AsyncGenerator[bytes, None]
    close: Callable[[], None]


class Contents:
    """Those on this member's disk. Concurrency: one loop; who asks for the same waits for the same."""

    def __init__(self, ask: Asking, directory: Path, *, limit_bytes: int) -> None:
        self._ask = ask
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._fetching: OneEach[Key] = OneEach()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._others: dict[tuple[Kind, int], tuple[float, str]] = {}

    async def given(self, key: Key) -> Given:
        """Return one, fetched where it is not there yet.

        Raises:
            NotFound: Foreman has no such policy, or by now another one for it.
            Unavailable, GatewayTimeout, BadGateway: Foreman did not answer, or not so; the disk cannot be written.
        """
        path = self._directory / key.file
        found = await asyncio.to_thread(_opened, path)
        if found is None:
            self._refuse_other(key)
            if self._fetching.get(key) is None and len(self._fetching) >= _MOST_ASKED:
                raise Unavailable(f"{_MOST_ASKED} contents of policies are being fetched; try again")
            task = self._fetching.begin(key, self._fetch, name="SCAP content")
            await asyncio.shield(task)
            found = await asyncio.to_thread(_opened, path)
        if found is None:
            raise Unavailable(
                f"The {_CALLED[key.kind]} of policy {key.policy} was replaced while it was read; try again"
            )
        return found

    async def close(self) -> None:
        """End what is under way."""
        await self._fetching.close()

    async def _fetch(self, key: Key) -> None:
        async with self._slots:
            self._refuse_other(key)
            path = f"/api/v2/compliance/policies/{key.policy}/{key.kind}"
            said = await self._ask("GET", path, [("Accept", "*/*")], limit_bytes=self._limit_bytes)
            if said.status == 404:
                raise NotFound(f"Foreman has no {_CALLED[key.kind]} of policy {key.policy}: is that its id?")
            if said.status != 200:
                kind = Unavailable if said.status >= 500 else BadGateway
                raise kind(f"Foreman answered {said.status} for the {_CALLED[key.kind]} of policy {key.policy}")
            digest = await asyncio.to_thread(lambda: hashlib.sha256(said.body).hexdigest())
            if digest != key.digest:
                self._others.pop((key.kind, key.policy), None)
                while len(self._others) >= _MOST_ASKED:
                    del self._others[next(iter(self._others))]
                self._others[key.kind, key.policy] = (time.monotonic() + _OTHER_FOR_S, digest)
                self._refuse_other(key)
            await asyncio.to_thread(self._put, key, said.body)

    def _refuse_other(self, key: Key) -> None:
        """Return unless Foreman had another one for the policy a moment ago."""
        until, digest = self._others.get((key.kind, key.policy), (0.0, key.digest))
        if digest != key.digest and time.monotonic() < until:
            raise NotFound(
                f"Foreman has another {_CALLED[key.kind]} for policy {key.policy} by now: {digest}, and {key.digest} was"
                " asked for; have the host's configuration follow"
            )

    def _put(self, key: Key, body: bytes) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._directory / key.file, body)
            # A policy has one at a time; the others are nobody's any more.
            for other in self._directory.glob(f"{key.kind}-{key.policy}-*.xml"):
                if other.name != key.file:
                    other.unlink(missing_ok=True)
        except OSError as e:
            raise Unavailable(
                f"Keeping the {_CALLED[key.kind]} of policy {key.policy} failed: {e.strerror or e}"
            ) from e


def _opened(path: Path) -> Given | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Unavailable(f"Reading {path} failed: {e.strerror or e}") from e
    file = os.fdopen(descriptor, "rb", buffering=0)

    async def pieces() -> AsyncGenerator[bytes, None]:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece

    return Given(os.fstat(descriptor).st_size, pieces(), file.close)
