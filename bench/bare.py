"""The peer: bare uvicorn behind our acceptor, around the least an ASGI application can be.

It answers ``GET /version`` with the bytes a member answers. With uvicorn's own HTTP protocol it is what the goal names: no
deadlines, no limits, no logs. With ``"protocol": "muster"`` it stands on ours, and what is left between the two is what the
edge does for a call: request id, path, routes, authorisation, logs and metrics. Run as ``python -m bench.bare JSON``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvloop
from prometheus_client import CollectorRegistry
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muster.cluster.sections import Edge as Limits
from muster.cluster.sections import Foreman
from muster.edge.application import Application, Scope, Send
from muster.edge.budget import Budget
from muster.edge.listener import Listener, bound
from muster.edge.metrics import EdgeMetrics
from muster.edge.replies import json_reply
from muster.edge.request import Receive
from muster.edge.server import Server
from muster.pki.context import server_context
from muster.pki.trust import Trust

_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Bare:
    """Answers everything with the same bytes."""

    draining = False
    budget = Budget(Limits().memory_bytes)

    def __init__(self, modules: list[str]) -> None:
        version = Foreman().told_version
        answer = json_reply({"version": version, "modules": dict.fromkeys(modules, version)})
        self.body = {"type": "http.response.body", "body": answer.body}
        start = {"type": "http.response.start", "status": answer.status}
        self.start = {"http": {**start, "headers": answer.headers}}
        self.start["https"] = {**start, "headers": [*answer.headers, _HSTS]}

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await send(self.start[scope["scheme"]])
        await send(self.body)


class Plain(HttpToolsProtocol):
    """uvicorn's protocol as it is, with the two attributes by which our acceptor counts connections."""

    origin = None
    on_lost = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()


class Uvicorn(Server):
    """Our listeners with uvicorn's protocol behind them."""

    def listen(
        self,
        name: str,
        address: str,
        port: int,
        context: ssl.SSLContext | None = None,
        application: Application | None = None,
        trust: Trust | None = None,
    ) -> Listener:
        config = Config(
            cast(Any, application or self.application), http=Plain, lifespan="off", log_config=None, access_log=False
        )
        config.load()
        make: Any = partial(Plain, config, self._state, {})
        listener = Listener(name, bound(address, port), self.limits, make, self.metrics, context, trust)
        listener.start()
        self._listeners.append(listener)
        return listener


async def _serve(given: dict[str, Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = cast(Application, Bare(given["modules"]))
    context = server_context(Path(given["certificate"]), Path(given["key"]), [Path(given["ca"])])
    kind = {"uvicorn": Uvicorn, "muster": Server}[given["protocol"]]
    server = kind(application, Limits(), EdgeMetrics(CollectorRegistry()), frozenset())
    sweeper = asyncio.create_task(server.sweep())
    server.listen("http", given["address"], given["http_port"])
    server.listen("https", given["address"], given["https_port"], context)
    await stop.wait()
    await server.stop()
    sweeper.cancel()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
