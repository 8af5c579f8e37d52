"""Does what stands behind the ports of content answer, and is what they serve from this host here?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.content.call import Program
from muster.content.led import Led
from muster.kernel import log
from muster.kernel.errors import MusterError

_log = log.logger("app")

# HAProxy wants two as well before it believes that somebody is gone.
_FALL = 2
# As of every other program beside a member that is Pulp. A client's call has longer, since Pulp may fetch what it asks for.
_PATIENCE_S = 3.0
_SELDOM_S = 10.0


class BackendAsked(Duty):
    """Takes out the services whose places lead to a program that does not answer; of one without services it notes that.

    One a program. Any answer below 500 will do: which of its paths there are is the program's own matter. But a registry
    that has no ``/v2/`` is none (Distribution specification: 404 says so), hence ``absent``: a status that is no answer
    either.
    """

    def __init__(
        self,
        backend: Program,
        path: str,
        services: Sequence[str],
        place: str,
        *,
        absent: int | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """``place`` is where it answers, as the settings say it for this member."""
        self.name = f"backend {backend.name}"
        self._backend = backend
        self._path = path
        self._services = services
        self._place = place
        self._absent = absent
        self._patience_s = patience_s
        self._failures = _FALL
        self._is_said = False
        # Nobody gets clients of a program that has not answered yet.
        self._why = f"{backend.name} was not asked yet"
        if not services:
            self.every_s = _SELDOM_S

    async def beat(self) -> None:
        why = await self._unanswered()
        self._failures = self._failures + 1 if why else 0
        if why:
            self._why = f"{why} ({self._backend.place if isinstance(self._backend, Led) else self._place})"
        is_out = self._failures >= _FALL
        if is_out and not self._is_said:
            _log.warning(
                "What is behind content does not answer", services=", ".join(self._services) or "none", why=self._why
            )
        elif self._is_said and not why:
            _log.info("What is behind content answers again", program=self._backend.name)
        self._is_said = is_out or (self._is_said and bool(why))

    async def _unanswered(self) -> str:
        """Return why it gave no answer, empty when it gave one."""
        try:
            async with asyncio.timeout(self._patience_s):
                answer = await self._backend.ask("GET", self._path, [])
        except TimeoutError:
            return f"{self._backend.name} did not answer within {self._patience_s:g} s"
        except MusterError as e:
            return str(e)
        answer.end()
        is_there = answer.status < 500 and answer.status != self._absent
        return "" if is_there else f"{self._backend.name} answers {answer.status} to {self._path}"

    def found(self) -> Found:
        if self._failures < _FALL:
            return NOTHING
        return Found(dict.fromkeys(self._services, self._why), notes=() if self._services else (self._why,))


class PubLooked(Duty):
    """Notes that the directory of ``/pub`` cannot be served: every file of it is 404 then, and nothing else is wrong."""

    name = "pub"
    every_s = _SELDOM_S

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._why = ""

    async def beat(self) -> None:
        self._why = await asyncio.to_thread(_unserved, self._directory)

    def found(self) -> Found:
        return Found(notes=(f"what is in /pub is 404: {self._why}",)) if self._why else NOTHING


def _unserved(directory: Path) -> str:
    try:
        # What is served has to be found by name only; a directory that may not be listed is none the worse.
        is_directory = directory.is_dir()
    except OSError as e:
        return f"{directory}: {e.strerror or e}"
    if not is_directory:
        return f"{directory} is no directory of this host"
    return "" if os.access(directory, os.X_OK) else f"{directory} may not be entered by the account of the member"
