"""An IPAM's web API: JSON over HTTPS, bounded, with a secret in a header that goes nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from muster.foreman import smart_proxy
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.documents import values_in
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import first_line
from muster.kernel.names import shown
from muster.kernel.secrets import Secret
from muster.pki.context import believing

ANSWER_LIMIT_BYTES = 16 << 20
MOST_VALUES = 1_000_000
"""How many values an answer may have; those of 16 MiB with addresses and all that is said of them are fewer."""
_CONNECT_S = 5.0
_SECRET_BYTES = 4096


@dataclass(frozen=True)
class Said:
    """What an IPAM answered: status, content (None: an empty body), and the call, for sentences."""

    status: int
    content: Any
    target: str

    @property
    def is_passing(self) -> bool:
        """Whether the same call may be answered otherwise soon, and what became of it is unknown."""
        return self.status in (408, 429) or self.status >= 500


class REST:
    """One API. Use :func:`opened`.

    Concurrency: any number of tasks of one loop; connections are kept.
    """

    def __init__(self, client: SmartProxy, base: str) -> None:
        self._client = client
        self._base = base
        self.url = client.url

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] = {},
        *,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str],
    ) -> Said:
        """Send one call. ``path`` holds nothing from outside that is not numbers, addresses or letters.

        Raises:
            Unavailable: no answer, one that is no JSON, or one that leads elsewhere.
            Misconfigured: TLS refused.
        """
        whole = self._base + path + (f"?{urlencode(query)}" if query else "")
        answer = await self._client.ask(method, whole, document=document, headers=headers)
        target = f"{method} {self.url}{self._base}{path}"
        if 300 <= answer.status < 400:
            raise Unavailable(f"{target} was answered {answer.status}: it leads elsewhere, which is not followed")
        if not answer.text.strip():
            return Said(answer.status, None, target)
        if values_in(answer.text) > MOST_VALUES:
            raise Unavailable(f"{target} was answered {answer.status} with more than {MOST_VALUES} values")
        try:
            return Said(answer.status, json.loads(answer.text), target)
        except (ValueError, RecursionError):
            raise Unavailable(f"{target} was answered {answer.status} with no JSON: {shown(answer.text)}") from None


def secret_of(value: Secret | None, file: Path | None, what: str) -> Secret:
    """Return a secret that stands in the settings, or in the first line of a file.

    Raises:
        Misconfigured: the file cannot be read, or is empty; or it could stand in no header.
    """
    if value is None:
        if file is None:
            raise Misconfigured(f"{what} is not given")
        first = first_line(file, what=what, limit_bytes=_SECRET_BYTES)
        if not first:
            raise Misconfigured(f"{file}, {what}, has nothing in its first line")
        value = Secret(first)
    if not value.reveal().isprintable():
        raise Misconfigured(f"{what} holds characters that it cannot have")
    return value


@asynccontextmanager
async def opened(url: str, base: str, *, ca: Path | None, timeout_s: float) -> AsyncIterator[REST]:
    """Yield a client of the API below ``url`` and ``base``.

    Raises:
        Misconfigured: the CA's file cannot be read.
    """
    context = believing(ca, of=url) if ca is not None else None
    async with smart_proxy.opened(
        url,
        context=context,
        timeout_s=timeout_s,
        connect_timeout_s=_CONNECT_S,
        answer_limit_bytes=ANSWER_LIMIT_BYTES,
    ) as client:
        yield REST(client, base)
