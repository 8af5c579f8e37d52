"""The peer: our listener and protocol around the least an ASGI application can be.

It answers ``GET /version`` with the bytes a member answers, so that what is left between the two is what the edge does for
a call: request id, path, routes, authorisation, logs and metrics. Run as ``python -m bench.bare JSON``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any, cast

import uvloop
from prometheus_client import CollectorRegistry

from muster.cluster.file import Edge as Limits
from muster.edge.application import Application, Scope, Send
from muster.edge.metrics import EdgeMetrics
from muster.edge.replies import json_reply
from muster.edge.request import Receive
from muster.edge.server import opened
from muster.pki.context import server_context
from muster.version import PROTOCOL_VERSION

_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Bare:
    """Answers everything with the same bytes."""

    draining = False

    def __init__(self, modules: list[str]) -> None:
        answer = json_reply({"version": PROTOCOL_VERSION, "modules": dict.fromkeys(modules, PROTOCOL_VERSION)})
        self.body = {"type": "http.response.body", "body": answer.body}
        start = {"type": "http.response.start", "status": answer.status}
        self.start = {"http": {**start, "headers": answer.headers}}
        self.start["https"] = {**start, "headers": [*answer.headers, _HSTS]}

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await send(self.start[scope["scheme"]])
        await send(self.body)


async def _serve(given: dict[str, Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = cast(Application, Bare(given["modules"]))
    context = server_context(Path(given["certificate"]), Path(given["key"]), [Path(given["ca"])])
    async with opened(application, Limits(), EdgeMetrics(CollectorRegistry())) as server:
        server.listen("http", given["address"], given["http_port"])
        server.listen("https", given["address"], given["https_port"], context)
        await stop.wait()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
