"""A status in a dictionary: the contract without a Pulp. It can be told to fail, and to be slow."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from muster.features.pulpcore.contract import Said
from muster.kernel.errors import MusterError


class MemoryPulp:
    """Says what it was given.

    Attributes:
        content: the status; its ``status`` code is ``code``.
        failure: raised while set.
        slow: every question waits for it while set.
        asked: the URLs that were asked, in order.
    """

    def __init__(self) -> None:
        self.content: dict[str, Any] = {
            "versions": [{"component": "core", "version": "3.105.12"}, {"component": "rpm", "version": "3.35.1"}],
            "online_workers": [{"name": "1@pulp"}],
            "online_content_apps": [{"name": "2@pulp"}],
            "database_connection": {"connected": True},
            "storage": {"total": 1000, "used": 400, "free": 600},
        }
        self.code = 200
        self.failure: MusterError | None = None
        self.slow: asyncio.Event | None = None
        self.asked: list[str] = []

    async def status(self, url: str) -> Said:
        self.asked.append(url)
        if self.slow is not None:
            await self.slow.wait()
        if self.failure is not None:
            raise self.failure
        return Said(self.code, json.dumps(self.content))
