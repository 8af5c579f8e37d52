"""A real puppetserver over its HTTP API; what it parsed once is asked for by its ETag.

Source: docs/facts/smart-proxy-protocol.md §11.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from muster.features.puppet.contract import Environment
from muster.features.puppet.settings import PuppetserverSettings
from muster.foreman import smart_proxy as http
from muster.foreman.answers import Answer
from muster.kernel.errors import Misconfigured, NotFound, Rejected
from muster.kernel.names import shown
from muster.pki.context import RenewedContext

_ANSWER_LIMIT_BYTES = 128 << 20
_CLASSES = "/puppet/v3/environment_classes"


class PuppetserverPuppet:
    """Asks the server; keeps each environment's last answer beside its ETag."""

    def __init__(self, server: http.SmartProxy) -> None:
        self._server = server
        self._kept: dict[str, tuple[str, list[dict[str, Any]]]] = {}

    async def environments(self) -> list[Environment]:
        answer = self._good(await self._server.ask("GET", "/puppet/v3/environments"))
        found = answer.json()
        listed = found.get("environments") if isinstance(found, dict) else None
        if not isinstance(listed, dict):
            raise Rejected(f"The answer has no environments: {shown(answer.text, 200)}")
        out = []
        for name, about in listed.items():
            settings = about.get("settings") if isinstance(about, dict) else None
            paths = settings.get("modulepath") if isinstance(settings, dict) else None
            if isinstance(paths, list):
                out.append(Environment(str(name), tuple(str(p) for p in paths)))
        return out

    async def files(self, environment: str) -> list[dict[str, Any]]:
        kept = self._kept.get(environment)
        headers = {"If-None-Match": kept[0]} if kept else {}
        path = f"{_CLASSES}?environment={quote(environment, safe='')}"
        answer = await self._server.ask("GET", path, headers=headers)
        if answer.status == 304 and kept:
            return kept[1]
        if answer.status == 404:
            self._kept.pop(environment, None)
            raise NotFound(f"Could not find environment '{environment}'")
        content = self._good(answer).json()
        found = content.get("files") if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise Rejected(f"The answer has no files: {shown(answer.text, 200)}")
        files = [f for f in found if isinstance(f, dict)]
        if answer.etag:
            self._kept[environment] = answer.etag, files
        return files

    async def reached(self) -> None:
        # A name that is none: auth.conf is looked at first, and no interpreter is borrowed, which busy servers lack.
        answer = await self._server.ask("GET", f"{_CLASSES}?environment=-")
        if answer.status not in (400, 404):
            self._good(answer)

    def _good(self, answer: Answer) -> Answer:
        if answer.status in (401, 403):
            raise Misconfigured(
                f"{self._server.url} refuses our certificate: its auth.conf must let that certname GET {_CLASSES}"
            )
        if answer.status != 200:
            raise Rejected(f"{answer.status} {shown(answer.text.strip(), 500)}")
        return answer


@asynccontextmanager
async def opened(settings: PuppetserverSettings, timeout_s: float) -> AsyncIterator[PuppetserverPuppet]:
    """Yield the provider; renewed certificate files are taken up.

    Raises:
        Misconfigured: a file cannot be used.
    """
    context = RenewedContext(settings.ca, settings.certificate, settings.key)
    async with http.opened(
        settings.url,
        context=context,
        server_name=settings.server_name,
        timeout_s=timeout_s,
        answer_limit_bytes=_ANSWER_LIMIT_BYTES,
    ) as server:
        yield PuppetserverPuppet(server)
