"""Does what stands behind the ports of content answer?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from muster.app.duties.duty import Duty, Found
from muster.content.backend import Backend
from muster.kernel.errors import MusterError

# HAProxy wants two as well before it believes that somebody is gone.
_FALL = 2
# Clients may have to wait for what Pulp fetches meanwhile; this question needs nothing of the kind.
_PATIENCE_S = 5.0


class BackendAsked(Duty):
    """Takes out the services whose places lead to a program that does not answer. One a program.

    Any answer below 500 will do: which of its paths there are is the program's own matter. But a registry that has no
    ``/v2/`` is none (Distribution specification: 404 says so), hence ``absent``: a status that is no answer either.
    """

    def __init__(
        self,
        backend: Backend,
        path: str,
        services: Sequence[str],
        *,
        absent: int | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.name = f"backend {backend.name}"
        self._backend = backend
        self._path = path
        self._services = services
        self._absent = absent
        self._patience_s = patience_s
        self._failures = _FALL
        # Nobody gets clients of a program that has not answered yet.
        self._why = f"{backend.name} was not asked yet"

    async def beat(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                answer = await self._backend.ask("GET", self._path, [])
            answer.end()
            is_there = answer.status < 500 and answer.status != self._absent
            why = "" if is_there else f"{self._backend.name} answers {answer.status} to {self._path}"
        except TimeoutError:
            why = f"{self._backend.name} did not answer within {self._patience_s:g} s"
        except MusterError as e:
            why = str(e)
        self._failures = self._failures + 1 if why else 0
        self._why = why or self._why

    def found(self) -> Found:
        if self._failures < _FALL:
            return Found()
        return Found(dict.fromkeys(self._services, self._why))
